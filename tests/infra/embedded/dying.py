"""`python -m tests.infra.embedded.dying HOME POINT rotate|restore [ARCHIVE]`: dies on its way.

Does one command on a stack and kills itself, with SIGKILL, at the POINT-th of the moments between
its steps: before and after each thing that it reports, and after each renaming or removal of a
seal key. Ends with 0 when there are fewer.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from infra.embedded.backup import restore
from infra.embedded.home import Home
from infra.embedded.seal_rotation import rotate_seal_key
from infra.embedded.stack import Stack
from infra.openbao.seal import SealKeys
from infra.settings import EmbeddedSettings


class Moments:
    def __init__(self, last: int) -> None:
        self._left = last

    def pass_one(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def report(self, _title: str) -> Iterator[None]:
        self.pass_one()
        yield
        self.pass_one()

    def watch_seal_keys(self) -> None:
        rename, finish = Path.rename, SealKeys.finish

        def rename_and_pass(path: Path, target: Path) -> Path:
            renamed = rename(path, target)
            if path.name.startswith("seal"):
                self.pass_one()
            return renamed

        def finish_and_pass(keys: SealKeys) -> None:
            finish(keys)
            self.pass_one()

        Path.rename = rename_and_pass  # type: ignore[method-assign, assignment]
        SealKeys.finish = finish_and_pass  # type: ignore[method-assign, assignment]


def main(home: str, point: str, command: str, archive: str = "") -> None:
    stack = Stack(Home(Path(home)), EmbeddedSettings.model_construct(), durable=False)
    moments = Moments(int(point))
    moments.watch_seal_keys()
    if command == "rotate":
        rotate_seal_key(stack, moments.report)
    else:
        restore(stack, Path(archive), seal_key=None, report=moments.report)


if __name__ == "__main__":
    main(*sys.argv[1:])
