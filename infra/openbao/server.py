"""What an embedded OpenBao starts with: its seal key, our login keys, and its first configuration.

The server sets itself up on its first start (`initialize`): policies, the logins of our processes,
and the authority that signs the API's own certificate. The administrator's token of that first
start is revoked by the server and never shown. A server whose first start failed half-way refuses
every later one; its `raft` folder must then be removed, which loses nothing, for nothing was there.
"""

import json
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.openbao.seal import SealKeys
from infra.openbao.setup import ROOT_LOGINS, FromFile, SetupRequest, setup_requests
from infra.supervisor.files import write_atomically

# The server answers nothing that it could not record in one of them; a folder each.
AUDIT_DEVICES: Final = ("audit-1", "audit-2")


def write_server_configuration(
    directory: Path, *, port: int, cluster_port: int, bind_address: str = "127.0.0.1"
) -> Path:
    """Write everything that `bao server -config=FILE` needs, and return that file.

    Keys that exist are kept: a new seal key would lose the store, new login keys would lock our
    processes out. `<principal>.key` are the PEM files with which they log in.

    The server must run with this folder as its working directory.

    Args:
        directory: the server's own folder; made, readable by us alone.
        port: where it listens, without TLS.
        cluster_port: the port for its own replication traffic, on loopback.
        bind_address: whose address it listens on. Without TLS that is loopback, or a network that
            does not leave the machine.
    """
    directory = directory.resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("raft", *AUDIT_DEVICES):
        Path(directory, name).mkdir(mode=0o700, exist_ok=True)
    SealKeys(directory).ensure()
    for login in ROOT_LOGINS:
        _ensure_login_key(directory, login.principal)
        write_atomically(directory / f"{login.principal}.hcl", login.policy)
    configuration = directory / "server.hcl"
    write_atomically(configuration, _render(directory, port, cluster_port, bind_address))
    return configuration


def _ensure_login_key(directory: Path, principal: str) -> None:
    path = directory / f"{principal}.key"
    if not path.exists():
        fresh = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_atomically(path, fresh)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    write_atomically(
        directory / f"{principal}.pub",
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def _render(directory: Path, port: int, cluster_port: int, bind_address: str) -> str:
    address = f"127.0.0.1:{port}"
    initial = "\n".join(_rendered(request) for request in setup_requests(directory))
    audits = "\n".join(
        f'audit "file" "{name}" {{\n'
        f"  options {{\n    file_path = {_quoted(f'{name}/audit.log')}\n  }}\n}}"
        for name in AUDIT_DEVICES
    )
    return f"""\
api_addr = "http://{address}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
# Locking memory needs a privilege that an embedded server is not given.
disable_mlock = true
pid_file = {_quoted(directory / "server.pid")}

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
{SealKeys(directory).configuration()}
}}

# The server answers nothing that it could not record; two devices, so that one may fail. Their
# paths are below the working directory: the store keeps them, and once it was restored into another
# folder it would refuse to start with other ones.
{audits}

initialize "bulkhead" {{
{initial}
}}
"""


def _rendered(request: SetupRequest) -> str:
    fields = "\n".join(f"      {key} = {_value(value)}" for key, value in request.data.items())
    return (
        f'  request "{request.name}" {{\n    operation = "update"\n    path = "{request.path}"\n'
        f"    data = {{\n{fields}\n    }}\n  }}"
    )


def _value(value: object) -> str:
    match value:
        case FromFile():
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
