"""The right to join that a server in a cloud is made with."""

from pathlib import Path

import pytest

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from infra.database.engine import Database, DatabaseRole
from infra.database.tables import StackRow
from infra.machines.server_bootstraps import ServerBootstraps
from infra.settings import StackSettings
from tests.workflows.machine.fleet import Fleet


async def test_no_server_is_made_with_a_bootstrap_that_was_revoked(
    fleet: Fleet, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    settings = StackSettings(
        directory=tmp_path,
        pulumi_home=tmp_path,
        programs_dir=tmp_path,
        node_url="https://platform.example",
        node_authority_file=authority,
    )
    operation = await fleet.have_active()
    stack = StackRow(
        workspace_id=operation.workspace_id,
        id=new_id(Prefix.STACK),
        cluster_id=fleet.cluster.cluster_id,
        machine_id=operation.owner_id,
        compute_config_id="-",
        secret_id="-",
        provider=Provider.HCLOUD,
        place="fsn1",
        region="fsn1",
    )
    database = Database(fleet.platform.servers.database, DatabaseRole.WORKER)
    bootstraps = ServerBootstraps(database, fleet.platform.openbao, settings)
    try:
        document = await bootstraps.user_data(operation, stack)
        # An attempt that is made again, for the same server.
        assert await bootstraps.user_data(operation, stack) == document
        await fleet.execute(
            "UPDATE worker_bootstraps SET revoked_at = now() WHERE machine_id = %s",
            operation.owner_id,
        )
        with pytest.raises(BulkheadError, match="was revoked") as refused:
            await bootstraps.user_data(operation, stack)
        assert refused.value.reason is Reason.FAILED_PRECONDITION
    finally:
        await bootstraps.forget(stack)
        await database.close()
    await fleet.execute("DELETE FROM worker_bootstraps WHERE machine_id = %s", operation.owner_id)
    await fleet.forget(operation)
