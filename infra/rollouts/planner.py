"""Makes the plan of a target as its install's operation would make it."""

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from domain.errors import BulkheadError, Reason
from infra.database.engine import Database
from infra.database.tables import InstallRow, RenderRow, RolloutPreviewRow
from infra.installs.deployer import Deployer, Preview
from infra.rollouts.engine import TargetSubject


class InstallPlanner:
    """Renders and plans on the host of a cluster.

    Args:
        database: reads the customer's rows.
        deployer: of the host's clusters; None: this host runs no installs.
    """

    def __init__(self, database: Database, deployer: Deployer | None) -> None:
        self._database = database
        self._deployer = deployer

    async def digest_of(self, subject: TargetSubject) -> str:
        """Return the digest of what the version would do, and keep the plan for its own people.

        Raises:
            BulkheadError: the plan cannot be made.
        """
        if self._deployer is None:
            message = "The host of the cluster runs no installs; its settings have no helm."
            raise BulkheadError(Reason.FAILED_PRECONDITION, message)
        customer = subject.plane.workspace_id
        async with self._database.workspace(customer) as session:
            install = await session.get_one(InstallRow, (customer, subject.install_id))
            good = None
            if install.current_render_id is not None:
                key = (customer, install.current_render_id)
                good = await session.get_one(RenderRow, key)
        preview = await self._deployer.preview(
            subject.plane,
            install,
            subject.version,
            install.values,
            good,
            operation_id=subject.rollout_id,
        )
        await self._keep(subject, preview)
        return preview.plan_digest

    async def _keep(self, subject: TargetSubject, preview: Preview) -> None:
        """Write the plan where the customer reads it, and the vendor cannot."""
        planned = {
            "rollout_id": subject.rollout_id,
            "package_version_id": subject.version.id,
            "semver": subject.version.semver,
            "render_hash": preview.render_hash,
            "plan": preview.plan,
            "plan_digest": preview.plan_digest,
            "created_at": func.now(),
        }
        statement = insert(RolloutPreviewRow).values(
            workspace_id=subject.plane.workspace_id, install_id=subject.install_id, **planned
        )
        async with self._database.workspace(subject.plane.workspace_id) as session:
            await session.execute(
                statement.on_conflict_do_update(
                    index_elements=["workspace_id", "install_id"], set_=planned
                )
            )
