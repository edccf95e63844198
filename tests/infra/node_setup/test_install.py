import json
import random
import re
import shutil
import socket
from datetime import timedelta

import pytest

from infra.node_setup import bootstrap_cloud_init, bootstrap_command
from tests.infra.https_server import Response
from tests.infra.node_setup.connect_proxy import connect_proxy
from tests.infra.node_setup.sandbox import MODPROBE, NO_VXLAN, Run, Sandbox
from tests.infra.node_setup.small_platform import NODE_NAME, SmallPlatform, refusal

# More renames than a whole run makes; the last one cuts nothing.
_RENAMES = range(1, 45)
_SAMPLE = frozenset(random.sample(_RENAMES, 2))
_REGISTRATION = ("/v1/nodes", 201)


def _install(sandbox: Sandbox, platform: SmallPlatform) -> Run:
    command = bootstrap_command(
        platform.url, platform.authority_sha256, platform.token or "bulkhead_wbt_used"
    )
    return sandbox.execute(["sh", "-c", command])


def _installed(sandbox: Sandbox, platform: SmallPlatform) -> Sandbox:
    run = _install(sandbox, platform)
    assert run.status == 0, run.output
    return sandbox


def _started(sandbox: Sandbox) -> list[str]:
    return [line for line in sandbox.read("run/systemctl.log").splitlines() if "start" in line]


def test_one_command_makes_a_node(sandbox: Sandbox, platform: SmallPlatform) -> None:
    run = _install(sandbox, platform)
    assert run.status == 0, run.output
    assert sandbox.read("var/lib/bulkhead/installed").strip() == NODE_NAME
    assert [line.removeprefix("start bulkhead-") for line in _started(sandbox)] == [
        "node.timer",
        "containerd",
        "kubelet",
        "flannel",
        "tunnel",
        "kube-proxy",
    ]
    assert platform.phases() == ["downloaded", "kubelet_started", "running"]
    bridge = json.loads(sandbox.read("etc/cni/net.d/10-bulkhead.conflist"))["plugins"][0]
    assert (bridge["mtu"], bridge["ipam"]["ranges"]) == (1450, [[{"subnet": "10.244.3.0/24"}]])
    assert "tunnel.invalid # bulkhead" in sandbox.read("etc/hosts")
    for secret in ("etc/bulkhead/identity.key", "var/lib/bulkhead/tokens/tunnel"):
        assert (sandbox.root / secret).stat().st_mode & 0o777 == 0o600
    assert not sandbox.exists("etc/bulkhead/token")


def test_no_secret_is_an_argument_or_a_variable_or_in_the_output(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    token = str(platform.token)
    for tool in ("awk", "cat", "chmod", "cmp", "curl", "env", "openssl", "sed", "systemctl", "tr"):
        log = '{ echo "$0 $*"; export; } >>/run/seen.log'
        if tool == "systemctl":
            program = (sandbox.root / "bin/systemctl").read_text()
            sandbox.replace(tool, program.replace("case", f"{log}\ncase", 1))
        else:
            sandbox.replace_around(tool, log)
    run = _install(sandbox, platform)
    assert run.status == 0, run.output
    seen = sandbox.read("run/seen.log") + run.output
    assert "bulkhead-kubelet" in seen
    for secret in (token, "tunnel_token-canary", "flannel_token-canary", "PRIVATE KEY"):
        assert secret not in seen


def test_a_second_run_uses_no_token_and_restarts_nothing(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    _installed(sandbox, platform)
    before = {path: (sandbox.root / path).stat().st_mtime_ns for path in sandbox.files()}
    run = _install(sandbox, platform)
    assert run.status == 0, run.output
    assert "no token is used" in run.output
    after = {path: (sandbox.root / path).stat().st_mtime_ns for path in sandbox.files()}
    files = {path for path in before if (sandbox.root / path).is_file()}
    changed = {path for path in files if after[path] != before[path]}
    assert {path for path in changed if "tokens" not in path} <= {"var/lib/bulkhead/installed"}
    assert platform.requests.count(_REGISTRATION) == 1
    assert not [line for line in _started(sandbox) if "restart" in line]


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param(number, marks=() if number in _SAMPLE else pytest.mark.full)
        for number in _RENAMES
    ],
)
def test_a_power_cut_anywhere_leads_to_one_registration_and_a_whole_node(
    sandbox: Sandbox, platform: SmallPlatform, rename: int
) -> None:
    count = sandbox.root / "var/lib/renames"
    count.write_text("0")
    sandbox.replace_around(
        "mv",
        f"n=$(($(cat /var/lib/renames) + 1)); echo $n >/var/lib/renames\n"
        f"[ $n != {rename} ] || kill -9 0",
    )
    token = platform.token
    if _install(sandbox, platform).status == 0:
        assert int(count.read_text()) < rename
        return
    assert rename != _RENAMES[-1], "a whole run makes more renames than are cut here"
    has_timer = "enable" in _log(sandbox)
    _lose_power(sandbox)
    platform.token = platform.token or None
    if has_timer:
        run = sandbox.run("report")
    else:
        assert platform.token == token
        run = _install(sandbox, platform)
    assert run.status == 0, run.output
    assert sandbox.exists("var/lib/bulkhead/installed")
    assert platform.requests.count(_REGISTRATION) == 1
    assert platform.phases()[-1] == "running"


