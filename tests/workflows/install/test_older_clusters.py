"""Installs on clusters that were made before the platform knew of installs."""

import asyncio

import pytest

from domain.identifiers import Prefix, new_id
from infra.openbao.signing import ApiOpenBao
from tests.infra.openbao.test_node_certificates import greedy_request
from tests.infra.openbao.test_older_clusters import make_older
from tests.workflows.install.site import Site


@pytest.mark.full
async def test_the_first_install_brings_an_older_cluster_what_reading_its_pods_needs(
    site: Site,
) -> None:
    platform = site.platform
    requested = await platform.request_cluster(site.owner)
    await platform.succeed(requested)
    try:
        await asyncio.to_thread(make_older, platform.openbao, requested.cluster)
        # There is no node: what is deployed there has no pods.
        other = site.on(requested.cluster)
        await other.installed(await site.publish("web"), {"replicas": 0})
        signed = await asyncio.to_thread(_sign, other)
        assert "BEGIN CERTIFICATE" in signed
    finally:
        await platform.delete(requested.cluster, site.owner)


def _sign(site: Site) -> str:
    """Return a certificate with which the API process would read an install's pods."""
    api = ApiOpenBao(site.platform.servers.openbao("api"))
    cluster = (site.cluster.workspace_id, site.cluster.cluster_id)
    try:
        return api.sign_install_reader(*cluster, greedy_request(), new_id(Prefix.INSTALL))
    finally:
        api.close()
