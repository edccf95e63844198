"""Looks at targets that bake from here: their health as it was seen, HTTP, and metrics.

A vendor names the addresses; they are reached through the same guard as the targets of rotations.
Nothing of an answer is stored but whether it was as it should be.
"""

import asyncio
import functools
import json
import operator
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

import certifi
import httpx
from sqlmodel.ext.asyncio.session import AsyncSession

from domain.errors import BulkheadError
from domain.install import Health
from domain.install_health import UNHEALTHY
from domain.rollout import CheckKind, RolloutState
from domain.rollout_obstacles import REVOKED
from domain.rollout_plan import spread_order
from domain.rollout_strategy import Check, Strategy, Target
from domain.rollout_work import RolloutPlace
from infra.database.engine import Database
from infra.database.queries.rollout_sight import is_given_up
from infra.database.statements import run_sql
from infra.database.tables import RolloutRow
from infra.outbound import Outbound

_TIMEOUT_SECONDS: Final = 5.0
_MAXIMUM_ANSWER_BYTES: Final = 256 * 1024
_AT_ONCE: Final = 100

# A look before the bake's end ends after so long: addresses that hang shall not keep a rollout from
# its other work. Whom it did not reach is asked in another one, and everybody at the end.
_LONGEST_LOOK_SECONDS: Final = 30.0

# So often is told what was found since.
_TELLS_SECONDS: Final = 1.0

# A check has failed when it fails so often, one after the other: one packet is lost now and then.
_TRIES: Final = 3
_BETWEEN_TRIES_SECONDS: Final = 1.0

_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}

_BAKING: Final = """
SELECT install_id, customer_workspace_id, cluster_id, region_id, started_at FROM rollout_targets
WHERE rollout_id = %(rollout)s AND state = 'baking'
"""

# Only of those with which the vendor may still have to do.
_HEALTH: Final = """
SELECT i.id, i.health, i.health_since FROM unnest(%(customers)s::text[], %(installs)s::text[])
    AS t (customer, install_id)
JOIN installs i ON i.workspace_id = t.customer AND i.id = t.install_id
WHERE i.workspace_id = %(vendor)s OR EXISTS (SELECT FROM grants g
    WHERE g.workspace_id = i.workspace_id AND g.install_id = i.id
        AND g.vendor_workspace_id = %(vendor)s AND g.revoked_at IS NULL)
"""

