"""Commands that the client proposes: each exists, parses, and helps where it is shown."""

import ast
import re
import shlex
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import typer

import cli
from cli.app import app
from cli.errors import ExitCode, StillRunningError
from cli.hints import next_commands_for
from cli.rollout_follow import StillRollingError

# What stands for something that only a run knows.
_FILLED = "FILLED"
_FIELD = re.compile(r"\{[a-z_]*\}")
_REMARK = re.compile(r"   \(.*")
# What is no value yet: it is for a person to put one there.
_OPEN = re.compile(r"[A-Z]+(_[A-Z]+)*|[A-Z]+=[A-Z]+|.*(FILLED|[A-Z]{2,}).*")
_IN_A_SENTENCE = re.compile(r"bulkhead((?: [a-z][a-z-]*)+)")

_ROOT: Any = typer.main.get_command(app)


def _texts() -> Iterator[tuple[str, str]]:
    """Return each text of the client's source with where it stands."""
    root = Path(cli.__file__).parent
    for file in sorted(root.rglob("*.py")):
        tree = ast.parse(file.read_text())
        formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        parts = {id(part) for node in formatted for part in ast.walk(node)}
        for node in ast.walk(tree):
            where = f"{file.relative_to(root.parent)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                filled = (getattr(part, "value", None) for part in node.values)
                yield where, "".join(one if isinstance(one, str) else _FILLED for one in filled)
            elif isinstance(node, ast.Constant) and id(node) not in parts:
                yield where, _FIELD.sub(_FILLED, str(node.value))


