"""Who may do what in OpenBao: the policies, and the roles that bind a login to them.

`+` stands for exactly one segment: in the root namespace's worker policy, for one child namespace.
"""

from typing import Final

WORKER: Final = "worker"
API: Final = "api"

# The root namespace as a JWT's audience; a child namespace's audience is its name.
ROOT_AUDIENCE: Final = "root"

# A login is for one process and one namespace, so it is cheap (2 ms) to keep it short. Batch tokens
# cannot be revoked one by one: their life is how long a stolen one is of use.
WORKER_TOKEN_TTL: Final = "15m"  # noqa: S105 - a duration
API_TOKEN_TTL: Final = "5m"  # noqa: S105 - a duration

WORKER_POLICY: Final = """\
path "sys/namespaces"            { capabilities = ["list"] }
path "sys/namespaces/+"          { capabilities = ["create", "read", "update", "delete"] }
path "auth/api/config"           { capabilities = ["read"] }
path "+/sys/mounts/*"            { capabilities = ["create", "read", "update", "delete"] }
path "+/sys/auth/*"              { capabilities = ["create", "read", "update", "delete", "sudo"] }
path "+/sys/policies/acl/*"      { capabilities = ["create", "read", "update", "delete", "list"] }
path "+/auth/api/config"         { capabilities = ["create", "read", "update"] }
path "+/auth/api/role/*"         { capabilities = ["create", "read", "update", "delete", "list"] }
path "+/kv/*"                    { capabilities = ["create", "read", "update", "delete", "list"] }
path "+/pki/*"                   {
  capabilities = ["create", "read", "update", "delete", "list", "sudo"]
}
"""

API_ROOT_POLICY: Final = """\
path "pki/platform/sign/api-server"     { capabilities = ["create", "update"] }
path "pki/platform/issuer/default/json" { capabilities = ["read"] }
"""

# The API process inside a workspace's namespace.
API_WORKSPACE_POLICY: Final = """\
path "pki/+/sign/kubeconfig"     { capabilities = ["create", "update"] }
path "pki/+/issuer/kubernetes/json"{ capabilities = ["read"] }
"""


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
