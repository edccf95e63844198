"""What the local clouds' Pulumi provider programs have in common: the engine's protocol.

The real engine loads them in place of the provider's own programs, which cannot be built or
downloaded everywhere. Each makes the calls to its provider's HTTP API that the real one makes, and
is no kinder: `create` never adopts what exists, and nothing is made up that the API does not say.

A provider is a `ProviderProgram`: a table of resource types by their Pulumi tokens. Its module
calls `serve(program)`; `install.install(pulumi_home)` puts all of them where the engine looks.
"""

from infra.local_cloud.provider_programs.configuration import Configuration
from infra.local_cloud.provider_programs.resource import (
    CheckRefusal,
    Found,
    PartialError,
    Properties,
    ProviderError,
    Resource,
)
from infra.local_cloud.provider_programs.servicer import ProviderProgram, ProviderServicer
from infra.local_cloud.provider_programs.serving import serve
from infra.local_cloud.provider_programs.values import UNKNOWN, Unknown

__all__ = [
    "UNKNOWN",
    "CheckRefusal",
    "Configuration",
    "Found",
    "PartialError",
    "Properties",
    "ProviderError",
    "ProviderProgram",
    "ProviderServicer",
    "Resource",
    "Unknown",
    "serve",
]
