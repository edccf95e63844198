import hashlib
import json
import os
import shutil
import ssl
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from infra.embedded.home import Home
from infra.embedded.ports import address_of
from infra.embedded.registry import RegistryServer
from infra.embedded.server import Part, start
from infra.images import IMAGE_PROGRAMS, ImageReferences, ImageSet
from infra.openbao.signing import ApiOpenBao
from infra.registry import RegistryCertificate
from infra.registry.certificate import renew
from infra.supervisor.supervisor import Supervisor
from infra.tools import ensure, install_into
from tests.servers import Servers

HOST = "127.0.0.2"
# Neither ephemeral, nor of a stack's block.
PORT = 61_000


@dataclass(frozen=True)
class Running:
    server: RegistryServer
    home: Home
    references: ImageReferences
    program: Path

    @property
    def address(self) -> str:
        return address_of(HOST, PORT)

    def client(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.home.ca_file))
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = min(version, ssl.TLSVersion.TLSv1_2)
        context.maximum_version = version
        return httpx.Client(
            base_url=self.server.address,
            headers={"accept": "application/vnd.oci.image.manifest.v1+json"},
            verify=context,
            trust_env=False,
        )

    @property
    def stored(self) -> set[Path]:
        return set((self.home.registry / "storage").rglob("*"))

    def shown_certificate(self) -> x509.Certificate:
        pem = ssl.get_server_certificate((HOST, PORT))
        return x509.load_pem_x509_certificate(pem.encode())


@pytest.fixture(scope="module")
def running(servers: Servers) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="bulkhead-registry-") as directory:
        Path(directory).chmod(0o711)
        home = Home(Path(directory) / "home")
        home.make()
        shutil.copy(servers.stack.home.ca_file, home.ca_file)
        install_into(home.programs, ("registry",))
        # The bytes of one real program stand for all three.
        program = ensure(("pause",))["pause"]
        images = ImageSet(home.registry / "storage", home.images_file)
        references = images.ensure(dict.fromkeys(IMAGE_PROGRAMS, program))
        uid = servers.stack.ports.registry_uid if os.geteuid() == 0 else None
        server = RegistryServer(home, address_of(HOST, PORT), servers.openbao("api"), uid)
        supervisor = Supervisor(home.supervisor)
        supervisor.ensure_running()
        try:
            start(supervisor, server, servers.stack.ports)
            yield Running(server, home, references, program)
        finally:
            supervisor.shutdown()


def test_a_client_pulls_an_image_by_its_digest_and_gets_the_program(running: Running) -> None:
    repository, _, digest = running.references.pause.partition("@")
    with running.client() as client:
        answer = client.get(f"/v2/{repository}/manifests/{digest}").raise_for_status()
        assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == digest
        layer = answer.json()["layers"][0]
        content = client.get(f"/v2/{repository}/blobs/{layer['digest']}").raise_for_status().content
        configuration = client.get(f"/v2/{repository}/blobs/{answer.json()['config']['digest']}")
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer["digest"]
    with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as archive:
        entry = archive.getmember("pause")
        found = archive.extractfile(entry)
        assert found is not None
        assert found.read() == running.program.read_bytes()
        assert (entry.mode, entry.uid, entry.mtime) == (0o755, 0, 0)
    assert configuration.json()["config"]["Entrypoint"] == ["/pause"]


def test_a_strict_client_finds_every_image_valid(running: Running) -> None:
    crane = ensure(("crane",))["crane"]
    for reference in running.references.at(running.address).model_dump().values():
        subprocess.run(
            [crane, "validate", "--remote", reference],
            check=True,
            env={"SSL_CERT_FILE": str(running.home.ca_file), "HOME": "/nonexistent"},
            stdout=subprocess.DEVNULL,
        )


def test_nobody_can_push_or_delete_and_old_tls_is_refused(running: Running) -> None:
    repository, _, digest = running.references.pause.partition("@")
    before = running.stored
    manifest = json.dumps({"schemaVersion": 2}).encode()
    with running.client() as client:
        answers = [
            client.post(f"/v2/{repository}/blobs/uploads/"),
            client.post("/v2/mine/blobs/uploads/"),
            client.put(f"/v2/{repository}/manifests/current", content=manifest),
            client.delete(f"/v2/{repository}/manifests/{digest}"),
            client.delete(f"/v2/{repository}/blobs/{digest}"),
        ]
        assert {answer.status_code for answer in answers} == {httpx.codes.METHOD_NOT_ALLOWED}
        assert client.get(f"/v2/{repository}/manifests/{digest}").status_code == httpx.codes.OK
    assert running.stored == before
    with (
        pytest.warns(DeprecationWarning, match="TLSv1_1"),
        running.client(ssl.TLSVersion.TLSv1_1) as old,
        pytest.raises(httpx.ConnectError),
    ):
        old.get("/v2/")


def test_it_serves_as_a_user_that_can_change_nothing(running: Running) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives the registry a user of its own")
    process = Supervisor(running.home.supervisor).state(Part.REGISTRY)[Part.REGISTRY]
    status = Path(f"/proc/{process.pid}/status").read_text()
    uid = running.server.certificate_settings.uid
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
    for path in running.stored:
        assert path.stat().st_uid != uid
        assert path.stat().st_mode & 0o022 == 0
    certificate = running.server.certificate_settings.certificate_file.stat()
    assert (certificate.st_uid, certificate.st_mode & 0o777) == (uid, 0o600)


def test_a_certificate_that_is_due_is_replaced_and_served(
    running: Running, servers: Servers
) -> None:
    settings = running.server.certificate_settings
    names = [*settings.server_names, "another.example.com"]
    openbao = ApiOpenBao(servers.openbao("api"))
    try:
        assert not RegistryCertificate(settings, openbao).ensure()
        before = running.shown_certificate()
        renamed = RegistryCertificate(settings.model_copy(update={"server_names": names}), openbao)
        renew(renamed)
        assert not renamed.ensure()
    finally:
        openbao.close()
    start(Supervisor(running.home.supervisor), running.server, servers.stack.ports)
    after = running.shown_certificate()
    assert after.serial_number != before.serial_number
    shown = after.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "another.example.com" in shown.get_values_for_type(x509.DNSName)
