"""What runs of a stack, where, since when, and what is not right."""

import time
from dataclasses import asdict, dataclass, replace

from domain.errors import BulkheadError, Reason
from infra.control_planes.processes import host_supervisor
from infra.embedded.memory import memory_of, memory_of_tree
from infra.embedded.node_address import problem_of
from infra.embedded.server import Part, Server
from infra.embedded.stack import Stack
from infra.supervisor.program import ProcessInfo, ProcessState
from infra.supervisor.supervisor import KEEPER, Supervisor

SUPERVISOR = "supervisord"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentStatus:
    """One line of the status.

    Attributes:
        component: its name.
        state: `ready`, or what it is instead.
        pid: its process, None when there is none.
        address: where it answers.
        uptime_seconds: since its latest start, None when it does not run.
        memory_bytes: of it and its descendants, None when it does not run.
        problem: what is not right and what to do, empty when nothing.
    """

    component: str
    state: str
    pid: int | None
    address: str
    uptime_seconds: int | None = None
    memory_bytes: int | None = None
    problem: str = ""

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problem

    def as_json(self) -> dict[str, str | int | None]:
        """Return it as a JSON object."""
        return asdict(self)


def status_of(stack: Stack) -> list[ComponentStatus]:
    """Look at every component of a stack.

    Raises:
        BulkheadError: FAILED_PRECONDITION when there is no stack in its home.
    """
    components = [_of_supervisor(SUPERVISOR, stack, stack.supervisor)]
    for part, server in stack.servers().items():
        components.append(_of_server(server, _processes(stack.supervisor, part).get(part)))
    control_planes = _of_supervisor(
        Part.CONTROL_PLANES, stack, host_supervisor(stack.control_planes)
    )
    if control_planes.pid:
        # With all control planes: they are not told apart here.
        total = memory_of_tree(control_planes.pid)
        control_planes = replace(control_planes, memory_bytes=total)
    return [*components, control_planes, *_of_node_address(stack)]


def _of_node_address(stack: Stack) -> list[ComponentStatus]:
    address = stack.node_address
    if address is None:
        return []
    problem = problem_of(address)
    return [
        ComponentStatus(
            component="node address",
            state="missing" if problem else "ready",
            pid=None,
            address=address,
            problem=problem,
        )
    ]


def _of_supervisor(name: str, stack: Stack, supervisor: Supervisor) -> ComponentStatus:
    address = f"{supervisor.files.directory.relative_to(stack.home.directory)}/"
    pid = supervisor.pid
    if pid is None:
        return ComponentStatus(
            component=name,
            state="down",
            pid=None,
            address=address,
            problem="It is not running; `make up` starts it.",
        )
    keeper = _processes(supervisor, KEEPER).get(KEEPER)
    kept = keeper is not None and keeper.state is ProcessState.RUNNING
    return ComponentStatus(
        component=name,
        state="ready" if kept else "unguarded",
        pid=pid,
        address=address,
        uptime_seconds=int(time.time() - supervisor.files.pid.stat().st_mtime),
        memory_bytes=memory_of(pid),
        problem="" if kept else f"Its keeper does not run; see {supervisor.files.log}.",
    )


def _processes(supervisor: Supervisor, group: str) -> dict[str, ProcessInfo]:
    """Return a group's processes; none while supervisord is away."""
    try:
        return supervisor.state(group)
    except BulkheadError as error:
        if error.reason is not Reason.DEPENDENCY_UNAVAILABLE:
            raise
        return {}


def _of_server(server: Server, process: ProcessInfo | None) -> ComponentStatus:
    if process is None or not process.state.has_process or process.pid is None:
        state = "down" if process is None else process.state.name.lower()
        hint = f" its log is {process.log_file}" if process else " `make up` starts it"
        return ComponentStatus(
            component=server.part,
            state=state,
            pid=None,
            address=server.address,
            problem=f"It is not running;{hint}.",
        )
    ready = server.is_ready(process)
    return ComponentStatus(
        component=server.part,
        state="ready" if ready else "not ready",
        pid=process.pid,
        address=server.address,
        uptime_seconds=max(0, int(time.time()) - process.started_at),
        memory_bytes=memory_of_tree(process.pid),
        problem=""
        if ready
        else f"It runs but does not answer as it should; see {process.log_file}.",
    )
