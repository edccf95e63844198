"""Plans as people read them, and the values and windows that people write."""

import io
from pathlib import Path
from typing import Any

import pytest

from cli.commands.installs.renders import show_drift, show_plan_of_render
from cli.commands.installs.upkeep import window_of
from cli.documents import no_secret, values_of
from cli.errors import CliError
from cli.output import Output
from cli.plans import show_drift_of, show_plan, standing_of
from tests.cli.recorded import Recorded

SECRET = "sec_" + "1" * 32
CHANGE = {"kind": "Deployment", "name": "web", "scope": "namespace", "change": "changed"}


def _secret_id_of(name: str) -> str:
    if name == "db-password":
        return SECRET
    raise no_secret()


def _shown(plan: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    show_plan(Output(out=out, err=io.StringIO()), plan, "Plan for shop")
    return out.getvalue().splitlines()


def test_a_plan_reads_like_a_diff() -> None:
    image = {"path": "spec.containers[0].image", "before": "web:1", "after": "web:2"}
    replicas = {"path": "spec.replicas", "before": None, "after": 2}
    paused = {"path": "spec.paused", "before": True, "after": None}
    hidden = {"path": "data.password", "before": "(hidden)", "after": "(hidden)"}
    plan = {
        "changes": [
            {**CHANGE, "diff": [image, replicas, paused]},
            {**CHANGE, "kind": "Secret", "diff": [hidden]},
            {**CHANGE, "kind": "Job", "change": "replaced"},
            {**CHANGE, "kind": "ConfigMap", "change": "deleted"},
            {**CHANGE, "kind": "Claim", "change": "kept", "note": "its chart asks for that"},
            {**CHANGE, "kind": "CustomResourceDefinition", "change": "added", "scope": "cluster"},
        ],
        "hooks": [{"key": "batch/Job/inst-1/migrate", "hooks": ["pre-upgrade"]}],
        "counts": {
            "added": 1,
            "changed": 2,
            "replaced": 1,
            "deleted": 1,
            "kept": 1,
            "unchanged": 7,
        },
        "needs": [{"what": "approval", "why": "it has objects of the whole cluster"}],
        "plan_digest": "sha256:1234",
    }
    assert _shown(plan) == [
        "Plan for shop",
        "  ~ Deployment/web  changed",
        '      ~ spec.containers[0].image: "web:1" -> "web:2"',
        "      + spec.replicas: 2",
        "      - spec.paused: true",
        "  ~ Secret/web  changed",
        "      ~ data.password: (hidden) -> (hidden)",
        "  ± Job/web  replaced: a field of it cannot be changed",
        "  - ConfigMap/web  deleted",
        "  = Claim/web  kept: its chart asks for that",
        "  + CustomResourceDefinition/web  added, of the whole cluster",
        "  * Job/migrate  hook, run by helm: pre-upgrade",
        "  1 added, 2 changed, 1 replaced, 1 deleted, 1 kept, 7 unchanged",
        "  needs an approval: it has objects of the whole cluster",
        "  digest: sha256:1234",
    ]


def test_a_plan_that_was_applied_says_when_and_that_nothing_waits() -> None:
    applied = {"state": "deployed", "updated_at": 0, "message": None}
    assert standing_of(applied).endswith("at 1970-01-01 00:00:00 UTC: this is what that did.")
    failed = {"state": "failed", "updated_at": 0, "message": "Deployment/web is Degraded."}
    assert standing_of(failed).endswith("Deployment/web is Degraded.")
    assert standing_of({"state": "running", "updated_at": 0}) == ""


def test_an_object_that_is_gone_is_told_in_words() -> None:
    out = io.StringIO()
    delta = [{"path": "", "before": None, "after": "(as rendered)"}]
    show_drift_of(Output(out=out, err=io.StringIO()), delta)
    assert out.getvalue().strip() == "not in the cluster: somebody or something removed it"


def test_texts_of_several_lines_differ_line_by_line() -> None:
    before = "".join(f"line {number}\n" for number in range(50))
    after = before.replace("line 20\n", "line twenty\n").replace("line 30\n", "  \x1b[2Jline 30\n")
    config = {"path": "data.config", "before": before, "after": after}
    shown = _shown({"changes": [{**CHANGE, "kind": "ConfigMap", "diff": [config]}], "counts": {}})
    assert "          -line 20" in shown
    assert "          +line twenty" in shown
    assert "          +  �[2Jline 30" in shown
    assert not any("line 40" in line for line in shown)


def test_nothing_to_do_is_said() -> None:
    assert "  nothing changes" in _shown({"changes": [], "counts": {"unchanged": 3}})


def test_values_come_from_files_then_settings_then_secrets(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.json"
    first.write_text("web:\n  replicas: 1\n  image: {tag: '1'}\nports: [1, 2]\n")
    second.write_text('{"web": {"replicas": 2}, "ports": [3]}')
    settings = ["web.image.tag=1.10", "web.debug=true", "hosts[0].name=a", "hosts[1].name=b"]
    secrets = ["db.password=db-password:previous:password"]
    values = values_of([first, second], settings, secrets, _secret_id_of)
    assert values == {
        "web": {"replicas": 2, "image": {"tag": "1.10"}, "debug": True},
        "ports": [3],
        "hosts": [{"name": "a"}, {"name": "b"}],
        "db": {"password": {"$secret": {"id": SECRET, "alias": "previous", "key": "password"}}},
    }


@pytest.mark.parametrize(
    ("settings", "secrets"),
    [
        (["web"], []),
        (["=1"], []),
        (["a..b=1"], []),
        (["a=1", "a[1]=2"], []),
        ([], ["db.password=hunter2"]),
        ([], ["db.password=db-password:a:b:c"]),
    ],
)
def test_what_is_no_value_is_refused_and_not_repeated(
    settings: list[str], secrets: list[str]
) -> None:
    with pytest.raises(CliError) as refused:
        values_of([], settings, secrets, _secret_id_of)
    assert refused.value.exit_code == 2
    assert "hunter2" not in refused.value.message


def test_windows_are_written_as_people_say_them() -> None:
    window = window_of("fri-mon 22:00-04:00 Europe/Berlin")
    assert window == {
        "timezone": "Europe/Berlin",
        "days": ["mon", "fri", "sat", "sun"],
        "start": "22:00",
        "end": "04:00",
    }
    assert len(window_of("daily 01:00-02:00 UTC")["days"]) == 7
    assert window_of("tue,thu 01:00-02:00 UTC")["days"] == ["tue", "thu"]
    for text in ("always", "someday 01:00-02:00 UTC", "mon 1-2 UTC", "daily 25:00-26:00 UTC"):
        with pytest.raises(CliError, match="'daily 01:00-05:00 UTC'"):
            window_of(text)


def test_drift_is_looked_for_at_once_when_that_is_asked_for() -> None:
    install = {"id": "inst_1", "labels": {"name": "eu"}, "etag": "1", "drift_looked_at": None}
    looked = {**install, "drift_looked_at": 1}
    finding = {
        "object": "apps/Deployment//web",
        "state": "open",
        "delta": [{"path": "spec.replicas", "before": 0, "after": 1}],
        "first_seen_at": 0,
    }
    api = Recorded(
        {
            "GET /installs": [install],
            "GET /installs/inst_1": install,
            "POST /installs/inst_1:detect_drift": looked,
            "GET /installs/inst_1/drift": [finding],
        }
    )
    show_drift(api.session(), "eu", look=True)
    assert "1 live object is not as rendered, as of" in api.shown
    assert api.next_commands() == ["bulkhead installs drift eu --correct on"]
    api.sent.clear()
    show_drift(api.session(), "eu")
    assert {request.method for request in api.sent} == {"GET"}
    assert "bulkhead installs drift eu --look" in api.next_commands()


def test_what_a_rollout_planned_is_shown_to_the_installs_own_people() -> None:
    install = {"id": "inst_1", "labels": {"name": "eu"}}
    plan = {
        "rollout_id": "roll_1",
        "semver": "2.0.0",
        "plan_digest": "sha256:3f",
        "changes": [{**CHANGE, "diff": [{"path": "spec.replicas", "before": 1, "after": 2}]}],
        "counts": {"changed": 1},
        "created_at": 0,
    }
    api = Recorded(
        {
            "GET /installs": [install],
            "GET /installs/inst_1": install,
            "GET /installs/inst_1/rollout_plan": plan,
        }
    )
    show_plan_of_render(api.session(), "eu", rollout=True)
    assert "Plan of roll_1 for eu: 2.0.0" in api.shown
    assert "~ spec.replicas: 1 -> 2" in api.shown
    assert "sha256:3f" in api.shown
    with pytest.raises(CliError, match="Give a render, or --rollout"):
        show_plan_of_render(api.session(), "eu", "rnd_1", rollout=True)
