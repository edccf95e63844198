"""`bulkhead`: the console script. It loads the rest only once an interrupt is safe."""

import sys

from cli.interrupts import quiet_interrupts


def main() -> None:
    """Run the command line."""
    with quiet_interrupts():
        from cli.app import app  # noqa: PLC0415 - most of the start goes by in this import

    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown with a question mark, not as a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="bulkhead")


if __name__ == "__main__":
    main()
