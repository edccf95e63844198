"""Renders what supervisord reads, and finds what it could not read.

supervisord expands `%(...)s` in every value, takes ` ;` and ` #` for the start of a comment
(quotes do not help), and refuses every reload for as long as one included file is bad.
"""

import re
import resource
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from domain.errors import BulkheadError, Reason
from infra.supervisor.files import SupervisorFiles
from infra.supervisor.program import Program

KEEPER = "keeper"

# What the files of groups that were set aside end in, for an operator to look at.
UNREADABLE = ".unreadable"

# Three descriptors a program: its output's pipe, its input's pipe and its log file.
_FILE_DESCRIPTORS = 4096

# The pause before try n is n seconds, so a program that never comes up is tried for ever, and
# less and less often.
_RETRIES = 1_000_000

# Ended within this time counts as a failed start. Zero would be quicker to call a program
# running, but a stop within milliseconds of a start loses its signal.
_START_SECONDS = 1

_RPC_INTERFACE = "supervisor.rpcinterface:make_main_rpcinterface"

# `%(here)s` is replaced before anything else, and no escape protects it.
_UNQUOTABLE = re.compile(r"[\n\r\0]|\s[;#]|^[;#]|^\s|\s$|%\(here\)s")


def main_configuration(files: SupervisorFiles) -> str:
    """Return the main configuration: the socket, the keeper, and every file of the groups."""
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    descriptors = (
        _FILE_DESCRIPTORS
        if hard_limit == resource.RLIM_INFINITY
        else min(hard_limit, _FILE_DESCRIPTORS)
    )
    keeper = Program(
        name=KEEPER,
        command=[sys.executable, "-m", "infra.supervisor.keeper", str(files.directory)],
        directory=source_root(),
        # Ours, unlike the others', must outlive supervisord: it is told of the death.
        death_signal="USR1",
        stop_signal="KILL",
        priority=0,
    )
    return "\n".join(
        [
            "[supervisord]",
            f"logfile={_value(str(files.log))}",
            "logfile_maxbytes=10MB",
            "logfile_backups=1",
            f"pidfile={_value(str(files.pid))}",
            f"directory={_value(str(files.directory))}",
            f"childlogdir={_value(str(files.logs))}",
            "umask=077",
            f"minfds={descriptors}",
            "nodaemon=false",
            "",
            "[unix_http_server]",
            f"file={_value(str(files.socket))}",
            "chmod=0600",
            "",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            "",
            # Relative: the pattern is split at spaces, and the directory may have some.
            "[include]",
            f"files={files.groups.name}/*.conf",
            "",
            group_configuration(files, KEEPER, [keeper]),
        ]
    )


def group_configuration(files: SupervisorFiles, group: str, programs: Iterable[Program]) -> str:
    """Return the file of one group."""
    sections: list[str] = []
    members: list[str] = []
    for program in programs:
        # Names of sections are global: equal ones of two groups would silently merge.
        member = f"{group}.{program.name}"
        members.append(member)
        log_file = files.program_log(group, program.name)
        sections += [
            f"[program:{member}]",
            f"process_name={program.name}",
            f"command={_value(shlex.join(_command(program)))}",
            f"directory={_value(str(program.directory))}",
            f"environment={_environment(program.environment)}",
            f"priority={program.priority}",
            "autostart=true",
            "autorestart=true",
            f"startsecs={_START_SECONDS}",
            f"startretries={_RETRIES}",
            f"stopsignal={program.stop_signal}",
            f"stopwaitsecs={program.stop_seconds}",
            "killasgroup=true",
            "umask=077",
            "redirect_stderr=true",
            # Expanded twice, unlike every other value.
            f"stdout_logfile={_value(_value(str(log_file)))}",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=1",
            "",
        ]
    return "\n".join([*sections, f"[group:{group}]", f"programs={','.join(members)}", ""])


def problem_of(files: SupervisorFiles, content: str) -> str | None:
    """Say why supervisord could not read a group's file, by its own parser; None when it can."""
    # Imported here: reading configurations is rare, and this import is half of the keeper's memory.
    from supervisor.options import ServerOptions  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=files.directory, prefix=".check-") as directory:
        check = SupervisorFiles.__new__(SupervisorFiles)
        object.__setattr__(check, "directory", Path(directory))
        check.groups.mkdir()
        (check.groups / "candidate.conf").write_text(content, encoding="utf-8")
        check.configuration.write_text(
            f"[supervisord]\n[include]\nfiles={check.groups.name}/*.conf\n", encoding="utf-8"
        )
        options = ServerOptions()
        options.configfile = str(check.configuration)
        try:
            options.process_config(do_usage=False)
        except Exception as error:  # noqa: BLE001 - its parser raises whatever it runs into
            return str(error) or type(error).__name__
    return None


def set_aside_unreadable(files: SupervisorFiles) -> list[Path]:
    """Rename the files of groups that supervisord cannot read, and return their new names.

    One of them would keep every other group from being started, changed or removed.
    """
    moved: list[Path] = []
    for path in sorted(files.groups.glob("*.conf")):
        try:
            problem = problem_of(files, path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            problem = str(error)
        if problem is not None:
            moved.append(path.replace(path.with_suffix(UNREADABLE)))
    return moved


def source_root() -> Path:
    """Return the directory from which `python -m infra...` finds this package."""
    return Path(__file__).resolve().parents[2]


def util_linux(name: str) -> str:
    """Return the path of a program of util-linux.

    Raises:
        BulkheadError: FAILED_PRECONDITION when it is not there.
    """
    path = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
    if path is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The program `{name}` is missing; install util-linux 2.33 or newer.",
        )
    return path


def _command(program: Program) -> list[str]:
    command = [util_linux("setpriv"), f"--pdeathsig={program.death_signal}"]
    if program.uid is not None:
        gid = program.uid if program.gid is None else program.gid
        command += [
            f"--reuid={program.uid}",
            f"--regid={gid}",
            "--clear-groups",
            "--no-new-privs",
        ]
    return [*command, "--", *program.command]


def _environment(variables: dict[str, str]) -> str:
    return ",".join(f"{name}={_quoted(value)}" for name, value in variables.items())


def _quoted(value: str) -> str:
    """Quote a variable's value: supervisord strips all quotes at both ends of it."""
    for quote in "\"'":
        if quote not in value and value.strip("\"'") == value:
            return _value(f"{quote}{value}{quote}")
    raise _refused(value)


def _value(text: str) -> str:
    if _UNQUOTABLE.search(text):
        raise _refused(text)
    return text.replace("%", "%%")


def _refused(text: str) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"supervisord cannot be given {text!r}: no line breaks, no space before ; or #, no "
        "%(here)s, and no mixed quotes. Use another path or value.",
    )
