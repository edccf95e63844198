"""The list of what is stored is that of the database."""

from collections import Counter

from infra.database.data_classes import MEANINGS, DataClass, classified, document
from infra.supervisor.configuration import source_root
from tests.servers import Servers

# What would be a value in the clear, whatever a column is said to hold.
FORBIDDEN = {"value", "plaintext", "password", "private_key", "kubeconfig", "secret", "token"}


def test_every_column_of_the_database_has_a_class_and_every_entry_a_column(
    servers: Servers,
) -> None:
    with servers.administrator() as connection:
        live = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema', 'lab')"
            " AND table_schema !~ '^state_[0-9a-f]{32}$'"
        ).fetchall()
        of_pulumi = connection.execute(
            "SELECT DISTINCT regexp_replace(table_name, '^state_[0-9a-f]{32}$', 'state'),"
            " column_name FROM information_schema.columns"
            " WHERE table_schema ~ '^state_[0-9a-f]{32}$'"
        ).fetchall()
    named = Counter((table, column) for table, column, _ in classified())
    assert set(live) == set(named)
    # A schema and table for each workspace, made by use: in this order there may be none yet.
    assert set(of_pulumi) <= {("state", "key"), ("state", "data"), ("state", "updated_at")}
    assert [column for column, times in named.items() if times > 1] == []


def test_no_column_is_made_for_a_value_in_the_clear() -> None:
    assert [column for _, column, _ in classified() if column in FORBIDDEN] == []


def test_the_page_says_what_the_list_says() -> None:
    assert set(MEANINGS) == set(DataClass)
    page = source_root() / "docs" / "data.md"
    assert page.read_text() == document(), "run `make data-list`"
