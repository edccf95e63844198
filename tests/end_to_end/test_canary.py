"""Secrets are in OpenBao, in their own files, and nowhere else."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from temporalio.client import Client

from tests.end_to_end.stack import Bulkhead

# Where a secret belongs: a cluster's own directory, the files whose paths are settings, and what
# the owner was told. OpenBao's store is encrypted, so it is searched like everything else.
OWN_FILES = (
    "control-planes/cp-*/pki/*",
    "control-planes/cp-*/encryption.yaml",
    "passwords/*",
    "openbao/*.key",
    "owner.env",
)


# 32 random bytes in base64, the only thing of this length in the file.
_ENCRYPTION_KEY = re.compile(rb"([A-Za-z0-9+/]{43}=)")


def _planted_in_files(home: Path) -> dict[str, bytes]:
    """Return the middle of each secret file: a line of a key, or the whole short value."""
    planted = {}
    for pattern in OWN_FILES:
        for path in home.glob(pattern):
            content = path.read_bytes().strip()
            if path.suffix in {".crt", ".pub"} or not content:
                continue
            if b"PRIVATE KEY" in content:
                content = content.splitlines()[2]
            elif path.name == "owner.env":
                content = content.split(b"BULKHEAD_API_TOKEN=")[1].split()[0].strip(b"'\"")
            elif path.name == "encryption.yaml":
                (content,) = _ENCRYPTION_KEY.findall(content)
            planted[str(path.relative_to(home))] = content
    return planted


def _other_files(home: Path) -> Iterator[Path]:
    own = {path for pattern in OWN_FILES for path in home.glob(pattern)}
    for path in home.rglob("*"):
        if path.is_file() and path not in own and not path.is_relative_to(home / "programs"):
            yield path


def _histories(bulkhead: Bulkhead) -> bytes:
    async def fetch() -> list[str]:
        client = await Client.connect(bulkhead.stack.temporal.address)
        return [
            (
                await client.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
            ).to_json()
            async for found in client.list_workflows()
        ]

    return json.dumps(asyncio.run(fetch())).encode()


def _processes() -> bytes:
    seen = b""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                seen += (process / name).read_bytes() + b"\n"
            except OSError:
                continue
    return seen


def test_no_secret_is_found_outside_its_place(bulkhead: Bulkhead, tmp_path: Path) -> None:
    created = bulkhead.end_of(bulkhead.create_cluster())
    cluster_id = created["owner_id"]
    kubeconfig = bulkhead.kubeconfig(cluster_id, tmp_path / "kubeconfig")
    canary = f"canary-{uuid4().hex}"
    made = bulkhead.kubectl(
        kubeconfig, "create", "secret", "generic", "planted", f"--from-literal=value={canary}"
    )
    assert made.returncode == 0, made.stderr
    token = bulkhead.persist("POST", "/api_tokens", json={"name": "planted"})["token"]
    assert bulkhead.http.get("/clusters", headers={"Authorization": f"Bearer {token}x"}).is_error
    bulkhead.http.get(f"/clusters/{cluster_id}", headers={"Authorization": f"Bearer {token}"})

    home = bulkhead.stack.home.directory
    planted = _planted_in_files(home)
    kinds = {name.rsplit("/", 1)[-1] for name in planted}
    assert {"service-account.key", "node-signer.key", "encryption.yaml", "owner.env"} <= kinds
    key = next(
        line.split(b": ")[1].strip()
        for line in kubeconfig.read_bytes().splitlines()
        if b"client-key-data" in line
    )
    planted |= {"api token": token.encode(), "Secret": canary.encode(), "kubeconfig": key}

    places = {"histories": _histories(bulkhead), "processes": _processes()}
    places |= {str(path.relative_to(home)): path.read_bytes() for path in _other_files(home)}
    assert len(places) > 50
    found = [
        (secret, place)
        for place, content in places.items()
        for secret, value in planted.items()
        if value in content
    ]
    # kubectl is ours here and got the canary as an argument; it has ended, so nothing is excused.
    assert found == []
    bulkhead.delete_cluster(cluster_id)
