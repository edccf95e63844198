import os
import re
import shutil
import socket
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from infra.node_setup import SCRIPT, bootstrap_command
from tests.infra.https_server import https_server
from tests.infra.node_setup.sandbox import MODPROBE, NO_VXLAN, Run, Sandbox
from tests.infra.node_setup.small_platform import SmallPlatform

_ROOT = Path(__file__).parents[3]


def _install(sandbox: Sandbox, platform: SmallPlatform, before: str = "", **changes: str) -> Run:
    facts = {"url": platform.url, "authority-sha256": platform.authority_sha256, **changes}
    options = [part for name, value in facts.items() for part in (f"--{name}", value)]
    return sandbox.run("install", *options, token=platform.token or "", before=before)


_FAULTS = {
    "no systemd": (11, "not Linux started by systemd", "rmdir /run/systemd/system"),
    "processor": (12, "no programs for riscv64", ""),
    "curl": (13, "Missing: curl.", ""),
    "overlay": (14, "no module: overlay", "mount --bind /dev/null /proc/filesystems"),
    "vxlan": (14, "no module: vxlan", "rmdir /sys/module/vxlan"),
    "swap": (15, "Swap is on", "echo /dev/sda2 partition 1 0 -2 >>/proc/swaps"),
    "port": (16, "Port 10250 is in use", ""),
    "ports": (16, "Ports 8134 10250 are in use", ""),
    "docker": (17, "docker.service runs here", ""),
    "kubelet": (17, "another Kubernetes", "mkdir /var/lib/kubelet; >/var/lib/kubelet/config.yaml"),
    "disk": (18, "MiB free", "mount -t tmpfs -o size=1m tmpfs /opt"),
}


def _break_something(sandbox: Sandbox, fault: str) -> None:
    match fault:
        case "processor":
            sandbox.replace("uname", '#!/bin/sh\n[ "$1" = -m ] && echo riscv64 || echo Linux\n')
        case "curl":
            (sandbox.root / "bin/curl").unlink()
        case "port":
            sandbox.replace("ss", "#!/bin/sh\necho 'LISTEN 0 4096 *:10250 *:*'\n")
        case "ports":
            lines = "LISTEN 0 4096 *:10250 *:*\\nLISTEN 0 4096 127.0.0.1:8134 *:*\\n"
            sandbox.replace("ss", f"#!/bin/sh\nprintf '{lines}'\n")
        case "docker":
            active = "docker.service loaded active running"
            sandbox.replace("systemctl", f'#!/bin/sh\n[ "$1" = list-units ] && echo "{active}"\n')


@pytest.mark.parametrize("fault", _FAULTS)
def test_each_check_that_fails_says_so_with_a_code_of_its_own(
    sandbox: Sandbox, platform: SmallPlatform, fault: str
) -> None:
    code, sentence, before = _FAULTS[fault]
    _break_something(sandbox, fault)
    install = _install(sandbox, platform, before)
    assert (install.status, sentence in install.output) == (code, True), install.output
    sandbox = _forget(sandbox)
    table = sandbox.run("check", before=before)
    assert table.status == code
    assert re.search(rf"^FAIL {code} \w+: .*{re.escape(sentence)}", table.output, re.MULTILINE)
    # Nothing was changed, and nothing was used up.
    assert not sandbox.exists("etc/bulkhead")
    assert platform.token is not None


def _forget(sandbox: Sandbox) -> Sandbox:
    shutil.rmtree(sandbox.root / "var/lib/kubelet", ignore_errors=True)
    (sandbox.root / "swaps").write_text("Filename Type Size Used Priority\n")
    return sandbox


def test_only_root_may_run_it() -> None:
    nobody = 65534 if os.geteuid() == 0 else None
    done = subprocess.run(
        ["sh", "-s", "check"],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        input=SCRIPT.read_text(),
        user=nobody,
    )
    assert (done.returncode, "Run this as root" in done.stderr) == (10, True)


