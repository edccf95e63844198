"""What an install holds of its renders is bounded."""

import asyncio

import pytest

from infra.database.tables import RenderRow
from tests.workflows.install.site import Site


@pytest.mark.full
async def test_an_update_forgets_what_old_renders_put_into_secrets_and_no_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.database.records.old_renders._KEPT", 1)
    chart = await site.publish("with-secret")
    install = await site.installed(chart)
    try:
        renders = [await site.current_render(install)]
        for note in ("second", "third"):
            await site.platform.succeed(await site.update(install, chart, {"note": note}))
            renders.append(await site.current_render(install))
        first, second, third = renders
        assert not await _data_of(site, first)
        assert await _data_of(site, second)
        assert await _data_of(site, third)
        async with site.platform.api.workspace(first.workspace_id) as session:
            row = await session.get_one(RenderRow, (first.workspace_id, first.id))
        assert (row.manifest, row.values) == (None, first.values)
        # What it was updated from last is still there to return to.
        await site.platform.succeed(await site.restore(install, second))
    finally:
        await site.forget(install)


async def _data_of(site: Site, render: RenderRow) -> object:
    vault = site.platform.openbao.installs
    place = (render.workspace_id, render.install_id, render.id)
    return await asyncio.to_thread(vault.render_data, *place)
