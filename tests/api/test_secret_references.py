"""Who uses a secret is listed page by page, and who would miss a version is found in SQL."""

import itertools

import pytest

from tests.api.gate import JSON, Gate
from tests.api.keeper import Keeper, error_of, new_keeper, ok

# `current` is the second of three versions.
NUMBERS = (None, 1, 2, 3)


async def _pages(keeper: Keeper, secret: JSON, limit: int, query: str = "") -> list[list[str]]:
    """Follow the pages to the last one; return the consumers of each."""
    path, cursor, pages = f"/v1/secrets/{secret['id']}/references", "", list[list[str]]()
    while True:
        page = ok(await keeper.person.get(f"{path}?limit={limit}{cursor}{query}"))
        pages.append([f"{row['consumer_type']}/{row['consumer_id']}" for row in page["data"]])
        assert page["has_more"] is (page["next_cursor"] is not None)
        if not page["has_more"]:
            return pages
        cursor = f"&cursor={page['next_cursor']}"


async def test_consumers_come_in_pages_by_type_and_id(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret, other = await keeper.create(), await keeper.create("of its own")
    long = f"{'t' * 63}/{'i' * 128}"
    consumers = ["agent/b", "agent/c", "service/a", "service/a.b-c_d", long]
    for consumer in reversed(consumers):
        path = f"/v1/secrets/{secret['id']}/references/{consumer}"
        ok(await keeper.person.call("PUT", path, json={}))
    ok(await keeper.person.call("PUT", f"/v1/secrets/{other['id']}/references/agent/x", json={}))
    assert await _pages(keeper, secret, 2) == [consumers[:2], consumers[2:4], [long]]
    assert await _pages(keeper, secret, 1) == [[consumer] for consumer in consumers]
    assert await _pages(keeper, secret, 5) == [consumers]


async def test_a_consumer_that_goes_moves_no_other_one_to_another_page(gate: Gate) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    path = f"/v1/secrets/{secret['id']}/references"
    for name in "abcd":
        ok(await keeper.person.call("PUT", f"{path}/agent/{name}", json={}))
    first = ok(await keeper.person.get(f"{path}?limit=2"))
    assert (await keeper.person.call("DELETE", f"{path}/agent/b")).status_code == 204
    second = ok(await keeper.person.get(f"{path}?limit=2&cursor={first['next_cursor']}"))
    assert [row["consumer_id"] for row in second["data"]] == ["c", "d"]


@pytest.mark.parametrize("cursor", ["bm9uc2Vuc2U", "%00", "YWdlbnQ", "QS9h", "YWdlbnQvYS9i"])
async def test_a_cursor_that_is_no_consumers_is_refused(gate: Gate, cursor: str) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    refused = await keeper.person.get(f"/v1/secrets/{secret['id']}/references?cursor={cursor}")
    assert error_of(refused, 400, "INVALID_ARGUMENT")["path"] == ["query", "cursor"]


def _misses(
    number: int, pinned: int | None, used: int | None, acknowledged: int | None, *, says: bool
) -> bool:
    """Tell whether a consumer would miss a version while the second is `current`."""
    if used == number and (acknowledged or 0) <= number:
        return True
    if pinned is not None:
        return pinned == number
    known = acknowledged or 0
    return number == 2 or (says and known <= number <= max(known, 2))


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_who_would_miss_a_version_is_listed_whatever_is_known_of_it(
    gate: Gate, number: int
) -> None:
    keeper = await new_keeper(gate)
    secret = await keeper.create()
    for _ in range(2):
        await keeper.add(secret)
    ok(await keeper.patch(secret, {"version_aliases": {"current": 2}}))
    expected = []
    with gate.administrator() as connection:
        for pinned, used, acknowledged, says in itertools.product(
            NUMBERS, NUMBERS, NUMBERS, (False, True)
        ):
            consumer = f"{pinned}-{used}-{acknowledged}-{says}"
            connection.execute(
                "INSERT INTO secret_references (workspace_id, secret_id, consumer_type,"
                " consumer_id, version_number, last_used_number, acknowledged_number, acknowledges)"
                " VALUES (%s, %s, 'agent', %s, %s, %s, %s, %s)",
                (
                    *(keeper.person.workspace, secret["id"], consumer),
                    *(pinned, used, acknowledged, says),
                ),
            )
            if _misses(number, pinned, used, acknowledged, says=says):
                expected.append(f"agent/{consumer}")
    pages = await _pages(keeper, secret, 10, f"&version_number={number}")
    assert [len(page) for page in pages[:-1]] == [10] * (len(pages) - 1)
    assert sorted(itertools.chain(*pages)) == sorted(expected)
