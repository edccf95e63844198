"""Clusters that are older than a role, and workspaces that are older than a line of a policy."""

import hvac
import pytest

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError
from domain.identifiers import Prefix, new_id
from domain.names import authority_mount_of, secret_namespace_of
from infra.openbao.authorities import INSTALL_READER_ROLE
from infra.openbao.client import OpenBao
from infra.openbao.policies import API, API_WORKSPACE_POLICY
from infra.openbao.signing import ApiOpenBao
from tests.infra.openbao.test_node_certificates import greedy_request


def make_older(openbao: OpenBao, cluster: HostedControlPlane) -> None:
    """Leave a workspace's policy and a cluster's roles as they were before installs."""
    path = f"pki/+/sign/{INSTALL_READER_ROLE}"
    lines = [line for line in API_WORKSPACE_POLICY.splitlines() if path not in line]
    role = f"{authority_mount_of(cluster.cluster_id)}/roles/{INSTALL_READER_ROLE}"

    def remove(client: hvac.Client) -> None:
        client.delete(role)
        client.write_data(f"sys/policies/acl/{API}", data={"policy": "\n".join(lines)})

    session = openbao._session  # noqa: SLF001 - no method of ours takes them away
    session.call("go back", remove, namespace=secret_namespace_of(cluster.workspace_id))


def test_an_older_cluster_gets_what_reading_an_installs_pods_needs(
    openbao: OpenBao, api: ApiOpenBao, cluster: HostedControlPlane
) -> None:
    openbao.ensure_secret_space(cluster.workspace_id)
    openbao.ensure_authorities(cluster)
    make_older(openbao, cluster)
    asked = (cluster.workspace_id, cluster.cluster_id, greedy_request(), new_id(Prefix.INSTALL))
    with pytest.raises(BulkheadError):
        api.sign_install_reader(*asked)
    openbao.installs.ensure_readers(cluster)
    assert "BEGIN CERTIFICATE" in api.sign_install_reader(*asked)
