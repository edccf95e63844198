"""What the root namespace holds: logins, policies, mounts, and the platform's own authority.

One list, used twice: the server makes all of it on its first start, and the operator's login
brings an older store up to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.openbao import policies

PLATFORM_MOUNT: Final = "pki/platform"
PLATFORM_ROLE: Final = "api-server"

# The engine's default for a mount is 32 days, and a root certificate is cut to it without a word.
AUTHORITY_LIFETIME: Final = "87600h"

# How long a certificate of the API's listener lives at most; it renews itself long before.
PLATFORM_LEAF_LIFETIME: Final = "720h"


@dataclass(frozen=True, slots=True)
class FromFile:
    """A value that is the content of a file."""

    path: Path


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """One thing that the root namespace holds: data written to a path."""

    name: str
    path: str
    data: dict[str, object]


@dataclass(frozen=True, slots=True)
class RootLogin:
    """The login of one of our processes in the root namespace; also its policy's name."""

    principal: str
    policy: str
    token_ttl: str


# The operator is first: an upgrade may need what only its newest policy allows.
ROOT_LOGINS: Final = (
    RootLogin(policies.OPERATOR, policies.OPERATOR_POLICY, policies.OPERATOR_TOKEN_TTL),
    RootLogin(policies.WORKER, policies.WORKER_POLICY, policies.WORKER_TOKEN_TTL),
    RootLogin(policies.API, policies.API_ROOT_POLICY, policies.API_TOKEN_TTL),
)


def setup_requests(directory: Path) -> list[SetupRequest]:
    """Return all that the root namespace holds, in the order in which it can be made.

    Args:
        directory: where each login's `<principal>.pub` and `<principal>.hcl` are.
    """
    return [
        *(request for login in ROOT_LOGINS for request in _login_requests(directory, login)),
        SetupRequest("transit-mount", f"sys/mounts/{policies.TRANSIT_MOUNT}", {"type": "transit"}),
        SetupRequest(
            "payload-key",
            f"{policies.TRANSIT_MOUNT}/keys/{policies.PAYLOAD_KEY}",
            {"type": "aes256-gcm96"},
        ),
        SetupRequest("state-mount", f"sys/mounts/{policies.STATE_MOUNT}", {"type": "kv"}),
        SetupRequest(
            "audit-id",
            f"sys/config/auditing/request-headers/{policies.AUDIT_ID_HEADER}",
            {"hmac": False},
        ),
        SetupRequest(
            "platform-mount",
            f"sys/mounts/{PLATFORM_MOUNT}",
            {"type": "pki", "config": {"max_lease_ttl": AUTHORITY_LIFETIME}},
        ),
        SetupRequest(
            "platform-root",
            f"{PLATFORM_MOUNT}/root/generate/internal",
            {
                "common_name": "Bulkhead platform",
                "issuer_name": "platform",
                "key_type": "ec",
                "key_bits": 256,
                "ttl": AUTHORITY_LIFETIME,
                "exclude_cn_from_sans": True,
            },
        ),
        SetupRequest("platform-role", f"{PLATFORM_MOUNT}/roles/{PLATFORM_ROLE}", _platform_role()),
    ]


def _login_requests(directory: Path, login: RootLogin) -> Iterator[SetupRequest]:
    name = login.principal
    policy = FromFile(directory / f"{name}.hcl")
    configuration = policies.login_configuration(name, "")
    configuration["jwt_validation_pubkeys"] = [FromFile(directory / f"{name}.pub")]
    role = policies.login_role(
        name, audience=policies.ROOT_AUDIENCE, policy=name, token_ttl=login.token_ttl
    )
    yield SetupRequest(f"{name}-policy", f"sys/policies/acl/{name}", {"policy": policy})
    yield SetupRequest(f"{name}-auth", f"sys/auth/{name}", {"type": "jwt"})
    yield SetupRequest(f"{name}-config", f"auth/{name}/config", configuration)
    yield SetupRequest(f"{name}-role", f"auth/{name}/role/{name}", role)


def _platform_role() -> dict[str, object]:
    return {
        "allow_any_name": True,
        "enforce_hostnames": False,
        "allow_ip_sans": True,
        "server_flag": True,
        "client_flag": False,
        "key_type": "ec",
        "key_usage": ["DigitalSignature"],
        "use_csr_common_name": False,
        "use_csr_sans": False,
        "require_cn": False,
        "cn_validations": ["disabled"],
        "max_ttl": PLATFORM_LEAF_LIFETIME,
        # Nobody reads revocation lists of it, and a stored copy of each would pile up.
        "no_store": True,
    }