_NOTE_HEALTH: Final = """
UPDATE rollout_targets SET health = h.health
FROM unnest(%(installs)s::text[], %(health)s::text[]) AS h (install_id, health)
WHERE rollout_id = %(rollout)s AND rollout_targets.install_id = h.install_id
    AND rollout_targets.health IS DISTINCT FROM h.health
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ailment:
    """A target that is not well. `message` is for the vendor."""

    install_id: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Baking:
    target: Target
    customer_workspace_id: str
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Health:
    health: Health
    since: datetime | None


class RolloutChecks:
    """Looks at all targets of a rollout that bake."""

    def __init__(self, database: Database, sweeper: Database, outbound: Outbound) -> None:
        self._database = database
        self._sweeper = sweeper
        self._outbound = outbound

    async def is_wanted(self, place: RolloutPlace) -> bool:
        """Tell whether it still matters how the targets are."""
        async with self._database.workspace(place.workspace_id) as session:
            rollout = await session.get_one(RolloutRow, (place.workspace_id, place.rollout_id))
            runs = rollout.state is RolloutState.RUNNING and rollout.pause_requested_at is None
            return runs and not await is_given_up(session, rollout)

    async def look(self, place: RolloutPlace, now: datetime) -> AsyncGenerator[list[Ailment]]:
        """Yield those that are not well, as they are found, and at least once a second.

        Whoever has heard enough closes it, and nobody is asked any more.
        """
        async with self._database.workspace(place.workspace_id) as session:
            rollout = await session.get_one(RolloutRow, (place.workspace_id, place.rollout_id))
            baking = await _baking(session, rollout.id)
        checks = Strategy.from_json(rollout.strategy).checks
        is_last = rollout.bake_until is not None and now >= rollout.bake_until
        health = await self._health_of(place, baking)
        ailing = [
            Ailment(install_id=each.target.install_id, message=REVOKED.message)
            for each in baking
            if each.target.install_id not in health
        ]
        baking = [each for each in baking if each.target.install_id in health]
        ailing += await self._unhealthy(place, baking, health)
        yield ailing
        # Those who are not reached are others each time.
        order = {one: turn for turn, one in enumerate(spread_order(list(health), str(now)))}
        baking.sort(key=lambda each: order[each.target.install_id])
        asked = [each for each in checks if each.url is not None]
        async with aclosing(self._ask_all(asked, baking, is_last=is_last)) as answers:
            async for found in answers:
                yield found

    async def _health_of(
        self, place: RolloutPlace, baking: Sequence[_Baking]
    ) -> Mapping[str, _Health]:
        """Read the health of those that may still be looked at, by their ids."""
        parameters = {
            "vendor": place.workspace_id,
            "customers": [each.customer_workspace_id for each in baking],
            "installs": [each.target.install_id for each in baking],
        }
        async with self._sweeper.transaction() as session:
            rows = await run_sql(session, _HEALTH, parameters)
            return {row.id: _Health(Health(row.health), row.health_since) for row in rows}

    async def _unhealthy(
        self, place: RolloutPlace, baking: Sequence[_Baking], health: Mapping[str, _Health]
    ) -> list[Ailment]:
        async with self._database.workspace(place.workspace_id) as session:
            noted = {
                "rollout": place.rollout_id,
                "installs": list(health),
                "health": [each.health.value for each in health.values()],
            }
            await run_sql(session, _NOTE_HEALTH, noted)
        ailing: list[Ailment] = []
        for each in baking:
            found = health[each.target.install_id]
            if found.health in UNHEALTHY and _is_since(found.since, each.started_at):
                message = f"It is {found.health} with the version."
                ailing.append(Ailment(install_id=each.target.install_id, message=message))
        return ailing

    async def _ask_all(
        self, checks: Sequence[Check], baking: Sequence[_Baking], *, is_last: bool
    ) -> AsyncGenerator[list[Ailment]]:
        places = asyncio.Semaphore(_AT_ONCE)

        async def ask(target: Target, check: Check) -> Ailment | None:
            async with places:
                found = await self._ask_patiently(target, check, is_last=is_last)
            return None if found is None else Ailment(install_id=target.install_id, message=found)

        ends = time.monotonic() + _LONGEST_LOOK_SECONDS
        asking = {
            asyncio.create_task(ask(each.target, check)) for each in baking for check in checks
        }
        try:
            while asking and (is_last or time.monotonic() < ends):
                answered, asking = await asyncio.wait(asking, timeout=_TELLS_SECONDS)
                found = [task.result() for task in answered]
                yield [each for each in found if each is not None]
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask_patiently(self, target: Target, check: Check, *, is_last: bool) -> str | None:
        found: str | None = None
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_BETWEEN_TRIES_SECONDS)
            found = await self._ask(target, check, is_last=is_last)
            if found is None:
                break
        return found

    async def _ask(self, target: Target, check: Check, *, is_last: bool) -> str | None:
        """Return what is wrong, as a sentence; None: nothing is."""
        url = target.fill(check.url or "")
        if check.kind is CheckKind.METRIC:
            question = urlencode({"query": target.fill(check.query)})
            url = f"{url.rstrip('/')}/api/v1/query?{question}"
        try:
            status, answer = await get(self._outbound, url)
        except (BulkheadError, httpx.HTTPError, OSError, TimeoutError, ValueError):
            return f"Its {check.kind} check got no answer."
        if check.kind is CheckKind.HTTP:
            wrong = f"Its HTTP check answered {status} instead of {check.status}."
            return None if status == check.status else wrong
        return judge_metric(check, answer if status == httpx.codes.OK else b"", is_last=is_last)


def judge_metric(check: Check, answer: bytes, *, is_last: bool) -> str | None:
    """Return what is wrong with the answer of a Prometheus; None: nothing is.

    That there is no sample counts at the end of the bake only: it takes a while to be scraped.
    """
    value = _first_sample(answer)
    if value is None:
        return "Its metric check has no sample." if is_last else None
    if _COMPARISONS[check.comparison](value, check.threshold):
        return None
    return f"Its metric is {value:g}, and not {check.comparison} {check.threshold:g}."


async def get(outbound: Outbound, url: str) -> tuple[int, bytes]:
    """Ask for a URL at an address that was checked, and return status and body.

    Raises:
        BulkheadError: the address is closed, or its name cannot be resolved.
        httpx.HTTPError: it does not answer.
        ValueError: this is no URL of HTTP, or the answer is too long.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        message = "give an address such as https://app.example.com/health"
        raise ValueError(message)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address, *_ = await outbound.addresses_of(parts.hostname, port)
    context = await asyncio.to_thread(_trusted)
    async with (
        asyncio.timeout(2 * _TIMEOUT_SECONDS),
        httpx.AsyncClient(
            verify=context, trust_env=False, follow_redirects=False, timeout=_TIMEOUT_SECONDS
        ) as client,
        client.stream(
            "GET",
            httpx.URL(url).copy_with(host=address),
            headers={"host": parts.netloc, "user-agent": "bulkhead-rollout"},
            # What is verified, and asked for, is the name and not the address.
            extensions={"sni_hostname": parts.hostname},
        ) as response,
    ):
        answer = bytearray()
        async for piece in response.aiter_bytes():
            answer += piece
            if len(answer) > _MAXIMUM_ANSWER_BYTES:
                message = "the answer is too long"
                raise ValueError(message)
        return response.status_code, bytes(answer)


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Return whom everybody trusts; read once, which takes longer than many an answer."""
    return ssl.create_default_context(cafile=certifi.where())


def _first_sample(answer: bytes) -> float | None:
    """Return the value of an instant query: a scalar, or the first sample of a vector."""
    try:
        data = json.loads(answer)["data"]
        result = data["result"]
        sample = result if data["resultType"] == "scalar" else result[0]["value"]
        return float(sample[1])
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def _is_since(unhealthy_since: datetime | None, moved_at: datetime | None) -> bool:
    """Return whether it became unhealthy after it began to move, and not before."""
    return unhealthy_since is None or moved_at is None or unhealthy_since >= moved_at


async def _baking(session: AsyncSession, rollout_id: str) -> list[_Baking]:
    rows = await run_sql(session, _BAKING, {"rollout": rollout_id})
    return [
        _Baking(
            target=Target(
                install_id=row.install_id, cluster_id=row.cluster_id, region_id=row.region_id
            ),
            customer_workspace_id=row.customer_workspace_id,
            started_at=row.started_at,
        )
        for row in rows
    ]
