import os
import subprocess
import sys
from pathlib import Path

from infra.local_cloud import LocalCloud, LocalServer
from infra.supervisor.configuration import source_root


def _run(
    *arguments: str, before: tuple[str, ...] = (), text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "infra.local_cloud", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=source_root(),
        input=text,
    )


def test_without_root_it_says_what_to_do_and_making_the_image_is_no_failure() -> None:
    # In a user namespace of its own it is nobody, who may still read this checkout.
    nobody = ("unshare", "--user") if os.geteuid() == 0 else ()
    said = _run("check", before=nobody)
    assert "sudo" in said.stdout
    assert "simulated" in said.stdout
    assert _run("image", before=nobody).returncode == 0


def test_a_list_without_servers_says_where_it_looked_and_where_the_demos_are(
    tmp_path: Path,
) -> None:
    said = _run("--directory", str(tmp_path), "list").stdout
    assert f"no servers in {tmp_path}" in said
    assert "demo/servers" in said


def test_a_person_sees_servers_and_runs_commands_in_them(
    cloud: LocalCloud, pair: tuple[LocalServer, LocalServer]
) -> None:
    place = ("--directory", str(cloud.directory))
    rows = _run(*place, "list").stdout.splitlines()
    assert rows[0].split()[:3] == ["NAME", "STATE", "ADDRESS"]
    assert ["one", "running", str(pair[0].address)] in [row.split()[:3] for row in rows]
    answer = _run(*place, "run", "one", "hostname; exit 3")
    assert (answer.returncode, answer.stdout) == (3, "one\n")
    script = "tr '\\0' ' ' </proc/$$/cmdline; exit 4"
    answer = _run(*place, "run", "one", "-", text=script)
    assert (answer.returncode, answer.stdout) == (4, "sh -s ")
    assert "Multi-User" in _run(*place, "console", "one").stdout
    missing = _run(*place, "stop", "nobody")
    assert missing.returncode == 1
    assert "There is no server nobody" in missing.stderr