def _log(sandbox: Sandbox) -> str:
    return sandbox.read("run/systemctl.log") if sandbox.exists("run/systemctl.log") else ""


def _lose_power(sandbox: Sandbox) -> None:
    for place in (sandbox.root / "run").iterdir():
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def test_an_answer_that_is_lost_costs_no_second_token(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    platform.lose_answers = 1
    run = _install(sandbox, platform)
    assert run.status == 0, run.output
    assert platform.count("/v1/nodes", 502) == 1
    assert platform.requests.count(_REGISTRATION) == 0
    assert sandbox.exists("var/lib/bulkhead/installed")


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(Response(503, b""), id="of OpenBao"),
        pytest.param(Response(404, b"<html>no backend</html>"), id="of an entrance"),
        pytest.param(Response(401, b"<html>log in</html>"), id="of a network with a login"),
        pytest.param(refusal(409, "The cluster is SUSPENDED."), id="of the cluster"),
        pytest.param(refusal(401, "Off.", clock_offset_seconds="900"), id="of the clock"),
    ],
)
def test_an_outage_after_an_answer_was_lost_costs_no_token_and_no_key(
    sandbox: Sandbox, platform: SmallPlatform, outage: Response
) -> None:
    platform.lose_answers = 1
    platform.outages["resume"] = [outage] * 2
    run = _install(sandbox, platform)
    key = platform.key
    # Whether it waits itself or leaves that to the timer, which has three turns here.
    for _ in range(3):
        if run.status != 0:
            run = sandbox.run("report")
    assert run.status == 0, run.output
    assert [status for path, status in platform.requests if path == "/v1/nodes"] == [502]
    assert (platform.key, platform.phases()[-1]) == (key, "running")


