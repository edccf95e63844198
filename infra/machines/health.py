"""What one look at a cluster says about its machines, as the columns that change."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509

from domain.health import Finding, Health, MachineFacts, assess, settle
from domain.machine import MachineHealth, MachineState, Phase
from infra.database.tables import MachineRow
from infra.kubernetes.nodes import NodeSight
from infra.kubernetes.signing_requests import CLIENT_SIGNER, SERVING_SIGNER, SigningRequest

# A report of the server tells the end of a certificate in whole seconds.
_SAME: Final = timedelta(seconds=1)

_CERTIFICATES: Final = {CLIENT_SIGNER: "client", SERVING_SIGNER: "serving"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """A machine after a look.

    Attributes:
        machine: its row as it was read.
        facts: the columns that the look changed, health apart.
        finding: what the look found.
        health: debounced.
    """

    machine: MachineRow
    facts: dict[str, Any]
    finding: Finding
    health: Health

    def changes(self, note: str | None) -> dict[str, Any]:
        """Return every column that changes; the note says what is done about it, or not."""
        health, row = self.health, self.machine
        changed: dict[str, Any] = {
            "health": health.health,
            "health_since": health.since,
            "health_candidate": health.candidate,
            "health_candidate_since": health.candidate_since,
        }
        if self.finding.health is health.health:
            said = [text for text in (self.finding.reason, note) if text]
            changed["health_reason"] = " ".join(said) or None
        elif health.health is MachineHealth.HEALTHY:
            changed["health_reason"] = None
        return {
            **self.facts,
            **{name: value for name, value in changed.items() if getattr(row, name) != value},
        }


def observe(
    row: MachineRow, node: NodeSight | None, ends: dict[str, datetime], now: datetime
) -> Observation:
    """Return what a look says of one machine.

    Args:
        row: the machine as it was read after the look.
        node: its Node object, None when there is none.
        ends: the end of the latest certificate that was issued to it, by signer.
        now: the moment of the look.
    """
    facts = {**_facts_of(row, node), **_renewals_of(row, ends, now)}

    def known(name: str) -> Any:  # noqa: ANN401 - a column
        return facts.get(name, getattr(row, name))

    finding = assess(
        MachineFacts(
            reported_at=row.reported_at,
            heard_at=known("node_seen_at"),
            has_node=node is not None,
            node_ready=None if node is None else node.ready,
            node_message="" if node is None else node.message,
            pressures=() if node is None else node.pressures,
            clock_offset_seconds=row.clock_offset_seconds,
            client_certificate_expires_at=known("client_certificate_expires_at"),
            serving_certificate_expires_at=known("serving_certificate_expires_at"),
            reported_failure=row.reported_message if row.reported_phase == Phase.FAILED else None,
            server_missing_since=row.server_missing_since,
            asleep=row.state is MachineState.SUSPENDED,
        ),
        now,
    )
    before = Health(
        health=row.health,
        since=row.health_since,
        candidate=row.health_candidate,
        candidate_since=row.health_candidate_since,
    )
    return Observation(
        machine=row, facts=facts, finding=finding, health=settle(before, finding.health, now)
    )


def ends_of(requests: Iterable[SigningRequest]) -> dict[str, dict[str, datetime]]:
    """Return the end of the latest certificate by user and signer."""
    found: dict[str, dict[str, datetime]] = {}
    for request in requests:
        if request.certificate is None or request.signer not in _CERTIFICATES:
            continue
        end = x509.load_pem_x509_certificate(request.certificate).not_valid_after_utc
        ends = found.setdefault(request.username, {})
        ends[request.signer] = max(end, ends.get(request.signer, end))
    return found


def _facts_of(row: MachineRow, node: NodeSight | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"node_ready": None, "node_conditions": None}
    if node is not None:
        shown = {
            "node_ready": node.ready,
            "node_conditions": node.conditions,
            "node_seen_at": node.heard_at,
            "kubelet_version": node.kubelet_version,
        }
    return {name: value for name, value in shown.items() if getattr(row, name) != value}


def _renewals_of(row: MachineRow, ends: dict[str, datetime], now: datetime) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for signer, end in ends.items():
        kind = _CERTIFICATES[signer]
        before: datetime | None = getattr(row, f"{kind}_certificate_expires_at")
        if before is None or end > before + _SAME:
            changed[f"{kind}_certificate_expires_at"] = end
            changed[f"{kind}_certificate_renewed_at"] = now
    return changed
