"""What a worker and its runner tell each other by: names of files and variables."""

from typing import Final

REQUEST: Final = "request.json"
RESULT: Final = "result.json"
# One line of the shape of `StackProgress` for each step.
EVENTS: Final = "events.jsonl"
# Of mode 0600.
PASSPHRASE: Final = "passphrase"  # noqa: S105 - the name of a file
USER_DATA: Final = "user-data"
# Pulumi's own.
HOME: Final = "home"
LOG: Final = "runner.log"
# Where the environment says which program is Pulumi's CLI.
ENGINE_VARIABLE: Final = "BULKHEAD_STACK_ENGINE"
