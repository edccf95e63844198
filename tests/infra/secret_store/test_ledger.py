"""The ledger of purges is whole lines, on the disk, one a secret."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.secret import SecretKind
from infra.secret_store.ledger import Ledger, LedgerEntry


def entry() -> LedgerEntry:
    return LedgerEntry(
        workspace_id=new_id(Prefix.WORKSPACE),
        secret_id=new_id(Prefix.SECRET),
        kind=SecretKind.GENERIC,
        version_ids=[new_id(Prefix.SECRET_VERSION)],
        evidence={},
        actor_kind="system",
        actor_id="test",
        approved_by=None,
        purged_at=datetime.now(UTC),
    )


def test_an_entry_is_found_by_every_reader_and_written_once(tmp_path: Path) -> None:
    file = tmp_path / "tombstones.jsonl"
    first, second = entry(), entry()
    one, other = Ledger(file), Ledger(file)
    assert one.entries() == {}
    one.append(first)
    other.append(second)
    other.append(first)
    assert one.entries() == {first.secret_id: first, second.secret_id: second}
    assert len(file.read_text().splitlines()) == 2
    assert file.stat().st_mode & 0o777 == 0o600


def test_half_a_line_is_no_entry_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    file = tmp_path / "tombstones.jsonl"
    first, second = entry(), entry()
    Ledger(file).append(first)
    with file.open("a") as torn:
        torn.write(second.model_dump_json()[:40])
    ledger = Ledger(file)
    assert set(ledger.entries()) == {first.secret_id}
    ledger.append(second)
    assert set(Ledger(file).entries()) == {first.secret_id, second.secret_id}


def test_a_damaged_line_is_not_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "tombstones.jsonl"
    Ledger(file).append(entry())
    file.write_text(file.read_text().replace("secret_id", "secret"))
    with pytest.raises(BulkheadError) as damaged:
        Ledger(file).entries()
    assert damaged.value.reason is Reason.INTERNAL


def test_a_ledger_that_cannot_be_written_fails_the_purge(tmp_path: Path) -> None:
    with pytest.raises(BulkheadError) as full:
        Ledger(tmp_path / "missing" / "tombstones.jsonl").append(entry())
    assert full.value.reason is Reason.DEPENDENCY_UNAVAILABLE
