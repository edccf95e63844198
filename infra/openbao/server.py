"""What an embedded OpenBao starts with: its seal key, our login keys, and its first configuration.

The server sets itself up on its first start (`initialize`): policies, the logins of our processes,
and the authority that signs the API's own certificate. The administrator's token of that first
start is revoked by the server and never shown. A server whose first start failed half-way refuses
every later one; its `raft` folder must then be removed, which loses nothing, for nothing was there.
"""

import json
import secrets
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.openbao import policies

PLATFORM_MOUNT: Final = "pki/platform"
PLATFORM_ROLE: Final = "api-server"

# The engine's default for a mount is 32 days, and a root certificate is cut to it without a word.
AUTHORITY_LIFETIME: Final = "87600h"

# How long a certificate of the API's listener lives at most; it renews itself long before.
PLATFORM_LEAF_LIFETIME: Final = "720h"

_SEAL_KEY_BYTES: Final = 32


def write_server_configuration(
    directory: Path, *, port: int, cluster_port: int, bind_address: str = "127.0.0.1"
) -> Path:
    """Write everything that `bao server -config=FILE` needs, and return that file.

    Keys that exist are kept: a new seal key would lose the store, new login keys would lock our
    processes out. `worker.key` and `api.key` are the PEM files with which they log in.

    Args:
        directory: the server's own folder; made, readable by us alone.
        port: where it listens, without TLS.
        cluster_port: the port for its own replication traffic, on loopback.
        bind_address: whose address it listens on. Without TLS that is loopback, or a network that
            does not leave the machine.
    """
    directory = directory.resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("raft", "audit-1", "audit-2"):
        Path(directory, name).mkdir(mode=0o700, exist_ok=True)
    _ensure_file(directory / "seal.key", secrets.token_bytes(_SEAL_KEY_BYTES))
    for principal in (policies.WORKER, policies.API):
        _ensure_login_key(directory, principal)
    _write(directory / "worker.hcl", policies.WORKER_POLICY.encode())
    _write(directory / "api.hcl", policies.API_ROOT_POLICY.encode())
    configuration = directory / "server.hcl"
    _write(configuration, _render(directory, port, cluster_port, bind_address).encode())
    return configuration


def _ensure_login_key(directory: Path, principal: str) -> None:
    path = directory / f"{principal}.key"
    fresh = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _ensure_file(path, fresh)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    _write(
        directory / f"{principal}.pub",
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def _ensure_file(path: Path, content: bytes) -> None:
    """Write a file that does not exist; a crash leaves either nothing or all of it."""
    if not path.exists():
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    temporary.replace(path)


def _render(directory: Path, port: int, cluster_port: int, bind_address: str) -> str:
    address = f"127.0.0.1:{port}"
    audits = "\n".join(
        f'audit "file" "{name}" {{\n'
        f"  options {{\n    file_path = {_quoted(directory / name / 'audit.log')}\n  }}\n}}"
        for name in ("audit-1", "audit-2")
    )
    return f"""\
api_addr = "http://{address}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
# Locking memory needs a privilege that an embedded server is not given.
disable_mlock = true

storage "raft" {{
  path = {_quoted(directory / "raft")}
  node_id = "one"
  # Elections tuned for wide networks keep a single node waiting ten seconds at its first start.
  performance_multiplier = 1
}}

listener "tcp" {{
  address = "{bind_address}:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable = true
}}

seal "static" {{
  current_key_id = "k1"
  current_key = {_quoted(f"file://{directory / 'seal.key'}")}
}}

# The server answers nothing that it could not record; two devices, so that one may fail.
{audits}

initialize "bulkhead" {{
{_initial_requests(directory)}
}}
"""


def _initial_requests(directory: Path) -> str:
    requests: list[tuple[str, str, dict[str, object]]] = []
    for principal, token_ttl in (
        (policies.WORKER, policies.WORKER_TOKEN_TTL),
        (policies.API, policies.API_TOKEN_TTL),
    ):
        configuration = policies.login_configuration(principal, "")
        configuration["jwt_validation_pubkeys"] = [_FromFile(directory / f"{principal}.pub")]
        role = policies.login_role(
            principal, audience=policies.ROOT_AUDIENCE, policy=principal, token_ttl=token_ttl
        )
        policy: dict[str, object] = {"policy": _FromFile(directory / f"{principal}.hcl")}
        requests += [
            (f"{principal}-policy", f"sys/policies/acl/{principal}", policy),
            (f"{principal}-auth", f"sys/auth/{principal}", {"type": "jwt"}),
            (f"{principal}-config", f"auth/{principal}/config", configuration),
            (f"{principal}-role", f"auth/{principal}/role/{principal}", role),
        ]
    requests += [
        (
            "platform-mount",
            f"sys/mounts/{PLATFORM_MOUNT}",
            {"type": "pki", "config": {"max_lease_ttl": AUTHORITY_LIFETIME}},
        ),
        (
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
        ("platform-role", f"{PLATFORM_MOUNT}/roles/{PLATFORM_ROLE}", _platform_role()),
    ]
    return "\n".join(_request(*request) for request in requests)


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


class _FromFile:
    """A value that the server reads from a file when it sets itself up."""

    def __init__(self, path: Path) -> None:
        self.path = path


def _request(name: str, path: str, data: dict[str, object]) -> str:
    fields = "\n".join(f"      {key} = {_value(value)}" for key, value in data.items())
    return (
        f'  request "{name}" {{\n    operation = "update"\n    path = "{path}"\n'
        f"    data = {{\n{fields}\n    }}\n  }}"
    )


def _value(value: object) -> str:
    match value:
        case _FromFile():
            return f'{{ eval_type = "string", eval_source = "file", path = {_quoted(value.path)} }}'
        case list():
            return f"[{', '.join(_value(item) for item in value)}]"
        case dict():
            fields = ", ".join(f"{key} = {_value(item)}" for key, item in value.items())
            return f"{{ {fields} }}"
        case _:
            return json.dumps(value)


def _quoted(text: Path | str) -> str:
    return json.dumps(str(text))
