"""`python -m infra.embedded up|down|status|...`; see `infra.embedded.command`."""

import signal
import sys


def _run() -> int:
    # The imports take seconds on a busy machine, and nothing needs an end of its own until then.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from infra.embedded.command import main  # noqa: PLC0415 - after the line above, that is all

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()


if __name__ == "__main__":
    sys.exit(_run())