def _found(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that words begin with, and the words behind it; None: no command."""
    found, rest = _ROOT, list(words)
    while hasattr(found, "commands") and rest and rest[0] in found.commands:
        found = found.commands[rest.pop(0)]
    return (None if hasattr(found, "commands") else found), rest


def _complaint(words: list[str]) -> str | None:
    """Return what is wrong with a command line; None: it is one that would run."""
    command, rest = _found(words)
    if command is None:
        return None if rest == ["--help"] else "there is no such command"
    context = typer.Context(command, info_name=command.name)
    try:
        given, left, _ = command.make_parser(context).parse_args(args=rest)
        for parameter in command.params:
            value = given.get(parameter.name)
            if parameter.required and not value:
                return f"it lacks {parameter.name}"
            several = value if isinstance(value, list | tuple) else [value]
            if not any(_OPEN.fullmatch(str(one)) for one in several):
                parameter.process_value(context, value)
    except typer.TyperException as error:
        return error.message
    return f"there is an argument too many: {left}" if left else None


def _command_lines(text: str) -> Iterator[str]:
    """Return the command lines that a text is; a pipe may have several."""
    for part in re.split(r" [|<>] ", text):
        line = _REMARK.sub("", part.strip())
        if line.startswith("bulkhead ") and ": " not in line and "\n" not in line:
            yield line


def test_every_command_that_the_client_proposes_exists_and_parses() -> None:
    wrong, seen = [], 0
    for where, text in _texts():
        for line in _command_lines(text):
            words = shlex.split(line)[1:]
            if words[0].startswith(_FILLED):
                continue
            seen += 1
            if complaint := _complaint(words):
                wrong.append(f"{where}: {line}: {complaint}")
        for sentence in _IN_A_SENTENCE.finditer(text):
            words = sentence[1].split()
            if words[0] in _ROOT.commands and _found(words)[0] is None:
                wrong.append(f"{where}: {sentence[0]}: no command of this group")
    assert not wrong, "\n".join(wrong)
    assert seen > 300


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("secrets versoins stripe", "no such command"),
        ("secrets policy", "no such command"),
        ("secrets versions", "lacks secret"),
        ("secrets versions stripe 1", "too many"),
        ("rollouts create", "lacks product"),
        ("rollouts get ID --digest x", "--digest"),
        ("tokens create ci --scope secrets:all", "secrets:all"),
        ("clusters compute-settings demo --max-machines some", "integer"),
    ],
)
def test_a_command_that_would_not_run_is_noticed(line: str, complaint: str) -> None:
    assert complaint in str(_complaint(line.split()))


CLUSTER, INSTALL, SECRET, MACHINE = (f"{kind}_{'1' * 32}" for kind in ("clu", "inst", "sec", "mch"))
ROLLOUT, COMPUTE_CONFIG = f"roll_{'1' * 32}", f"cmp_{'1' * 32}"
_SUSPENDED = {"state": "suspended", "cluster_id": CLUSTER}


def _hints(path: str, status: int, fault: str = "", **metadata: str) -> tuple[str, ...]:
    reasons = {409: "FAILED_PRECONDITION", 404: "NOT_FOUND", 422: "INVALID_ARGUMENT"}
    hints = next_commands_for(
        status=status,
        reason=metadata.get("reason", reasons.get(status, "")),
        request_path=path,
        fault_path=tuple(part for part in fault.split(".") if part),
        metadata=metadata,
        url="https://api.example",
    )
    for hint in hints:
        for line in _command_lines(hint):
            assert _complaint(shlex.split(line)[1:]) is None, hint
    return hints


@pytest.mark.parametrize("rest", ["/logs", "/pods", "/renders", ":update", ":restore", ""])
def test_what_a_suspended_cluster_keeps_from_an_install_begins_with_a_resume(rest: str) -> None:
    assert _hints(f"/installs/{INSTALL}{rest}", 409, **_SUSPENDED) == (
        f"bulkhead clusters resume {CLUSTER}",
    )


def test_logs_that_are_off_are_turned_on_and_a_pod_that_is_gone_is_looked_for() -> None:
    logs = f"/installs/{INSTALL}/logs"
    assert "workspaces logs enable" in _hints(logs, 409)[0]
    assert _hints(logs, 404, "query.pod") == (f"bulkhead installs pods {INSTALL}",)


@pytest.mark.parametrize(
    ("path", "metadata", "hint"),
    [
        (f"/clusters/{CLUSTER}:suspend", {"state": "suspended"}, f"clusters resume {CLUSTER}"),
        (f"/clusters/{CLUSTER}:resume", {"state": "active"}, f"clusters get {CLUSTER}"),
        (f"/clusters/{CLUSTER}/kubeconfig", {"state": "suspended"}, f"clusters resume {CLUSTER}"),
        (f"/machines/{MACHINE}:suspend", {"state": "SUSPENDED"}, f"machines resume {MACHINE}"),
        (f"/machines/{MACHINE}:resume", {"state": "ACTIVE"}, f"machines get {MACHINE}"),
        (f"/machines/{MACHINE}:suspend", {"kind": "own_server"}, f"machines cordon {MACHINE}"),
        (f"/machines/{MACHINE}:cordon", _SUSPENDED, f"clusters resume {CLUSTER}"),
        (
            f"/installs/{INSTALL}:update",
            {"state": "deleting", "cluster_id": CLUSTER},
            "clusters get",
        ),
        (f"/rollouts/{ROLLOUT}:pause", {}, f"rollouts get {ROLLOUT}"),
        (f"/compute_configs/{COMPUTE_CONFIG}", {"machine_ids": MACHINE}, "machines list"),
        (
            "/compute_configs",
            {"state": "disabled", "secret_id": SECRET},
            f"secrets versions {SECRET}",
        ),
    ],
)
def test_what_cannot_be_in_a_state_is_answered_with_what_can(
    path: str, metadata: dict[str, str], hint: str
) -> None:
    assert f"bulkhead {hint}" in _hints(path, 409, **metadata)[0]


def test_where_it_takes_somebody_else_the_members_are_shown() -> None:
    approval = _hints(f"/secrets/{SECRET}:approvePurge", HTTPStatus.FORBIDDEN)
    assert "bulkhead members list" in approval[0]
    members = f"/workspaces/ws_{'1' * 32}/members"
    assert _hints(members, 409, "body.user_id") == ("bulkhead members list",)
    assert _hints(members, HTTPStatus.FORBIDDEN, reason="PERMISSION_DENIED") == ("bulkhead whoami",)


def test_what_is_not_there_is_looked_for_in_its_list() -> None:
    assert _hints(f"/installs/{INSTALL}", 404) == ("bulkhead installs list",)
    taken = _hints(f"/secrets/{SECRET}", 409, "body.name")
    assert taken == ("bulkhead secrets list",)
    nobody = _hints("/rollouts", 422, "body.selector")
    assert nobody == ("bulkhead installs list --product PRODUCT",)
    gone = _hints(f"/installs/{INSTALL}/renders/rnd_1/plan", 404, "path.id")
    assert gone == ("bulkhead installs list",)
    other = _hints(f"/installs/{INSTALL}:restore", 404, "body.render_id")
    assert other == (f"bulkhead installs renders {INSTALL}",)


def test_an_alias_for_a_version_that_cannot_be_it_leads_to_the_versions() -> None:
    versions = (f"bulkhead secrets versions {SECRET}",)
    assert _hints(f"/secrets/{SECRET}", 409, "body.version_aliases", state="disabled") == versions
    assert _hints(f"/secrets/{SECRET}", 400, "body.version_aliases") == versions
    deleted = _hints(f"/secrets/{SECRET}/versions/current:access", 404, "path.id")
    assert f"bulkhead secrets get {SECRET}" in deleted[0]


def test_values_that_are_refused_lead_to_what_the_package_takes_or_to_the_secrets() -> None:
    update = f"/installs/{INSTALL}"
    assert "packages inputs" in _hints(update, 422, "body.values.replicas", keyword="type")[0]
    assert _hints(update, 404, "body.values.database.password") == ("bulkhead secrets list",)


def test_a_delete_that_runs_is_watched_and_not_cancelled() -> None:
    running = {"operation_id": "op_1", "operation_type": "cluster.delete"}
    assert _hints(f"/clusters/{CLUSTER}", 409, **running) == ("bulkhead operations watch op_1",)
    operation = {"id": "op_1", "owner_id": INSTALL, "metadata": {"type": "install.delete"}}
    stopped = StillRunningError(operation, "Stopped watching.", ExitCode.INTERRUPTED)
    assert stopped.next_commands == ("bulkhead operations watch op_1",)
    waits = {**operation, "metadata": {"type": "install.render"}, "waiting_for": "approval"}
    stopped = StillRunningError(waits, "Stopped watching.", ExitCode.INTERRUPTED)
    assert stopped.next_commands == (
        f"bulkhead installs approve {INSTALL}",
        "bulkhead operations watch op_1",
        "bulkhead operations cancel op_1",
    )


def test_what_cannot_be_cancelled_is_looked_at_for_what_it_waits_for() -> None:
    hints = _hints("/operations/op_1:cancel", 422, reason="FAILED_PRECONDITION")
    assert hints == ("bulkhead operations get op_1",)
    assert _hints("/operations/op_1:cancel", 404) == ("bulkhead operations list",)


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        ("running", ["watch", "pause", "rollback"]),
        ("paused", ["watch", "resume", "rollback"]),
        ("rolling_back", ["watch", "targets"]),
    ],
)
def test_who_stops_watching_a_rollout_is_told_what_can_be_asked_of_it(
    state: str, verbs: list[str]
) -> None:
    stopped = StillRollingError(
        {"id": ROLLOUT, "state": state}, "Stopped watching.", ExitCode.INTERRUPTED
    )
    assert stopped.next_commands == tuple(f"bulkhead rollouts {one} {ROLLOUT}" for one in verbs)


def test_a_quota_that_is_used_up_leads_to_what_uses_it() -> None:
    used = {"metric": "delivery/installs", "reason": "QUOTA_EXCEEDED"}
    assert _hints("/installs", HTTPStatus.FORBIDDEN, **used) == (
        "bulkhead quotas list",
        "bulkhead installs list",
    )
