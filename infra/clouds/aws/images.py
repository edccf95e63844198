"""How Canonical's images are found at AWS."""

import re
from typing import Final

UBUNTU: Final = re.compile(r"ubuntu-([0-9]{2}\.[0-9]{2})")


def ubuntu_parameter(release: str, architecture: str) -> str:
    """Return the public parameter of Systems Manager with the id of a release's newest image."""
    return (
        f"/aws/service/canonical/ubuntu/server/{release}/stable/current/{architecture}/hvm/"
        "ebs-gp3/ami-id"
    )
