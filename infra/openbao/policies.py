"""Who may do what in OpenBao: the policies, and the roles that bind a login to them.

`+` stands for exactly one segment: in the root namespace's worker policy, for one child namespace.
"""

from dataclasses import dataclass
from typing import Final

WORKER: Final = "worker"
API: Final = "api"
# Whoever runs the server itself: sets it up again after an upgrade, saves, restores and rewraps it.
OPERATOR: Final = "operator"

# Carried by every read of a value, and not hashed in the server's audit log: the id of our own
# audit line, by which the two logs are compared.
AUDIT_ID_HEADER: Final = "X-Bulkhead-Audit-Id"

# The mount of a workspace's secrets, and the key that fingerprints requests that carry values.
SECRETS_MOUNT: Final = "secrets"
FINGERPRINTS_KEY: Final = "fingerprints"

# The root namespace as a JWT's audience; a child namespace's audience is its name.
ROOT_AUDIENCE: Final = "root"

# In the root namespace: the key that wraps the data keys of workflow payloads.
TRANSIT_MOUNT: Final = "transit"
PAYLOAD_KEY: Final = "temporal-payloads"

# In the root namespace: what tells an older state of the store from the newest; see `StoreMarker`.
STATE_MOUNT: Final = "platform-state"
STATE_PATH: Final = "platform-state/secret-store"

# A login is for one process and one namespace, so it is cheap (2 ms) to keep it short. Batch tokens
# cannot be revoked one by one: their life is how long a stolen one is of use.
WORKER_TOKEN_TTL: Final = "15m"  # noqa: S105 - a duration
API_TOKEN_TTL: Final = "5m"  # noqa: S105 - a duration
OPERATOR_TOKEN_TTL: Final = "5m"  # noqa: S105 - a duration

WORKER_POLICY: Final = """\
path "platform-state/secret-store" { capabilities = ["create", "read", "update"] }
path "transit/datakey/plaintext/temporal-payloads" { capabilities = ["update"] }
path "transit/decrypt/temporal-payloads"           { capabilities = ["update"] }
path "sys/namespaces"            { capabilities = ["list"] }
path "sys/namespaces/+"          { capabilities = ["create", "read", "update", "delete"] }
path "auth/api/config"           { capabilities = ["read"] }
path "auth/worker/config"        { capabilities = ["read"] }
path "+/sys/mounts/*"            { capabilities = ["create", "read", "update", "delete"] }
path "+/sys/auth/*"              { capabilities = ["create", "read", "update", "delete", "sudo"] }
path "+/sys/policies/acl/*"      { capabilities = ["create", "read", "update", "delete", "list"] }
path "+/auth/+/config"           { capabilities = ["create", "read", "update"] }
path "+/auth/+/role/*"           { capabilities = ["create", "read", "update", "delete", "list"] }
path "+/transit/keys/fingerprints" { capabilities = ["create", "read", "update"] }
path "+/kv/*"                    { capabilities = ["create", "read", "update", "delete", "list"] }
path "+/pki/*"                   {
  capabilities = ["create", "read", "update", "delete", "list", "sudo"]
}
"""

API_ROOT_POLICY: Final = """\
path "platform-state/secret-store"      { capabilities = ["read"] }
path "pki/platform/sign/api-server"     { capabilities = ["create", "update"] }
path "pki/platform/issuer/default/json" { capabilities = ["read"] }
path "transit/datakey/plaintext/temporal-payloads" { capabilities = ["update"] }
path "transit/decrypt/temporal-payloads"           { capabilities = ["update"] }
"""

