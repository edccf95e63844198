"""Which workspace `bulkhead` acts in after the demo."""

from cli.client import ApiClient, JsonObject
from cli.configuration import Configuration, Wishes
from cli.demo.stack import Stack
from cli.errors import CliError
from cli.output import Output
from cli.text import clean


def remember_workspace(
    stack: Stack, workspace: JsonObject, account: ApiClient, output: Output
) -> bool:
    """Let `bulkhead` act in the demo's workspace of the embedded stack, unless one is chosen.

    A remembered workspace that the stack does not have any more is no choice.

    Returns:
        Whether `bulkhead` acts in it without being told.
    """
    configuration = Configuration()
    try:
        chosen = configuration.workspace_for(stack.connection, Wishes())
        if chosen is not None:
            reachable = {entry["id"] for entry in account.pages("/workspaces")}
            if not chosen.is_remembered or chosen.name in reachable:
                return chosen.name in {workspace["id"], workspace["slug"]}
        if not stack.is_embedded:
            return False
        configuration.remember_workspace(stack.connection.url, workspace["id"])
    except CliError as failure:
        # The demo itself does not need it.
        output.note((f"Later commands need --workspace: {failure.message}", "dim"))
        return False
    slug = clean(workspace["slug"])
    output.note(("✓ ", "green"), f"From now on bulkhead acts in workspace {slug} at this address")
    return True
