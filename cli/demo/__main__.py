"""The command line of the demo."""

from cli.interrupts import quiet_interrupts


def main() -> None:
    """Run the demo."""
    with quiet_interrupts():
        from cli.demo.command import app  # noqa: PLC0415 - as in `cli.main`

    app(prog_name="python -m cli.demo")


if __name__ == "__main__":
    main()
