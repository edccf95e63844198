"""What a provider program is configured with."""

import json
import os
from collections.abc import Mapping
from typing import Any


class Configuration:
    """A provider's configuration: the program's own, else the environment's.

    Nested values reach a provider program as JSON text; they are parsed here.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = {key: _parsed(value) for key, value in arguments.items()}

    def get(self, key: str, *variables: str) -> Any:
        """Return a value, or None.

        Args:
            key: its name in the provider's schema: `token`, `accessToken`.
            variables: environment variables that the provider reads when it is not set, in order.
        """
        value = self._arguments.get(key)
        if value not in (None, ""):
            return value
        return next((os.environ[name] for name in variables if os.environ.get(name)), None)


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
