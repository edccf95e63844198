"""What a chart puts into Secrets is on the cluster and in OpenBao, and nowhere else."""

import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest

from domain.operation import OperationType
from domain.owned_operation import InstallOperation
from tests.durability import ENDS_WITHIN_SECONDS
from tests.histories import opened, texts_of
from tests.workflows.install.site import Site, workflow_of

# A history is at most this long; Temporal ends workflows at 51,200 events.
MOST_EVENTS = 150

# New in each rendering; and where a chart is careless, in what helm says when it fails.
_RANDOM = """\
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: "canary-{{ randAlphaNum 24 }}"}
data: {plain: {{ printf "canary-%s" (randAlphaNum 24) | b64enc }}}
"""
_REFUSED = """\
---
apiVersion: v1
kind: Secret
metadata: {name: refused}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: "canary-refused-0123456789"}
"""


async def test_no_datum_of_a_secret_is_in_a_row_a_history_or_a_log(
    site: Site, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    version = await site.publish("web", files={"templates/token.yaml": _RANDOM})
    bad = await site.publish("web", files={"templates/token.yaml": _RANDOM + _REFUSED})
    secret = await site.new_secret("canary-of-the-customer-0123")
    values = {"labels": {"secret": {"$secret": {"id": secret}}}}
    created = await site.create(version, values)
    try:
        await site.platform.succeed(created)
        found = await _data_of(site, created)
        updated = await site.update(created.install_id, version)
        await site.platform.succeed(updated)
        found |= await _data_of(site, updated)
        refused = await site.update(created.install_id, bad)
        await site.platform.end_of(refused, ENDS_WITHIN_SECONDS)
        assert (await site.platform.operation(refused)).error is not None
        render = await site.render_of(updated)
        assert "(hidden)" in json.dumps(render.plan)
        kinds = {
            created: OperationType.INSTALL_CREATE,
            updated: OperationType.INSTALL_RENDER,
            refused: OperationType.INSTALL_RENDER,
        }
        histories = [await _history_of(site, kind, asked) for asked, kind in kinds.items()]
        assert all(len(history["events"]) <= MOST_EVENTS for history in histories)
        texts = [*(text.decode() for history in histories for text in texts_of(history))]
        texts += [json.dumps(histories), caplog.text, *capfd.readouterr()]
        # Two of the chart's, twice, plain and encoded.
        assert len(found) == 8
        for canary in {*found, "canary-refused-0123456789", "canary-of-the-customer-0123"}:
            assert not any(canary in text for text in texts)
            assert _tables_with(site, canary) == []
    finally:
        await site.forget(created.install_id)


async def _data_of(site: Site, operation: InstallOperation) -> set[str]:
    secret = await site.find(operation.install_id, "secrets/token")
    assert secret is not None
    encoded = set(secret["data"].values())
    plain = {base64.b64decode(value).decode() for value in encoded}
    assert all(value.startswith("canary-") for value in plain)
    return encoded | plain


async def _history_of(site: Site, kind: OperationType, asked: InstallOperation) -> dict[str, Any]:
    handle = site.platform.client.get_workflow_handle(workflow_of(kind, asked))
    return await opened(await handle.fetch_history(), site.platform.connection.codec)


def _tables_with(site: Site, text: str) -> Iterable[str]:
    with site.platform.servers.administrator() as administrator:
        tables = administrator.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        return [
            table
            for (table,) in tables
            if administrator.execute(
                f"SELECT FROM {table} t WHERE t::text LIKE %s LIMIT 1",
                (f"%{text}%",),
            ).fetchone()
        ]