def test_a_server_without_faults_passes_every_check(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    facts = ("--url", platform.url, "--authority-sha256", platform.authority_sha256)
    run = sandbox.run("check", *facts)
    assert run.status == 0, run.output
    assert run.output.count("ok ") == len(run.output.splitlines()) == 11


def test_a_check_loads_no_module(sandbox: Sandbox) -> None:
    sandbox.replace("modprobe", MODPROBE)
    run = sandbox.run("check", before=NO_VXLAN)
    assert run.status == 0, run.output
    assert sandbox.read("run/modprobe.log").splitlines() == ["--quiet --dry-run vxlan"]


def test_a_check_without_the_authoritys_hash_says_what_it_left_out(sandbox: Sandbox) -> None:
    run = sandbox.run("check")
    assert run.status == 0, run.output
    assert "endpoints not checked: no --authority-sha256" in run.output.splitlines()


def test_a_line_of_the_table_has_no_advice_about_curl(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    advice = "printf 'curl: (60) not trusted\\nMore details here: https://curl.se\\n' >&2; exit 60"
    sandbox.replace("curl", f"#!/bin/sh\n{advice}\n")
    facts = ("--url", platform.url, "--authority-sha256", platform.authority_sha256)
    run = sandbox.run("check", *facts)
    assert (run.status, "curl: (60) not trusted" in run.output) == (31, True), run.output
    assert "More details" not in run.output


def test_another_authority_than_the_one_that_was_named_is_refused(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    run = _install(sandbox, platform, **{"authority-sha256": "0" * 64})
    assert run.status == 19
    assert platform.token is not None


def test_a_clock_that_is_off_is_told_before_certificates_look_invalid(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    late = round(time.time()) - 400 * 86400
    sandbox.replace_around("date", f'[ "$*" != +%s ] || {{ echo {late}; exit; }}')
    run = _install(sandbox, platform)
    assert run.status == 20
    assert re.search(r"off by -345\d{5} seconds", run.output)


def test_an_endpoint_that_cannot_be_reached_is_named(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    run = _install(sandbox, platform, url=f"https://127.0.0.1:{port}")
    assert (run.status, f"127.0.0.1:{port} cannot be reached" in run.output) == (31, True)


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ("closed", 31, "cannot be reached: curl: (7)"),
        ("no curl", 13, "bulkhead: Missing: curl."),
        ("clock", 20, "clock of this server is off"),
        ("authority", 19, "is not the one that was named"),
    ],
)
def test_the_command_that_is_pasted_says_itself_why_it_cannot_get_the_script(
    sandbox: Sandbox, fault: str, code: int, sentence: str
) -> None:
    # What a clock that is ahead makes of a certificate.
    lasts = timedelta(minutes=-1 if fault == "clock" else 60)
    with https_server(lasts=lasts) as server:
        platform = SmallPlatform(server, "127.0.0.1")
        server.answer = platform.answer
        if fault != "closed":
            run = _paste(sandbox, platform, fault)
    if fault == "closed":
        run = _paste(sandbox, platform, fault)
    assert (run.status, sentence in run.output) == (code, True), run.output
    assert platform.count("/v1/nodes", 201) == 0


def _paste(sandbox: Sandbox, platform: SmallPlatform, fault: str) -> Run:
    if fault == "no curl":
        (sandbox.root / "bin/curl").unlink()
    sha256 = "0" * 64 if fault == "authority" else platform.authority_sha256
    command = bootstrap_command(platform.url, sha256, str(platform.token))
    return sandbox.execute(["sh", "-c", command])


@pytest.mark.parametrize("token", ["", "hunter2", "bulkhead_wbt_$(id)"])
def test_what_is_no_token_is_refused_and_not_shown(
    sandbox: Sandbox, platform: SmallPlatform, token: str
) -> None:
    platform.token = token
    run = _install(sandbox, platform)
    assert run.status == 2
    assert not token or token not in run.output


@pytest.mark.parametrize("shell", ["dash", "busybox sh", "bash --posix"])
def test_the_script_is_read_by_every_shell_without_an_error(shell: str) -> None:
    program, *arguments = shell.split()
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    subprocess.run([program, *arguments, "-n", SCRIPT], check=True)


def test_every_exit_code_is_in_the_help_and_in_the_guide() -> None:
    text = SCRIPT.read_text()
    used = {*re.findall(r"(?:problem|fail|check_endpoint|exit) (\d+)", text)}
    helped = set(re.findall(r"^ {4,5}(\d+)  \w", text, re.MULTILINE))
    guide = (_ROOT / "docs/servers.md").read_text()
    documented = set(re.findall(r"^\| (\d+) \|", guide, re.MULTILINE))
    assert used <= helped
    assert documented == helped