# Whoever writes policies can become anyone: its key is for commands of the server's own machine,
# and as precious as the seal key beside it. It reads no value, and nothing of a workspace's
# namespace.
OPERATOR_POLICY: Final = """\
path "sys/policies/acl/+"        { capabilities = ["create", "read", "update"] }
path "sys/auth/+"                { capabilities = ["create", "read", "update", "sudo"] }
path "auth/+/config"             { capabilities = ["create", "read", "update"] }
path "auth/+/role/+"             { capabilities = ["create", "read", "update"] }
path "sys/mounts/+"              { capabilities = ["create", "read", "update"] }
path "sys/mounts/pki/+"          { capabilities = ["create", "read", "update"] }
path "transit/keys/+"            { capabilities = ["create", "read", "update"] }
path "pki/platform/issuers"      { capabilities = ["list"] }
path "pki/platform/root/generate/internal" { capabilities = ["create", "update"] }
path "pki/platform/roles/+"      { capabilities = ["create", "read", "update"] }
path "sys/config/auditing/request-headers/+" {
  capabilities = ["create", "read", "update", "sudo"]
}
path "sys/rotate/root"           { capabilities = ["create", "update", "sudo"] }
path "sys/storage/raft/snapshot" { capabilities = ["create", "read", "update", "sudo"] }
"""

# The API process inside a workspace's namespace.
API_WORKSPACE_POLICY: Final = """\
path "pki/+/sign/kubeconfig"     { capabilities = ["create", "update"] }
path "pki/+/sign/node"           { capabilities = ["create", "update"] }
path "pki/+/sign/node-token-issuer" { capabilities = ["create", "update"] }
path "pki/+/sign/install-reader" { capabilities = ["create", "update"] }
path "pki/+/issuer/kubernetes/json"{ capabilities = ["read"] }
path "secrets/data/+/+"          { capabilities = ["create", "read"] }
path "secrets/subkeys/+/+"       { capabilities = ["read"] }
path "secrets/destroy/+/+"       { capabilities = ["update"] }
path "transit/hmac/fingerprints" { capabilities = ["update"] }
path "sys/wrapping/lookup"       { capabilities = ["update"] }
path "sys/wrapping/unwrap"       { capabilities = ["update"] }
"""

# A worker inside a workspace's namespace. Its login of the root namespace reads no values. Without
# `update` on `data`, no value is ever written over, whatever our code does.
WORKER_WORKSPACE_POLICY: Final = """\
path "secrets/data/+/+"          { capabilities = ["create", "read"] }
path "secrets/subkeys/+/+"       { capabilities = ["read"] }
path "secrets/destroy/+/+"       { capabilities = ["update"] }
path "secrets/metadata"          { capabilities = ["list"] }
path "secrets/metadata/"         { capabilities = ["list"] }
path "secrets/metadata/+/"       { capabilities = ["list"] }
path "secrets/metadata/+/+"      { capabilities = ["read", "delete"] }
"""


@dataclass(frozen=True, slots=True)
class Login:
    """The login of one of our processes in a workspace's namespace."""

    principal: str
    policy: str
    token_ttl: str


def workspace_logins() -> tuple[Login, ...]:
    """Return the logins that every workspace's namespace has."""
    return (
        Login(API, API_WORKSPACE_POLICY, API_TOKEN_TTL),
        Login(WORKER, WORKER_WORKSPACE_POLICY, API_TOKEN_TTL),
    )


def login_configuration(principal: str, public_key_pem: str) -> dict[str, object]:
    """Return the configuration of the JWT login of one process."""
    return {
        "jwt_validation_pubkeys": [public_key_pem],
        # Without this list OpenBao takes every algorithm that fits the key.
        "jwt_supported_algs": ["ES256"],
        "bound_issuer": principal,
    }


def login_role(principal: str, *, audience: str, policy: str, token_ttl: str) -> dict[str, object]:
    """Return the role that binds a process's JWT to one audience, one subject and one policy."""
    return {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_subject": principal,
        "bound_audiences": [audience],
        # The defaults accept a JWT for minutes after its end.
        "expiration_leeway": 1,
        "clock_skew_leeway": 5,
        "token_policies": [policy],
        "token_no_default_policy": True,
        "token_type": "batch",
        "token_ttl": token_ttl,
        "token_max_ttl": token_ttl,
    }
