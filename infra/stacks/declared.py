"""What programs declare, asked of a process of its own: only such ones load Pulumi's SDKs.

`python -m infra.stacks.declared PROVIDER` prints the provider's `RESOURCES` as JSON.
"""

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Final

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.stack import StackKind
from infra.supervisor.configuration import source_root

# Loading an SDK takes some seconds, on a machine that is busy some more.
_LOADED_WITHIN_SECONDS: Final = 120.0


class Declarations:
    """What the programs of this installation declare; each provider's is asked for once.

    Args:
        within_seconds: how long a provider's SDK may take to load.
    """

    def __init__(self, within_seconds: float = _LOADED_WITHIN_SECONDS) -> None:
        self._within_seconds = within_seconds
        self._known: dict[Provider, Mapping[StackKind, Mapping[str, str]]] = {}

    async def of(self, provider: Provider, kind: StackKind) -> Mapping[str, str]:
        """Return the inventory kinds of a program's resources, by logical name.

        Raises:
            BulkheadError: INTERNAL when the provider's programs cannot be loaded;
                DEADLINE_EXCEEDED, worth another try, when that takes too long.
        """
        if provider not in self._known:
            self._known[provider] = await _ask(provider, self._within_seconds)
        return self._known[provider][kind]


async def _ask(provider: Provider, within_seconds: float) -> Mapping[StackKind, Mapping[str, str]]:
    paths = (os.environ.get("PYTHONPATH"), os.fspath(source_root()))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, provider),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    try:
        async with asyncio.timeout(within_seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        raise BulkheadError(
            Reason.DEADLINE_EXCEEDED,
            f"The programs of {provider} were not loaded within {within_seconds:.0f} s. It is tried"
            " again.",
            retryable=True,
        ) from None
    finally:
        # Also whoever is cancelled leaves none behind.
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise BulkheadError(
            Reason.INTERNAL,
            f"The programs of {provider} cannot be loaded: "
            + errors.decode(errors="replace").strip().rpartition("\n")[2],
        )
    return {StackKind(kind): resources for kind, resources in json.loads(output).items()}


if __name__ == "__main__":
    module = importlib.import_module(f"infra.stacks.programs.{sys.argv[1]}")
    sys.stdout.write(json.dumps(module.RESOURCES))
