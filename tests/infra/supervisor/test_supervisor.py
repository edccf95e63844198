import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from infra.supervisor.configuration import KEEPER, group_configuration, main_configuration
from infra.supervisor.daemon import start_daemon
from infra.supervisor.files import SupervisorFiles, write_atomically
from infra.supervisor.program import ProcessState, Program
from infra.supervisor.supervisor import Supervisor

# Measured on an idle machine: 0.4 s from the kill to the new one's first answer.
HEALED_SECONDS = 15.0

# Of what is only on its way.
STARTED_SECONDS = 60.0


def wait_until(condition: Callable[[], bool], seconds: float = STARTED_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def sleeper(name: str = "sleeper", seconds: int = 1000) -> Program:
    return Program(name=name, command=["/bin/sleep", str(seconds)], directory=Path("/"))


def processes_of(supervisor: Supervisor) -> dict[int, str]:
    """Find, without asking supervisord, every process that was told it is its child."""
    mark = f"SUPERVISOR_SERVER_URL=unix://{supervisor.files.socket}".encode()
    found: dict[int, str] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            variables = (directory / "environ").read_bytes().split(b"\0")
            name = (directory / "comm").read_text().strip()
        except OSError:
            continue
        if mark in variables:
            found[int(directory.name)] = name
    return found


def sleeps(supervisor: Supervisor) -> int:
    return list(processes_of(supervisor).values()).count("sleep")


def wait_until_started(supervisor: Supervisor) -> None:
    """Wait until each process is what it runs: until then it is `setpriv`."""
    wait_until(lambda: "setpriv" not in processes_of(supervisor).values())


def command_lines() -> Iterator[list[bytes]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().split(b"\0")


def is_running(supervisor: Supervisor, group: str, name: str = "sleeper") -> bool:
    try:
        process = supervisor.state(group).get(name)
    except BulkheadError:
        return False
    return process is not None and process.state is ProcessState.RUNNING


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with tempfile.TemporaryDirectory(prefix="sv 50% ") as directory:
        found = Supervisor(Path(directory, "supervisor"))
        found.ensure_running()
        yield found
        found.shutdown()


def test_a_program_gets_its_arguments_and_variables_unchanged_and_no_others(
    supervisor: Supervisor,
) -> None:
    arguments = ["100%", "%(name)s", "two words", 'a "b"', "it's", "", "a;b#c", "$HOME *"]
    variables = {"JSON": '["x", "y"]', "PERCENT": "50%%", "EMPTY": "", "PATH": "/bin"}
    show = "import json,os,sys,time; print(json.dumps([sys.argv[1:], dict(os.environ)]),flush=True)"
    program = Program(
        name="show",
        command=[sys.executable, "-c", f"{show}\ntime.sleep(1000)".replace("\n", "; "), *arguments],
        directory=Path("/"),
        environment=variables,
    )
    supervisor.add("show", [program])
    log = supervisor.state("show")["show"].log_file
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    shown_arguments, shown_variables = json.loads(log.read_text())
    assert shown_arguments == arguments
    assert shown_variables.items() >= variables.items()
    others = shown_variables.keys() - variables.keys()
    assert {name for name in others if not name.startswith("SUPERVISOR_")} <= {"LANG", "LC_CTYPE"}


@pytest.mark.parametrize("value", ["a #comment", "a ;comment", "two\nlines", "\"both'", "%(here)s"])
def test_what_supervisord_would_misread_is_refused(value: str) -> None:
    program = Program(
        name="p", command=["/bin/true"], directory=Path("/"), environment={"A": value}
    )
    with pytest.raises(BulkheadError) as caught:
        group_configuration(SupervisorFiles(Path("/d")), "g", [program])
    assert caught.value.reason is Reason.FAILED_PRECONDITION


def test_a_directory_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(BulkheadError, match="too long"):
        Supervisor(Path("/", "d" * 120))


def test_adding_again_leaves_a_running_program_alone_and_a_changed_one_is_replaced(
    supervisor: Supervisor,
) -> None:
    supervisor.add("g", [sleeper()])
    wait_until(lambda: is_running(supervisor, "g"))
    before = supervisor.state("g")["sleeper"].pid
    supervisor.add("g", [sleeper()])
    assert supervisor.state("g")["sleeper"].pid == before
    supervisor.add("g", [sleeper(seconds=2000), sleeper("another")])
    wait_until(lambda: is_running(supervisor, "g") and is_running(supervisor, "g", "another"))
    assert supervisor.state("g")["sleeper"].pid != before
    wait_until_started(supervisor)
    assert sleeps(supervisor) == 2


def test_one_unreadable_file_keeps_no_other_group_from_being_run(supervisor: Supervisor) -> None:
    (supervisor.files.groups / "broken.conf").write_text("[program:x]\nno value\n")
    supervisor.add("g", [sleeper()])
    wait_until(lambda: is_running(supervisor, "g"))
    assert [path.name for path in supervisor.files.groups.glob("broken*")] == ["broken.unreadable"]


def test_a_removed_group_leaves_no_process_no_file_and_no_log(supervisor: Supervisor) -> None:
    supervisor.add("g", [sleeper()])
    supervisor.add("kept", [sleeper()])
    supervisor.remove("g")
    supervisor.remove("g")
    assert supervisor.groups() == ["kept"]
    assert supervisor.state("g") == {}
    assert not list(supervisor.files.logs.glob("g.*"))
    wait_until(lambda: is_running(supervisor, "kept"))
    wait_until_started(supervisor)
    assert sleeps(supervisor) == 1


@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_a_restart_returns_when_another_process_is_in_the_place(
    supervisor: Supervisor, name: str
) -> None:
    supervisor.add("g", [sleeper()])
    wait_until(lambda: is_running(supervisor, "g"))
    before = supervisor.state("g")["sleeper"].pid
    supervisor.restart("g", "sleeper", name)
    after = supervisor.state("g")["sleeper"]
    assert after.pid not in {None, before}
    with pytest.raises(BulkheadError) as caught:
        supervisor.restart("g", "unknown", name)
    assert caught.value.reason is Reason.NOT_FOUND


def test_a_killed_supervisord_comes_back_with_each_program_exactly_once(
    supervisor: Supervisor,
) -> None:
    # The second starts a process of its own, which no kernel ends with supervisord.
    parent = Program(
        name="parent",
        command=["/bin/sh", "-c", "trap 'kill $!' TERM; /bin/sleep 1001 & wait"],
        directory=Path("/"),
    )
    supervisor.add("g", [sleeper(), parent])
    wait_until(lambda: is_running(supervisor, "g") and is_running(supervisor, "g", "parent"))
    wait_until(lambda: is_running(supervisor, KEEPER, KEEPER))
    wait_until_started(supervisor)
    before = processes_of(supervisor)
    old = supervisor.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    # Longer than the others: the orphan is given its time before it is killed.
    wait_until(lambda: is_running(supervisor, "g") and is_running(supervisor, "g", "parent"), 30)
    wait_until(lambda: is_running(supervisor, KEEPER, KEEPER))
    wait_until_started(supervisor)
    after = processes_of(supervisor)
    assert supervisor.pid not in {None, old}
    assert not before.keys() & after.keys()
    assert sorted(before.values()) == sorted(after.values())


def test_a_killed_keeper_comes_back_and_still_guards(supervisor: Supervisor) -> None:
    wait_until(lambda: is_running(supervisor, KEEPER, KEEPER))
    keeper = supervisor.state(KEEPER)[KEEPER].pid
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: supervisor.state(KEEPER)[KEEPER].pid not in {None, keeper}, HEALED_SECONDS)
    wait_until(lambda: is_running(supervisor, KEEPER, KEEPER))
    old = supervisor.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: supervisor.pid not in {None, old}, HEALED_SECONDS)


