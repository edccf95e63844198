"""The command `python -m infra.local_cloud`: see `infra.local_cloud.command`."""

import sys

from infra.local_cloud.command import main

if __name__ == "__main__":
    sys.exit(main())
