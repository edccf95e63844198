"""The platform's own image registry: read-only, with a certificate that is renewed before its end.

It serves what `infra.images` wrote into its directory. Nothing can be pushed: its configuration
says so, and as root it runs as a user that may not write there.
"""

from infra.registry.certificate import RegistryCertificate
from infra.registry.configuration import RegistryFiles, write_configuration

__all__ = ["RegistryCertificate", "RegistryFiles", "write_configuration"]