def test_many_starters_get_one_supervisord(supervisor: Supervisor) -> None:
    supervisor.shutdown()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Supervisor(supervisor.files.directory).ensure_running(), range(8)))
    mark = os.fsencode(supervisor.files.configuration)
    # Those that came too late end by themselves.
    wait_until(lambda: sum(mark in arguments for arguments in command_lines()) == 1)


def test_a_removed_directory_ends_its_supervisord_with_all_programs(
    supervisor: Supervisor,
) -> None:
    supervisor.add("g", [sleeper()])
    wait_until(lambda: is_running(supervisor, "g"))
    wait_until(lambda: is_running(supervisor, KEEPER, KEEPER))
    shutil.rmtree(supervisor.files.directory)
    assert len(supervisor.lost()) == 1
    wait_until(lambda: not supervisor.lost(), HEALED_SECONDS)
    assert processes_of(supervisor) == {}


def test_the_supervisord_of_a_removed_directory_is_ended_without_harm_to_its_successor(
    supervisor: Supervisor,
) -> None:
    supervisor.add("g", [sleeper()])
    wait_until(lambda: is_running(supervisor, KEEPER, KEEPER))
    old = supervisor.pid
    keeper = supervisor.state(KEEPER)[KEEPER].pid
    assert keeper is not None
    # So that the successor begins first; whether the next keeper or we end the old one is open.
    os.kill(keeper, signal.SIGSTOP)
    shutil.rmtree(supervisor.files.directory)
    supervisor.files.make()
    write_atomically(supervisor.files.configuration, main_configuration(supervisor.files))
    assert start_daemon(supervisor.files)
    wait_until(lambda: supervisor.pid is not None)
    new = supervisor.pid
    assert new not in {None, old}
    supervisor.end_lost()
    assert supervisor.lost() == []
    assert supervisor.pid == new
    assert supervisor.groups() == []
    wait_until(lambda: "sleep" not in processes_of(supervisor).values())


def test_a_shutdown_ends_everything_at_once_and_nothing_revives_it(supervisor: Supervisor) -> None:
    stubborn = Program(
        name="stubborn",
        command=["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
        directory=Path("/"),
        stop_seconds=1,
    )
    supervisor.add("a", [stubborn])
    supervisor.add("b", [stubborn])
    wait_until(lambda: is_running(supervisor, "a", "stubborn"))
    wait_until(lambda: is_running(supervisor, "b", "stubborn"))
    began = time.monotonic()
    supervisor.shutdown()
    supervisor.shutdown()
    assert time.monotonic() - began < HEALED_SECONDS
    assert supervisor.pid is None
    assert processes_of(supervisor) == {}
    with pytest.raises(BulkheadError) as caught:
        supervisor.state("a")
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
