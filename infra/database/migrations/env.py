"""Alembic's entry: connects as the owner, with the URL that `bootstrap.migrate` hands over."""

from alembic import context
from sqlalchemy import create_engine
from sqlmodel import SQLModel

from infra.database import tables

assert tables.__all__  # imported so that the metadata is complete  # noqa: S101

connectable = create_engine(context.config.attributes["url"], hide_parameters=True)
with connectable.connect() as connection:
    context.configure(connection=connection, target_metadata=SQLModel.metadata)
    with context.begin_transaction():
        context.run_migrations()
connectable.dispose()
