"""Quotas: how much of what a workspace may have."""

from typing import Annotated

import typer

from cli.options import command
from cli.output import Column
from cli.session import CLUSTER, SECRET, Session

app = typer.Typer(help="Quotas: how much a workspace may have.", no_args_is_help=True)

_COLUMNS = (
    Column("METRIC", "metric"),
    Column("USED", "usage", right=True),
    Column("LIMIT", "limit", right=True),
    Column("LEFT", "remaining", right=True),
    Column("UNIT", "unit"),
    Column("WHAT", "display_name", wraps=True),
)


@command(app, "list", examples=("bulkhead quotas list", "bulkhead quotas list --secret stripe"))
def list_quotas(
    session: Session,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="CLUSTER", help="The quotas of one cluster, too: id or name."),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(metavar="SECRET", help="The quotas of one secret, too: id or name."),
    ] = None,
) -> None:
    """List the quotas of the workspace and what is used of them."""
    cluster_id = None if cluster is None else session.id_of(CLUSTER, cluster)
    secret_id = None if secret is None else session.id_of(SECRET, secret)
    # They are few: the API answers with all of them and takes no page size.
    answer = session.client.get("/quotas", cluster_id=cluster_id, secret_id=secret_id)
    session.output.listing(answer["data"], _COLUMNS, ("No quotas apply.",))
