"""Objects of a chart that finalizers keep, and what the operation says about them."""

import pytest

from activities import install_steps
from domain.names import install_namespace_of
from infra.installs import applier
from tests.workflows.install.site import Site

_HELD = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: held, finalizers: [test.bulkhead.test/config]}
"""
_WIDGET = """\
apiVersion: charts.bulkhead.test/v1
kind: Widget
metadata: {name: widget, finalizers: [test.bulkhead.test/widget]}
spec: {size: 1}
"""


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_a_delete_says_which_finalizers_hold_it_and_goes_on_without_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_steps, "_NAMESPACE_SECONDS", 1.0)
    monkeypatch.setattr(applier, "_GONE_SECONDS", 1.0)
    files = {"templates/held.yaml": _HELD, "templates/widget.yaml": _WIDGET}
    operation = await site.create(await site.publish("with-crd", files=files))
    await site.waiting(operation, "approval")
    await site.approve(operation)
    await site.platform.succeed(operation)
    space = install_namespace_of(operation.install_id)
    deleting = await site.delete(operation.install_id)
    # The CRD goes with its objects, of which one is held; what holds the namespace is known too.
    await site.waiting(deleting, "Widget/widget (finalizer test.bulkhead.test/widget)", 60)
    error = (await site.platform.operation(deleting)).last_error
    assert error is not None
    assert f"--namespace {space} patch configmaps held --type=merge" in error["message"]
    await _let_go(site, f"/apis/charts.bulkhead.test/v1/namespaces/{space}/widgets/widget")
    await site.waiting(deleting, "ConfigMap/held (finalizer test.bulkhead.test/config)", 60)
    await _let_go(site, f"/api/v1/namespaces/{space}/configmaps/held")
    await site.platform.succeed(deleting)
    assert await site.remains(operation.install_id) == {}


async def _let_go(site: Site, path: str) -> None:
    body = {"metadata": {"finalizers": None}}
    await site.ask(lambda client: client.patch(path, body))
