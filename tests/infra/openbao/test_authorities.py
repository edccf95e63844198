"""A cluster's roots and keys: made once, whatever was there before, and gone when removed."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import hvac
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import authority_mount_of, cluster_secret_path_of, secret_namespace_of
from infra.openbao import authorities
from infra.openbao.authorities import Authority
from infra.openbao.client import ClusterKeys, OpenBao
from infra.openbao.policies import WORKER
from infra.openbao.session import OpenBaoSession
from tests.servers import Servers

PUBLIC = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
# As many as an activity has within some seconds.
ATTEMPTS = 20
TEN_YEARS_SECONDS = 10 * 365 * 24 * 3600


def test_a_repeat_keeps_every_root_and_every_key(
    openbao: OpenBao, cluster: HostedControlPlane
) -> None:
    openbao.ensure_secret_space(cluster.workspace_id)
    openbao.ensure_authorities(cluster)
    before = _everything(openbao, cluster)
    openbao.ensure_secret_space(cluster.workspace_id)
    openbao.ensure_authorities(cluster)
    assert _everything(openbao, cluster) == before
    roots = [x509.load_pem_x509_certificate(pem.encode()) for pem in before[1]]
    assert len({root.public_key().public_bytes(*PUBLIC) for root in roots}) == len(Authority)
    for root in roots:
        life = root.not_valid_after_utc - root.not_valid_before_utc
        assert abs(life.total_seconds() - TEN_YEARS_SECONDS) < 24 * 3600


def test_an_engine_that_was_made_half_is_finished(
    servers: Servers, openbao: OpenBao, cluster: HostedControlPlane
) -> None:
    openbao.ensure_secret_space(cluster.workspace_id)
    mount = authority_mount_of(cluster.cluster_id)

    def half(client: hvac.Client) -> None:
        engine = {"type": "pki", "config": {"max_lease_ttl": authorities.ROOT_LIFETIME}}
        client.write_data(f"sys/mounts/{mount}", data=engine)
        client.write_data(
            f"{mount}/issuers/generate/root/internal",
            data=authorities.root_request(Authority.ETCD, cluster.cluster_id),
        )
        key = cluster_secret_path_of(cluster.cluster_id, "encryption")
        client.write_data(f"kv/data/{key}", data={"data": {"key": "first"}})

    session = OpenBaoSession(servers.openbao("worker"), WORKER)
    namespace = secret_namespace_of(cluster.workspace_id)
    session.call("make half of it", half, namespace=namespace)
    session.close()
    etcd = openbao.certificate_of(cluster, Authority.ETCD)
    openbao.ensure_authorities(cluster)
    assert openbao.certificate_of(cluster, Authority.ETCD) == etcd
    assert openbao.keys_of(cluster).encryption == "first"
    assert len(_everything(openbao, cluster)[1]) == len(Authority)


def test_attempts_of_many_threads_and_of_another_process_agree(
    servers: Servers, openbao: OpenBao, cluster: HostedControlPlane
) -> None:
    other = OpenBao(servers.openbao("worker"))

    def attempt(client: OpenBao) -> tuple[ClusterKeys, list[str]]:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(BulkheadError):
                client.ensure_secret_space(cluster.workspace_id)
                client.ensure_authorities(cluster)
                return _everything(client, cluster)
            time.sleep(0.2)
        message = "never made"
        raise AssertionError(message)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, [openbao, other] * 4))
    other.close()
    assert all(result == results[0] for result in results)


def test_clusters_of_a_new_workspace_that_are_asked_for_together_do_not_meet(
    openbao: OpenBao, cluster: HostedControlPlane
) -> None:
    clusters = [replace(cluster, cluster_id=new_id(Prefix.CLUSTER)) for _ in range(12)]

    def make(one: HostedControlPlane) -> ClusterKeys:
        openbao.ensure_secret_space(one.workspace_id)
        openbao.ensure_authorities(one)
        return openbao.keys_of(one)

    with ThreadPoolExecutor(len(clusters)) as pool:
        keys = list(pool.map(make, clusters))
    assert len({found.encryption for found in keys}) == len(clusters)


def test_a_removal_leaves_nothing_and_may_be_repeated(
    openbao: OpenBao, cluster: HostedControlPlane
) -> None:
    openbao.remove_authorities(cluster)
    openbao.ensure_secret_space(cluster.workspace_id)
    openbao.remove_authorities(cluster)
    openbao.ensure_authorities(cluster)
    assert len(openbao.find_leftovers(cluster)) == 4
    openbao.remove_authorities(cluster)
    openbao.remove_authorities(cluster)
    assert openbao.find_leftovers(cluster) == []
    for ask in (openbao.keys_of, lambda c: openbao.certificate_of(c, Authority.ETCD)):
        with pytest.raises(BulkheadError) as missing:
            ask(cluster)
        assert missing.value.reason is Reason.FAILED_PRECONDITION


def test_keys_do_not_print(openbao: OpenBao, cluster: HostedControlPlane) -> None:
    openbao.ensure_secret_space(cluster.workspace_id)
    openbao.ensure_authorities(cluster)
    keys = openbao.keys_of(cluster)
    assert keys.encryption not in f"{keys} {keys!r}"


def _everything(openbao: OpenBao, cluster: HostedControlPlane) -> tuple[ClusterKeys, list[str]]:
    roots = [openbao.certificate_of(cluster, authority) for authority in Authority]
    return openbao.keys_of(cluster), roots
