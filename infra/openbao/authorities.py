"""What is fixed about the authorities of a cluster: names, roles, lifetimes."""

from enum import StrEnum
from typing import Final

from domain.cluster import ADMINISTRATORS_GROUP
from domain.identifiers import Prefix
from domain.install import INSTALL_READER_PREFIX
from domain.machine import (
    NODE_CERTIFICATE_SECONDS,
    NODE_TOKEN_ISSUER_USER,
    NODE_USER_PREFIX,
    NODES_GROUP,
)


class Authority(StrEnum):
    """The three roots of a cluster; their keys are made in OpenBao and never leave it.

    Separate ones, so that a certificate for one purpose is refused for another: the API server
    takes identities from `KUBERNETES`, headers of aggregated requests from `FRONT_PROXY`, and
    nothing but the API server gets a certificate that etcd accepts.
    """

    KUBERNETES = "kubernetes"
    FRONT_PROXY = "front-proxy"
    ETCD = "etcd"


# Ten years; the engine's default of 32 days would end a cluster within its second month.
ROOT_LIFETIME: Final = "87600h"

# Of the intermediate with which the controller manager signs node certificates. It is made with
# the root or, after a crash, some days later, and must end before it.
SIGNER_LIFETIME: Final = "87000h"

# The bounds of what may be asked for.
LEAF_MAXIMUM_LIFETIME: Final = "2400h"
KUBECONFIG_MAXIMUM_LIFETIME: Final = "24h"

LEAF_ROLE: Final = "leaf"
KUBECONFIG_ROLE: Final = "kubeconfig"
NODE_ROLE: Final = "node"
NODE_TOKEN_ISSUER_ROLE: Final = "node-token-issuer"  # noqa: S105 - the name of a role
INSTALL_READER_ROLE: Final = "install-reader"

# Of the certificate with which the API process mints the tokens of nodes.
NODE_TOKEN_ISSUER_SECONDS: Final = 15 * 60

# Of the certificate with which the API process reads the pods of one install and their logs.
INSTALL_READER_SECONDS: Final = 15 * 60

_CLIENT: Final[dict[str, object]] = {
    "issuer_ref": str(Authority.KUBERNETES),
    "client_flag": True,
    "server_flag": False,
    "key_usage": ["DigitalSignature"],
    "key_type": "ec",
    "use_csr_common_name": False,
    "use_csr_sans": False,
    "allow_ip_sans": False,
    "allow_localhost": False,
    "allow_wildcard_certificates": False,
    # An id is no host name. The validation is needed for all that: "disabled" would turn off the
    # comparison with the allowed names too.
    "enforce_hostnames": False,
    "cn_validations": ["hostname"],
    "no_store": True,
}


def root_request(authority: Authority, cluster_id: str) -> dict[str, object]:
    """Return what makes one root inside the engine."""
    return {
        "common_name": f"{authority} {cluster_id}",
        "issuer_name": str(authority),
        "key_type": "ec",
        "key_bits": 256,
        "ttl": ROOT_LIFETIME,
        "exclude_cn_from_sans": True,
    }


def roles() -> dict[str, dict[str, object]]:
    """Return the roles of a cluster's engine by name.

    Neither stores what it signs: nothing reads revocation lists of a cluster, and stored copies
    would pile up for as long as the cluster lives.
    """
    return {
        LEAF_ROLE: {"max_ttl": LEAF_MAXIMUM_LIFETIME, "no_store": True},
        # What the API process may sign: whatever its request says, what comes out of each role is a
        # client certificate of one kind of user.
        KUBECONFIG_ROLE: {
            **_CLIENT,
            "organization": [ADMINISTRATORS_GROUP],
            # Principals alone: whoever has the API process's login shall not become
            # `system:kube-scheduler`, or whatever else Kubernetes gives a meaning of its own.
            "allowed_domains": [f"{Prefix.USER}_*", f"{Prefix.API_TOKEN}_*"],
            "allow_glob_domains": True,
            "max_ttl": KUBECONFIG_MAXIMUM_LIFETIME,
        },
        NODE_ROLE: {
            **_CLIENT,
            "organization": [NODES_GROUP],
            "allowed_domains": [f"{NODE_USER_PREFIX}{Prefix.MACHINE}-*"],
            "allow_glob_domains": True,
            "max_ttl": NODE_CERTIFICATE_SECONDS,
        },
        NODE_TOKEN_ISSUER_ROLE: {
            **_CLIENT,
            "allowed_domains": [NODE_TOKEN_ISSUER_USER],
            "allow_bare_domains": True,
            "max_ttl": NODE_TOKEN_ISSUER_SECONDS,
        },
        INSTALL_READER_ROLE: {
            **_CLIENT,
            "allowed_domains": [f"{INSTALL_READER_PREFIX}*"],
            "allow_glob_domains": True,
            "max_ttl": INSTALL_READER_SECONDS,
        },
    }
