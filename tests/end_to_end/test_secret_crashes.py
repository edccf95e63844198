"""A version is added once, whatever server is killed at whatever step of the saga.

Each step is held from outside: the intent by a lock on the secret's row, the write by a stopped
OpenBao, the end by a lock on the versions. Then a process is killed, and the hold is let go.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.end_to_end.seal import sealed
from tests.end_to_end.stack import Body, Bulkhead, wait_until_healthy
from tests.processes import suspended

PARTS = ["api", "openbao", "postgresql", "temporal", "worker", "supervisord"]
Hold = Callable[[Bulkhead, str, Callable[[], None]], AbstractContextManager[None]]


@contextlib.contextmanager
def _before_the_intent(
    bulkhead: Bulkhead, secret_id: str, ask: Callable[[], None]
) -> Iterator[None]:
    with _locked(bulkhead, "SELECT FROM secrets WHERE id = %s FOR UPDATE", secret_id):
        ask()
        bulkhead.eventually(lambda: _waits_for_a_lock(bulkhead))
        yield


@contextlib.contextmanager
def _before_the_write(
    bulkhead: Bulkhead, secret_id: str, ask: Callable[[], None]
) -> Iterator[None]:
    with contextlib.ExitStack() as stopped:
        # OpenBao is asked before the intent too, for the request's fingerprint.
        with _before_the_intent(bulkhead, secret_id, ask):
            stopped.enter_context(suspended(bulkhead.pid_of("openbao")))
        bulkhead.eventually(lambda: _is_being_written(bulkhead, secret_id))
        yield


@contextlib.contextmanager
def _before_the_end(bulkhead: Bulkhead, secret_id: str, ask: Callable[[], None]) -> Iterator[None]:
    with contextlib.ExitStack() as stopped:
        with _before_the_intent(bulkhead, secret_id, ask):
            stopped.enter_context(suspended(bulkhead.pid_of("openbao")))
        bulkhead.eventually(lambda: _is_being_written(bulkhead, secret_id))
        with _locked(
            bulkhead, "SELECT FROM secret_versions WHERE secret_id = %s FOR UPDATE", secret_id
        ):
            stopped.close()
            bulkhead.eventually(lambda: _waits_for_a_lock(bulkhead))
            yield


@contextlib.contextmanager
def _after_the_end(bulkhead: Bulkhead, secret_id: str, ask: Callable[[], None]) -> Iterator[None]:
    del bulkhead, secret_id
    ask()
    yield


HOLDS: list[Hold] = [_before_the_intent, _before_the_write, _before_the_end, _after_the_end]


@pytest.fixture
def secret(bulkhead: Bulkhead) -> Iterator[Body]:
    wait_until_healthy(bulkhead)
    yield bulkhead.persist(
        "POST",
        "/secrets",
        json={"name": f"s-{uuid4().hex}", "kind": "generic", "value": "first"},
        headers={"idempotency-key": uuid4().hex},
    )
    wait_until_healthy(bulkhead)


@pytest.mark.parametrize("part", PARTS)
def test_a_version_is_added_once_although_a_part_is_killed(
    bulkhead: Bulkhead, secret: Body, part: str
) -> None:
    _is_added_once(bulkhead, secret, part, random.choice(HOLDS))


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("hold", HOLDS)
def test_a_version_is_added_once_although_a_part_is_killed_at_every_step(
    bulkhead: Bulkhead, secret: Body, part: str, hold: Hold
) -> None:
    _is_added_once(bulkhead, secret, part, hold)


def test_a_version_is_added_once_although_the_store_is_sealed_after_the_intent(
    bulkhead: Bulkhead, secret: Body
) -> None:
    adding = _Adding(bulkhead, secret["id"])
    with _before_the_write(bulkhead, secret["id"], adding.start):
        bulkhead.kill("openbao")
        with sealed(bulkhead):
            adding.join()
            assert adding.statuses == [503]
    adding.is_done_once("openbao", "sealed")


def _is_added_once(bulkhead: Bulkhead, secret: Body, part: str, hold: Hold) -> None:
    adding = _Adding(bulkhead, secret["id"])
    with hold(bulkhead, secret["id"], adding.start):
        bulkhead.kill(part)
    adding.join()
    adding.is_done_once(part, hold.__name__)


class _Adding:
    """One request that adds a version, and the client that matters, which asks again."""

    def __init__(self, bulkhead: Bulkhead, secret_id: str) -> None:
        self.statuses: list[int] = []
        self._bulkhead = bulkhead
        self._path, self._key = f"/secrets/{secret_id}/versions", uuid4().hex
        self._body = {"value": f"of {uuid4().hex}"}
        self._asking = threading.Thread(target=self._ask)
        self.start = self._asking.start

    def _ask(self) -> None:
        # How it ends here is nobody's business where the API is what dies.
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(
                f"{self._bulkhead.http.base_url}{self._path.lstrip('/')}",
                json=self._body,
                headers={**self._bulkhead.http.headers, "idempotency-key": self._key},
                timeout=70,
            )
            self.statuses.append(answer.status_code)

    def join(self) -> None:
        self._asking.join(120)
        assert not self._asking.is_alive()

    def is_done_once(self, *case: str) -> None:
        """Ask again until it is answered, and find one version more; a failure names the case."""
        bulkhead, path = self._bulkhead, self._path
        key = {"idempotency-key": self._key}
        version = bulkhead.persist("POST", path, json=self._body, headers=key)
        versions = bulkhead.get(path)["data"]
        assert [each["id"] for each in versions][:1] == [version["id"]], case
        assert len(versions) == 2, case
        read = bulkhead.persist("POST", f"{path}/{version['id']}:access")
        assert read["value"] == self._body["value"]
        first = bulkhead.persist("POST", f"{path}/current:access")
        assert first["value"] == "first"


@contextlib.contextmanager
def _locked(bulkhead: Bulkhead, query: str, secret_id: str) -> Iterator[None]:
    with bulkhead.stack.administrator("bulkhead") as connection:
        connection.execute("BEGIN")
        connection.execute(query.encode(), (secret_id,))
        yield
        # The server may be the one that was killed, and the lock with it.
        with contextlib.suppress(psycopg.OperationalError):
            connection.execute("ROLLBACK")


def _waits_for_a_lock(bulkhead: Bulkhead) -> bool | None:
    with bulkhead.stack.administrator("bulkhead") as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE usename = 'bulkhead_api' AND wait_event_type = 'Lock'"
        ).fetchone()
    return True if found and found[0] else None


def _is_being_written(bulkhead: Bulkhead, secret_id: str) -> bool | None:
    with bulkhead.stack.administrator("bulkhead") as connection:
        found = connection.execute(
            "SELECT count(*) FROM secret_versions WHERE secret_id = %s AND state = 'writing'",
            (secret_id,),
        ).fetchone()
    return True if found and found[0] else None
