"""A process that removes what tests have made when those who made it could not.

`python -m tests.shadow MODULE DIRECTORY` waits for the end of its input, which comes with the end
of the tests in whatever way, and has the module remove what is left. It loads nothing before that.
"""

import contextlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def shadow_of(module: str, directory: Path) -> Iterator[None]:
    """Have a shadow for as long as the context lasts; `module` has a `remove(directory)`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.shadow", module, str(directory)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


if __name__ == "__main__":
    sys.stdin.read()
    left = Path(sys.argv[2])
    if left.exists():
        importlib.import_module(sys.argv[1]).remove(left)
