"""What a backend of hosted control planes can do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from domain.cluster import Component, HostedControlPlane, Validity

# Called at least twice a second during a wait; raises to end it.
OnWait = Callable[[], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentStatus:
    """One process of a control plane, as found.

    Attributes:
        component: which one.
        state: the supervisor's word for it in lower case; `absent` when it knows of none.
        pid: its process id, None when it does not run.
        started_at: Unix time of its latest start, 0 before the first.
        memory_bytes: its resident memory, 0 when it does not run.
        problem: why it could not be started, empty when it could.
    """

    component: Component
    state: str
    pid: int | None
    started_at: int
    memory_bytes: int
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A control plane as found on its host.

    Attributes:
        components: all of them, whether they run or not.
        uid: the user id that its processes have of their own, None when they share ours.
        warning: what an operator should change, empty when nothing.
    """

    components: tuple[ComponentStatus, ...]
    uid: int | None
    warning: str


class ControlPlaneBackend(Protocol):
    """Runs control planes. Every method may be repeated and finishes what was left half-made."""

    def ensure_credentials(self, cluster: HostedControlPlane) -> Validity:
        """Write every file that the processes need; replace leaves that are due or do not fit."""

    def renew_leaves(self, cluster: HostedControlPlane, *, force: bool = False) -> Validity:
        """Replace the leaves that are due, or all of them."""

    def start(self, cluster: HostedControlPlane) -> None:
        """Have all components started; returns before they are ready."""

    def wait_until_ready(self, cluster: HostedControlPlane, on_wait: OnWait) -> None:
        """Return when a client finds the cluster usable, and administrators have their rights."""

    def reload(self, cluster: HostedControlPlane, on_wait: OnWait) -> None:
        """Have every component use the leaves on disk, one at a time, while the API answers."""

    def restart_tunnel(self, cluster: HostedControlPlane, on_wait: OnWait) -> None:
        """Cut off every agent whose token does not count any more; the others come back."""

    def stop(self, cluster: HostedControlPlane, on_wait: OnWait) -> None:
        """End all components and keep their data."""

    def remove(self, cluster: HostedControlPlane) -> None:
        """Remove everything on the host; the components must be stopped."""

    def describe(self, cluster: HostedControlPlane) -> Description:
        """Say what runs."""

    def find_remains(self, cluster: HostedControlPlane) -> dict[str, list[str]]:
        """Look for what is left, by kind; every list is empty when nothing is."""
