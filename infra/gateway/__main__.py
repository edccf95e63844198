"""Installs the gateway's program where that may be done; says what is missing where not."""

import sys

from domain.errors import BulkheadError
from infra.gateway import haproxy


def main() -> int:
    """Return 1 only when an installation that may be done failed."""
    found = haproxy.find()
    if found is not None:
        print(f"haproxy is at {found}.")
        return 0
    if not haproxy.is_installable():
        print("haproxy is not installed, and is not needed unless servers join by one port.")
        return 0
    print("Installing haproxy with apt-get.", flush=True)
    try:
        haproxy.install()
    except BulkheadError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
