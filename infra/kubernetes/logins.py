"""What a client of a hosted cluster shows to its API server: certificates that soon expire."""

import os
import ssl
from dataclasses import dataclass
from typing import Final

from domain.cluster import HostedControlPlane
from infra.openbao.authorities import Authority
from infra.openbao.client import OpenBao
from infra.openbao.leaf import LeafSpec, make_leaf

# Of a login's certificate: a client renews it while it lives, and a stolen one is soon useless.
LOGIN_SECONDS: Final = 15 * 60

ADMINISTRATOR_USER: Final = "bulkhead:control-planes"

# The only group that has rights before any binding exists, and that no binding can take away.
# Nobody but the platform itself gets a certificate of it, and none that outlives 15 minutes.
_ADMINISTRATOR: Final = LeafSpec(
    authority=Authority.KUBERNETES,
    common_name=ADMINISTRATOR_USER,
    organization="system:masters",
    usages=("ClientAuth",),
)


@dataclass(frozen=True, slots=True)
class Login:
    """What a client trusts and what it shows.

    Attributes:
        authority: the root of the API server's certificate, as PEM.
        certificate: the client's own, as PEM.
        key: its private key, as PEM; never written to a disk.
    """

    authority: str
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "Login(...)"


def administrator_login(openbao: OpenBao, cluster: HostedControlPlane) -> Login:
    """Make a login as the platform's administrator of a cluster, valid for `LOGIN_SECONDS`.

    Raises:
        BulkheadError: FAILED_PRECONDITION when the cluster has no authorities,
            DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
    """
    return _login(openbao, cluster, _ADMINISTRATOR)


def user_login(openbao: OpenBao, cluster: HostedControlPlane, user: str) -> Login:
    """Make a login of a user that belongs to no group, valid for `LOGIN_SECONDS`.

    Raises:
        BulkheadError: as `administrator_login`.
    """
    leaf = LeafSpec(authority=Authority.KUBERNETES, common_name=user, usages=("ClientAuth",))
    return _login(openbao, cluster, leaf)


def _login(openbao: OpenBao, cluster: HostedControlPlane, leaf: LeafSpec) -> Login:
    key, certificate = make_leaf(
        lambda request, usages: openbao.sign(
            cluster, leaf.authority, request, usages=usages, lifetime_seconds=LOGIN_SECONDS
        ),
        leaf,
    )
    authority = openbao.certificate_of(cluster, leaf.authority)
    return Login(authority, certificate, key)


def load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a key that never touches a disk: the ssl module takes nothing but names of files."""
    descriptor = os.memfd_create("client-certificate")
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
