import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from domain.cluster import ADMINISTRATORS_GROUP
from infra.openbao.signing import ApiOpenBao
from tests.api.gate import JSON, Gate


def parts_of(kubeconfig: JSON) -> tuple[str, x509.Certificate, x509.Certificate, Any]:
    cluster = kubeconfig["clusters"][0]["cluster"]
    user = kubeconfig["users"][0]["user"]
    ca, leaf, key = (
        base64.b64decode(data)
        for data in (
            cluster["certificate-authority-data"],
            user["client-certificate-data"],
            user["client-key-data"],
        )
    )
    return (
        cluster["server"],
        x509.load_pem_x509_certificate(ca),
        x509.load_pem_x509_certificate(leaf),
        serialization.load_pem_private_key(key, password=None),
    )


async def test_a_kubeconfig_holds_a_certificate_of_the_clusters_own_authority(gate: Gate) -> None:
    person = gate.new_person()
    cluster = await gate.new_cluster_with_authorities(person)
    answer = await person.get(f"/v1/clusters/{cluster['id']}/kubeconfig")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    server, authority, leaf, key = parts_of(yaml.safe_load(answer.json()["kubeconfig"]))
    with gate.administrator() as connection:
        slot = connection.execute(
            "SELECT slot FROM control_plane_slots WHERE cluster_id = %s", (cluster["id"],)
        ).fetchone()
    assert slot is not None
    assert server == f"https://127.0.0.1:{20000 + 8 * slot[0]}"
    leaf.verify_directly_issued_by(authority)
    assert leaf.public_key() == key.public_key()
    names = {
        attribute: leaf.subject.get_attributes_for_oid(oid)[0].value
        for attribute, oid in (("cn", NameOID.COMMON_NAME), ("o", NameOID.ORGANIZATION_NAME))
    }
    assert names == {"cn": person.user_id, "o": ADMINISTRATORS_GROUP}
    assert leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=24)
    disclosed = ("cluster.kubeconfig", "allowed", cluster["id"])
    assert gate.audit(person.workspace).count(disclosed) == 1


async def test_kubeconfigs_of_two_clusters_trust_different_authorities(gate: Gate) -> None:
    person = gate.new_person()
    authorities = []
    for _ in range(2):
        cluster = await gate.new_cluster_with_authorities(person)
        answer = await person.get(f"/v1/clusters/{cluster['id']}/kubeconfig")
        authorities.append(parts_of(yaml.safe_load(answer.json()["kubeconfig"]))[1])
    assert authorities[0] != authorities[1]


async def test_nothing_is_disclosed_that_could_not_be_audited(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = gate.new_person()
    cluster = await gate.new_cluster_with_authorities(person)
    signed = []
    monkeypatch.setattr(
        ApiOpenBao, "sign_kubeconfig_certificate", lambda *arguments: signed.append(arguments)
    )
    with gate.administrator() as connection:
        connection.execute("REVOKE INSERT ON audit_events FROM bulkhead_api")
        try:
            answer = await person.get(f"/v1/clusters/{cluster['id']}/kubeconfig")
        finally:
            connection.execute("GRANT INSERT ON audit_events TO bulkhead_api")
    assert answer.status_code == 500
    assert signed == []


async def test_a_cluster_that_is_not_active_has_no_kubeconfig(gate: Gate) -> None:
    person = gate.new_person()
    operation = await gate.new_cluster(person)
    answer = await person.get(f"/v1/clusters/{operation['owner_id']}/kubeconfig")
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["metadata"]["state"] == "pending"