def test_a_token_that_this_very_server_used_a_moment_later_is_not_held_against_it(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    """A lost request may be done after the question whether it was."""
    platform.lose_answers = 1
    platform.outages["resume"] = [refusal(401, "No machine has this key.")]
    run = _install(sandbox, platform)
    assert run.status == 0, run.output
    assert [status for path, status in platform.requests if path == "/v1/nodes"] == [502, 401]


def test_a_token_that_is_refused_leaves_nothing_behind(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    before = sandbox.files()
    used = platform.token
    platform.token = None
    command = bootstrap_command(platform.url, platform.authority_sha256, str(used))
    run = sandbox.execute(["sh", "-c", command])
    assert (run.status, "was used; it works once" in run.output) == (21, True), run.output
    # An overlay marks what was removed again; only the file of hosts is known to be whole.
    left = {path for path in sandbox.files() - before if (sandbox.root / path).is_file()}
    assert left == set()


@pytest.mark.parametrize(("damaged", "status"), [(1, 0), (2, 23)])
def test_a_corrupted_program_is_never_put_in_its_place(
    sandbox: Sandbox, platform: SmallPlatform, damaged: int, status: int
) -> None:
    platform.corrupt = damaged
    run = _install(sandbox, platform)
    assert run.status == status, run.output
    assert sandbox.exists("opt/bulkhead/bin/containerd") == (status == 0)
    if status:
        assert platform.reports[-1]["phase"] == "failed"
        assert platform.reports[-1]["code"] == 23
        # And when the way is free again, the timer's next turn completes it.
        assert sandbox.run("report").status == 0


def test_a_server_that_is_out_stops_and_says_how_to_uninstall(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    _installed(sandbox, platform)
    key, platform.key = platform.key, None
    run = sandbox.run("report")
    assert (run.status, "bulkhead-node uninstall" in run.output) == (25, True)
    assert "stop bulkhead-kubelet bulkhead-tunnel" in sandbox.read("run/systemctl.log")
    status = sandbox.run("status")
    assert (status.status, "no longer part" in status.output) == (25, True)
    # A platform that was restored from a backup knows it again.
    platform.key = key
    assert sandbox.run("report").status == 0
    assert _started(sandbox)[-5:].count("start bulkhead-kubelet") == 1


def test_a_refusal_that_is_not_the_platforms_stops_nothing(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    _installed(sandbox, platform)
    answer = platform.server.answer
    platform.server.answer = lambda request: (
        lost if (lost := answer(request)).status == 404 else type(lost)(401, b"<html>log in</html>")
    )
    assert sandbox.run("report").status == 22
    assert "stop" not in sandbox.read("run/systemctl.log").split("\n")[-2]


def test_a_clock_that_is_off_is_said_and_stops_nothing(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    _installed(sandbox, platform)
    sandbox.replace_around("date", '[ "$*" != +%s ] || { echo $(($(date -u +%-s) + 900)); exit; }')
    real = sandbox.root / "bin/date"
    real.write_text(real.read_text().replace("date -u", "/usr/bin/date -u"))
    run = sandbox.run("report")
    assert run.status == 20, run.output
    sentence = re.search(r"clock is off by (\d+) seconds", run.output)
    assert sentence is not None, run.output
    # Told to a platform that hears of it later.
    assert 840 < int(sentence[1]) <= 901
    assert sentence[0] in sandbox.run("status").output
    assert "stop" not in sandbox.read("run/systemctl.log").replace("is-active", "")


def test_a_server_that_slept_past_its_certificate_comes_back(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    platform.certificate_life = timedelta(seconds=1)
    _installed(sandbox, platform)
    platform.certificate_life = timedelta(hours=1)
    run = sandbox.run("report")
    assert run.status == 0, run.output
    assert platform.count("/v1/nodes/self:resume", 200) == 1
    assert "restart bulkhead-kubelet" in sandbox.read("run/systemctl.log")
    assert sandbox.run("report").status == 0
    assert platform.count("/v1/nodes/self:resume", 200) == 1


def test_tokens_are_renewed_at_half_of_their_life(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    _installed(sandbox, platform)
    sandbox.run("report")
    assert platform.count("/v1/nodes/self:tokens", 200) == 1
    (sandbox.root / "var/lib/bulkhead/tokens/renew-at").write_text("1\n")
    sandbox.run("report")
    assert platform.count("/v1/nodes/self:tokens", 200) == 2


def test_a_server_with_another_address_tells_its_services(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    _installed(sandbox, platform)
    assert "NODE_IP=127.0.0.1\n" in sandbox.read("etc/bulkhead/node.env")
    moved = 'case "$*" in *"route get"*) echo "127.0.0.1 dev lo src 192.0.2.9"; exit ;; esac'
    sandbox.replace_around("ip", moved)
    for _ in range(2):
        assert sandbox.run("report").status == 0
        assert "NODE_IP=192.0.2.9\n" in sandbox.read("etc/bulkhead/node.env")
    # The first one joined again, and the second had nothing to do.
    assert platform.phases()[3:] == ["kubelet_started", "running", "running"]


def test_a_tunnel_that_is_not_connected_is_reported(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    _installed(sandbox, platform)
    sandbox.replace_around("curl", 'case "$*" in *:8134/readyz) exit 22 ;; esac')
    run = sandbox.run("report")
    assert (run.status, "tunnel is not connected" in run.output) == (33, True), run.output
    assert (platform.reports[-1]["phase"], platform.reports[-1]["code"]) == ("failed", 33)


def test_a_server_for_which_there_are_no_programs_gives_up_at_once(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    platform.platforms = "linux/arm64"
    run = _install(sandbox, platform)
    assert (run.status, "no programs for linux/amd64" in run.output) == (12, True), run.output
    assert not sandbox.exists("etc/bulkhead")
    assert platform.token is not None


def test_the_port_that_pods_need_is_named_and_tried(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        platform.pods_port = closed.getsockname()[1]
        run = _install(sandbox, platform)
        assert (run.status, "API for pods" in run.output) == (32, True), run.output
        assert f"127.0.0.1:{platform.pods_port}  the same for pods" in run.output
        assert "FAIL 32 pods" in sandbox.run("check").output
        # Pods know no proxy: what they reach behind one is not tried.
        with connect_proxy() as proxy:
            behind = sandbox.run("report", environment={"HTTPS_PROXY": proxy.url})
            assert behind.status == 0, behind.output


@pytest.mark.parametrize("state", ["inactive", "activating"])
def test_a_restart_that_the_platform_asks_for_is_done_whatever_runs(
    sandbox: Sandbox, platform: SmallPlatform, state: str
) -> None:
    _installed(sandbox, platform)
    program = (sandbox.root / "bin/systemctl").read_text()
    sandbox.replace("systemctl", program.replace("exit 3", f"echo {state}; exit 3"))
    platform.instruction = "restart"
    status, phase = (24, "failed") if state == "activating" else (0, "running")
    assert sandbox.run("report").status == status
    assert platform.phases()[-1] == phase
    assert "restart bulkhead-containerd bulkhead-kubelet" in sandbox.read("run/systemctl.log")


def test_a_server_whose_node_was_deleted_has_tokens_of_the_new_one_with_the_next_turn(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    _installed(sandbox, platform)
    platform.instruction = "restart"
    # There is no node until kubelet has been restarted.
    platform.outages["tokens"] = [refusal(409, "There is no node.")]
    for _ in range(3):
        assert sandbox.run("report").status == 0
    # To join, before the restart, and after it; then not before half of their life.
    asked = [status for path, status in platform.requests if path == "/v1/nodes/self:tokens"]
    assert asked == [200, 409, 200]


def test_cloud_init_gets_the_token_in_a_file_for_root(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    document = bootstrap_cloud_init(platform.url, platform.authority, str(platform.token))
    assert document.startswith("#cloud-config\n")
    files = json.loads(document.partition("\n")[2])["write_files"]
    for file in files:
        place = sandbox.root / file["path"].lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(file["content"])
        place.chmod(int(file["permissions"], 8))
    assert [file["permissions"] for file in files if str(platform.token) in file["content"]] == [
        "0600"
    ]
    run = sandbox.execute(["sh", files[-1]["path"]])
    assert run.status == 0, run.output
    assert sandbox.exists("var/lib/bulkhead/installed")
    assert not sandbox.exists(files[-1]["path"])
    assert not sandbox.exists("etc/bulkhead/bootstrap-ca.crt")


def test_everything_goes_through_the_proxy_and_the_services_get_it(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    facts = ("--url", platform.url, "--authority-sha256", platform.authority_sha256)
    token = str(platform.token)
    with connect_proxy() as proxy:
        environment = {"HTTPS_PROXY": proxy.url, "NO_PROXY": "intranet"}
        run = sandbox.run("install", *facts, token=token, environment=environment)
        assert run.status == 0, run.output
    # One connection for each request, and the handshakes that only try an endpoint.
    assert proxy.targets == [f"127.0.0.1:{platform.server.port}"] * len(platform.requests)
    kept = sandbox.read("etc/bulkhead/proxy.env")
    assert f"HTTPS_PROXY={proxy.url}\n" in kept
    assert "NO_PROXY=intranet,localhost,127.0.0.1,127.0.0.1,10.96.0.0/16,10.244.0.0/16," in kept
    assert (sandbox.root / "etc/bulkhead/proxy.env").stat().st_mode & 0o777 == 0o600


def test_a_join_behind_a_proxy_goes_on_after_a_power_cut_and_is_told_the_proxy_once(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    facts = ("--url", platform.url, "--authority-sha256", platform.authority_sha256)
    token = str(platform.token)
    with connect_proxy() as proxy:
        environment = {"HTTPS_PROXY": proxy.url, "NO_PROXY": "intranet,localhost,127.0.0.2"}
        cut = 'case "$*" in *--data-binary*) kill -9 0 ;; esac'
        curl = (sandbox.root / "bin/curl").read_text()
        sandbox.replace("curl", curl.replace("exec", f"{cut}\nexec", 1))
        assert sandbox.run("install", *facts, token=token, environment=environment).status != 0
        sandbox.replace("curl", curl)
        assert "enable" in _log(sandbox)
        _lose_power(sandbox)
        before = len(proxy.targets)
        assert sandbox.run("report").status == 0
        assert len(proxy.targets) - before > platform.requests.index(_REGISTRATION)
        kept = sandbox.read("etc/bulkhead/proxy.env")
        assert "\nNO_PROXY=intranet,localhost,127.0.0.2,localhost,127.0.0.1," in kept
        # The same again, as it is and with the proxy in the shell.
        for more in ({}, environment):
            assert sandbox.run("install", environment=more).status == 0
            assert sandbox.read("etc/bulkhead/proxy.env") == kept
        before = len(proxy.targets)
        assert sandbox.run("check").status == 0
        assert len(proxy.targets) > before


def test_a_proxy_that_is_not_there_is_said(sandbox: Sandbox, platform: SmallPlatform) -> None:
    facts = ("--url", platform.url, "--authority-sha256", platform.authority_sha256)
    with connect_proxy() as proxy:
        pass
    run = sandbox.run("install", *facts, environment={"HTTPS_PROXY": proxy.url})
    assert (run.status, "cannot be reached" in run.output) == (31, True)


@pytest.mark.parametrize("status", [0, 21], ids=["uninstalled", "refused"])
def test_the_modules_that_were_loaded_for_a_node_go_with_it(
    sandbox: Sandbox, platform: SmallPlatform, status: int
) -> None:
    sandbox.replace("modprobe", MODPROBE)
    if status:
        platform.token = None
    facts = ("--url", platform.url, "--authority-sha256", platform.authority_sha256)
    token = platform.token or "bulkhead_wbt_used"
    assert sandbox.run("install", *facts, token=token, before=NO_VXLAN).status == status
    assert "\n--quiet vxlan\n" in sandbox.read("run/modprobe.log")
    assert sandbox.run("uninstall").status == 0
    removals = [line for line in sandbox.read("run/modprobe.log").splitlines() if "remove" in line]
    assert removals == ["--remove --quiet vxlan"]


def test_a_module_that_the_kernel_does_not_load_costs_no_token(
    sandbox: Sandbox, platform: SmallPlatform
) -> None:
    """As `install vxlan /bin/false` has it, in the file of a hardened server."""
    sandbox.replace("modprobe", MODPROBE.replace("mkdir", "exit 1; mkdir"))
    facts = ("--url", platform.url, "--authority-sha256", platform.authority_sha256)
    run = sandbox.run("install", *facts, token=str(platform.token), before=NO_VXLAN)
    assert (run.status, "does not load its module vxlan" in run.output) == (14, True), run.output
    assert platform.token is not None
    # Once it does, the timer goes on by itself.
    sandbox.replace("modprobe", MODPROBE)
    assert sandbox.run("report", before=NO_VXLAN).status == 0


@pytest.mark.parametrize("status", [0, 21], ids=["uninstalled", "refused"])
def test_what_the_servers_owner_had_is_there_afterwards(
    sandbox: Sandbox, platform: SmallPlatform, status: int
) -> None:
    image, plugin = "var/lib/containerd/metadata.db", "opt/cni/bin/bridge"
    for path in (image, plugin):
        (sandbox.root / path).parent.mkdir(parents=True)
        (sandbox.root / path).write_text("the owner's")
    if status:
        platform.token = None
    assert _install(sandbox, platform).status == status
    assert (sandbox.read(plugin) == "the owner's") == (status != 0)
    for _ in range(2):
        assert sandbox.run("uninstall").status == 0
        assert sandbox.read(image) == sandbox.read(plugin) == "the owner's"
