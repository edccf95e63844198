"""The registry of charts that every stack has on this machine."""

import httpx

from infra.embedded.server import Part
from infra.embedded.stack import Stack
from infra.settings import EmbeddedSettings
from tests.charts import Registry, archive
from tests.servers import temporary_home

SETTINGS = EmbeddedSettings.model_construct()


def test_charts_that_were_pushed_are_served_after_a_restart_and_go_with_the_stack() -> None:
    with temporary_home() as home:
        stack = Stack(home, SETTINGS, durable=False)
        stack.up({Part.CHARTS})
        place = stack.charts.host_and_port
        assert stack.charts.address == f"oci://{place}"
        digest = Registry(place).push(archive("web", "1.2.3"))

        stack.down()
        Stack(home, SETTINGS, durable=False).up({Part.CHARTS})
        wanted = {"accept": "application/vnd.oci.image.manifest.v1+json"}
        found = httpx.get(
            f"http://{place}/v2/charts/web/manifests/1.2.3", headers=wanted, trust_env=False
        )
        assert found.headers["docker-content-digest"] == digest

        helm = stack.helm
        assert helm.plain_http_registries == [place]
        assert helm.cache_dir.is_relative_to(home.charts)
        stack.down()
        assert home.remove()
        assert not home.charts.exists()
