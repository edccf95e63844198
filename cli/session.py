"""What a command works with: the connection, the API, the output, and names turned into ids."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from cli.client import ApiClient, JsonObject, RetryPolicy, segment
from cli.configuration import (
    TOKEN_VARIABLE,
    Configuration,
    Connection,
    Wishes,
    WorkspaceChoice,
)
from cli.errors import CliError, ExitCode
from cli.output import Column, Output
from cli.text import clean, duration, name_in

_ID = re.compile(r"([a-z]{2,5})_[0-9a-zA-Z]{1,50}")


@dataclass(frozen=True, slots=True)
class Noun:
    """A kind of resource that a person may name instead of giving its id.

    Attributes:
        singular: its name.
        prefix: the prefix of its ids.
        path: its list in the API.
        list_command: the command that shows what there is.
        alternative_key: a second field that identifies it.
    """

    singular: str
    prefix: str
    path: str
    list_command: str
    alternative_key: str | None = None


WORKSPACE = Noun("workspace", "ws", "/workspaces", "bulkhead workspaces list", "slug")
REGION = Noun("region", "reg", "/regions", "bulkhead regions list")
CLUSTER = Noun("cluster", "clu", "/clusters", "bulkhead clusters list")
MACHINE = Noun("machine", "mch", "/machines", "bulkhead machines list")
COMPUTE_CONFIG = Noun("compute config", "cmp", "/compute_configs", "bulkhead compute-configs list")
TOKEN = Noun("token", "tok", "/api_tokens", "bulkhead tokens list")
SECRET = Noun("secret", "sec", "/secrets", "bulkhead secrets list")
SECRET_VERSION = Noun("version", "secv", "", "bulkhead secrets versions SECRET")
REGISTRY = Noun("registry", "rcon", "/registry_connections", "bulkhead registries list")
PACKAGE = Noun("package", "pkg", "/packages", "bulkhead packages list")
PACKAGE_VERSION = Noun("version", "pkgv", "", "bulkhead packages get PACKAGE")
PRODUCT = Noun("product", "prod", "/products", "bulkhead products list")
INSTALL = Noun("install", "inst", "/installs", "bulkhead installs list")
GRANT = Noun("grant", "grnt", "/grants", "bulkhead grants list")
ROLLOUT = Noun("rollout", "roll", "/rollouts", "bulkhead rollouts list")
EMERGENCY_STOP = Noun("stop", "stop", "/emergency_stops", "bulkhead stops list")


class Session:
    """One command's view of the world. The connection is looked for only when it is needed.

    Args:
        output: what the command shows.
        wishes: what its options say about the connection.
        configuration: what is remembered.
        retry: how requests are repeated.
        is_sure: the command asks nobody before it deletes.
    """

    def __init__(
        self,
        *,
        output: Output,
        wishes: Wishes,
        configuration: Configuration | None = None,
        retry: RetryPolicy | None = None,
        is_sure: bool = False,
    ) -> None:
        self.output = output
        self.wishes = wishes
        self.configuration = configuration or Configuration()
        self._retry = retry
        self._is_sure = is_sure

    @cached_property
    def connection(self) -> Connection:
        """The address and the token of this command."""
        return self.configuration.resolve(self.wishes)

    @cached_property
    def account(self) -> ApiClient:
        """The API without a chosen workspace: for what is not in one."""
        return self.client_for(self.connection, None)

    @cached_property
    def client(self) -> ApiClient:
        """The API, in the chosen workspace."""
        if self.workspace_choice is None:
            return self.account
        workspace_id = self.workspace_choice.name
        if not is_id(WORKSPACE, workspace_id):
            workspace_id = find_by_name(self.account, WORKSPACE, workspace_id)["id"]
        return self.client_for(self.connection, workspace_id, self._forget_workspace)

    @cached_property
    def workspace_choice(self) -> WorkspaceChoice | None:
        """The workspace that an option, the environment or an earlier command chose."""
        return self.configuration.workspace_for(self.connection, self.wishes)

    @property
    def acts_in_workspace(self) -> bool:
        """Whether the command asked for something in a workspace."""
        return "client" in self.__dict__

    @property
    def token_source(self) -> str | None:
        """Where the token was found; None as long as none was needed."""
        return self.connection.source if "connection" in self.__dict__ else None

    @cached_property
    def workspaces(self) -> list[JsonObject]:
        """The workspaces that the token reaches, newest first."""
        return self.account.read_list("/workspaces")

    @property
    def workspace_in_use(self) -> JsonObject | None:
        """The workspace that commands act in; None: the token reaches none, or not that one."""
        chosen = self.client.workspace_id
        if chosen is None:
            # Without a choice the API acts in a user's first workspace; the token of a workspace
            # reaches that one only.
            return self.workspaces[-1] if self.workspaces else None
        return next((entry for entry in self.workspaces if entry["id"] == chosen), None)

    @property
    def place(self) -> str:
        """The workspace in use, for a person; also where its name cannot be read."""
        try:
            found = self.workspace_in_use
        except CliError:
            found = None
        if found is None:
            return f"workspace {self.client.workspace_id or '(the own one of the token)'}"
        return f"workspace {clean(found['name'])} ({found['id']})"

    def client_for(
        self,
        connection: Connection,
        workspace_id: str | None,
        gives_workspace_up: Callable[[], bool] | None = None,
    ) -> ApiClient:
        """Return a client that tells a person about pauses before it asks again."""
        return ApiClient(
            connection,
            workspace_id=workspace_id,
            retry=self._retry,
            on_retry=self._tell_retry,
            gives_workspace_up=gives_workspace_up,
        )

    def close(self) -> None:
        """Close what was opened."""
        for name in ("account", "client"):
            opened = self.__dict__.get(name)
            if opened is not None:
                opened.close()

    def resource(self, noun: Noun, name_or_id: str) -> JsonObject:
        """Read a resource by its id or its exact name.

        Raises:
            CliError: there is none, or several have the name.
        """
        if is_id(noun, name_or_id):
            return self.client.get(f"{noun.path}/{segment(name_or_id)}")
        return find_by_name(self.client, noun, name_or_id)

    def id_of(self, noun: Noun, name_or_id: str) -> str:
        """Return the id of a resource; an id is believed without asking.

        Raises:
            CliError: nothing has the name, or several have.
        """
        if is_id(noun, name_or_id):
            return name_or_id
        return str(find_by_name(self.client, noun, name_or_id)["id"])

    def show_list(
        self, nouns: str, entries: list[JsonObject], columns: Sequence[Column], begin: str
    ) -> None:
        """Print a list of the workspace; an empty one says where it looked and how to begin."""
        empty: tuple[str, ...] = ()
        if not entries and self.output.shows_progress:
            empty = (f"No {nouns} in {self.place}. Begin with:", f"  {begin}")
        self.output.listing(entries, columns, empty)

    def _forget_workspace(self) -> bool:
        """Forget a remembered workspace that is not there, as after `make purge`, and say so.

        Returns:
            False: it stays, because it was given, because a token that was given for this one
            command may only reach less, or because the command would delete elsewhere, unasked.
        """
        choice = self.workspace_choice
        is_kept = self._is_sure or self.connection.source == TOKEN_VARIABLE
        if choice is None or not choice.is_remembered or is_kept:
            return False
        url = self.connection.url
        self.configuration.remember_workspace(url, None)
        self.workspace_choice = None
        self.output.warn(
            f"The remembered workspace {clean(choice.name)} is not at {url} any more; it is "
            "forgotten, and the token's own is used."
        )
        return True

    def _tell_retry(self, message: str, seconds: float) -> None:
        if self.output.progress_console.is_terminal:
            self.output.note((f"{message} Trying again in {duration(seconds)}.", "yellow"))


def is_id(noun: Noun, text: str) -> bool:
    """Whether the text is an id of this kind."""
    match = _ID.fullmatch(text)
    return match is not None and match[1] == noun.prefix


def find_by_name(client: ApiClient, noun: Noun, name: str) -> JsonObject:
    """Return the only resource with exactly this name; without one, that which is shown by it.

    Raises:
        CliError: there is none, or several have the name.
    """
    entries = list(client.pages(noun.path))
    found = [entry for entry in entries if entry.get("name") == name]
    if noun.alternative_key is not None:
        # It is unique: nobody else can take it, as anybody can take a name.
        found = [entry for entry in entries if entry[noun.alternative_key] == name] or found
    # A machine without a name is shown by its node's or its server's, and means both.
    found = found or [
        entry
        for entry in entries
        if name_in(entry) == name or (not entry.get("name") and entry.get("hostname") == name)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        message = f"There is no {noun.singular} named {name!r}."
        raise CliError(message, ExitCode.NOT_FOUND, next_commands=(noun.list_command,))
    ids = ", ".join(str(entry["id"]) for entry in found)
    message = f"{len(found)} {noun.singular}s are named {name!r}; use an id instead: {ids}."
    raise CliError(message, ExitCode.USAGE, next_commands=(noun.list_command,))
