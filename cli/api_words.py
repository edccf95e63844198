"""What the API says about its own requests, as the commands that send them.

The API's sentences name requests, for they are read by programs' authors too. A person at a
terminal reads the same sentences with commands in their place.
"""

import re
from collections.abc import Callable
from functools import partial

from cli.hints import GETS, LISTS

_ID = r"(?P<id>[a-z]+_[0-9a-zA-Z]+)"

# What a person types instead of a request; a pattern that says more comes before one that says
# less.
_REQUESTS = tuple(
    (re.compile(pattern), command)
    for pattern, command in (
        (rf"POST /v1/operations/{_ID}:wait", "bulkhead operations watch {id}"),
        (rf"POST /v1/operations/{_ID}:cancel", "bulkhead operations cancel {id}"),
        (rf"GET /v1/installs/{_ID}/renders/\w+/plan", "bulkhead installs plan {id}"),
        (rf"GET /v1/packages/{_ID}/versions", "bulkhead packages get {id}"),
        (
            r'PATCH /v1/workspaces/\{id\} with \{"install_logs_enabled": true\}',
            "bulkhead workspaces logs enable WORKSPACE",
        ),
        (r"(?<!\w):requestPurge\b", "bulkhead secrets purge request SECRET"),
        *((rf"GET /v1/{kind}/{_ID}(?![\w/:])", command) for kind, command in GETS.items()),
        *((rf"GET /v1/{kind}(?![\w/:])", command) for kind, command in LISTS.items()),
    )
)
_FLAG = re.compile(r"\b(?P<name>[a-z_]+)=true\b")


def in_commands(text: str, typed: Callable[[str], str] = str) -> str:
    """Return a sentence of the API with commands for its requests, and options for its flags.

    Args:
        text: the sentence.
        typed: how a command is typed here.
    """
    for request, command in _REQUESTS:
        text = request.sub(partial(_quoted, command, typed), text)
    return _FLAG.sub(lambda match: "--" + match["name"].replace("_", "-"), text)


def _quoted(command: str, typed: Callable[[str], str], request: re.Match[str]) -> str:
    return f"`{typed(command.format(**request.groupdict()))}`"
