"""A secret's life at the terminal, with a real API, OpenBao and PostgreSQL behind it."""

import json
import stat
import subprocess

import pytest

from cli.client import PAGE_SIZE
from tests.cli.conftest import Bulkhead

# A value that any careless handling changes: line breaks, a tab, a byte order mark, no ASCII.
TEXT = "\ufeffpässwört\r\nline two\t\u2028 \n\n"
BINARY = bytes(range(256))
CANARY = "canary-4f1d-value"


def _piped(bulkhead: Bulkhead, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run a command as a part of a pipe; return exactly what came out of it."""
    result = subprocess.run(
        [bulkhead.folder / "bin" / "bulkhead", *arguments],
        check=False,
        cwd=bulkhead.folder,
        env=bulkhead.environment,
        input=stdin,
        capture_output=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def _create(bulkhead: Bulkhead, name: str, value: str, *arguments: str) -> str:
    """Create a secret; return its id."""
    created = bulkhead.run("secrets", "create", name, *arguments, "--json", stdin=value)
    assert created.returncode == 0, created.stderr
    secret_id: str = json.loads(created.stdout)["id"]
    return secret_id


def _as_token(bulkhead: Bulkhead, *scopes: str) -> Bulkhead:
    """Return somebody who has a workspace token with these scopes and nothing else."""
    options = [word for scope in scopes for word in ("--scope", scope)]
    token = bulkhead.json("tokens", "create", "of-a-test", *options)["token"]
    folder = bulkhead.folder / "holder"
    folder.mkdir()
    holder = Bulkhead(folder, **bulkhead.environment)
    holder.environment |= {"BULKHEAD_API_TOKEN": token}
    holder.environment |= {"BULKHEAD_API_URL": bulkhead.json("whoami")["url"]}
    return holder


def _register(bulkhead: Bulkhead, secret_id: str, consumer: str, how: dict[str, object]) -> None:
    """Say that a service uses a secret, as the service itself does: not at a terminal."""
    with bulkhead.session() as session:
        path = f"/secrets/{secret_id}/references/service/{consumer}"
        session.client.change("PUT", path, body=how)


def test_a_secret_lives_from_create_to_restore(bulkhead: Bulkhead) -> None:
    created = bulkhead.run("secrets", "create", "stripe", "--label", "a=b", stdin="first")
    assert created.returncode == 0, created.stderr
    assert "next: bulkhead secrets access stripe" in created.stdout
    again = bulkhead.run("secrets", "create", "stripe", "--value-file", "-", stdin="again")
    assert again.returncode == 5
    assert "next: bulkhead secrets add-version stripe" in again.stderr
    assert bulkhead.ok("secrets", "access", "stripe") == "first"

    added = bulkhead.run("secrets", "add-version", "stripe", "--comment", "new", stdin="second")
    assert "next: bulkhead secrets update stripe --alias current=2" in added.stdout
    assert bulkhead.ok("secrets", "access", "stripe") == "first"
    assert bulkhead.ok("secrets", "access", "stripe", "--version", "latest") == "second"
    updated = bulkhead.json(
        "secrets", "update", "stripe", "--alias", "current=2", "--alias", "old=1"
    )
    assert updated["version_aliases"] == {"current": 2, "previous": 1, "old": 1}
    assert bulkhead.ok("secrets", "access", "stripe") == "second"
    updated = bulkhead.json(
        "secrets", "update", "stripe", "--remove-alias", "old", "--label", "c=d"
    )
    assert updated["version_aliases"] == {"current": 2, "previous": 1}
    assert updated["labels"] == {"a": "b", "c": "d"}
    assert [row.get("comment") for row in bulkhead.json("secrets", "versions", "stripe")] == [
        "new",
        None,
    ]

    assert "next: bulkhead secrets enable stripe 1" in bulkhead.ok(
        "secrets", "disable", "stripe", "previous"
    )
    disabled = bulkhead.run("secrets", "access", "stripe", "--version", "1")
    assert disabled.returncode == 5
    assert "next: bulkhead secrets versions sec_" in disabled.stderr
    bulkhead.ok("secrets", "enable", "stripe", "1")
    assert bulkhead.ok("secrets", "access", "stripe", "--version", "1") == "first"

    refused = bulkhead.run("secrets", "delete", "stripe")
    assert refused.returncode == 2
    assert "needs --yes. Nothing was deleted." in refused.stderr
    deleted = bulkhead.ok("secrets", "delete", "stripe", "--yes")
    assert "it can be restored until " in deleted
    secret_id = deleted.split()[-1]
    assert bulkhead.run("secrets", "access", secret_id).returncode == 3
    away = bulkhead.run("secrets", "versions", "stripe")
    assert away.returncode == 3
    assert f"next: bulkhead secrets restore {secret_id}" in away.stderr
    bulkhead.ok("secrets", "restore", secret_id)
    assert bulkhead.ok("secrets", "access", "stripe") == "second"


def test_a_version_is_destroyed_only_by_somebody_who_means_it(bulkhead: Bulkhead) -> None:
    _create(bulkhead, "stripe", "first")
    bulkhead.run("secrets", "add-version", "stripe", stdin="second")
    bulkhead.ok("secrets", "update", "stripe", "--alias", "current=2")

    refused = bulkhead.run("secrets", "destroy", "stripe", "1")
    assert refused.returncode == 2
    assert "needs --yes. Nothing was destroyed." in refused.stderr
    question = "Type its name, stripe, to go on"
    code, shown = bulkhead.on_terminal(["secrets", "destroy", "stripe", "1"], (question, "no\n"))
    assert code == 1
    assert "Nothing is known to use version 1 of stripe." in shown
    assert bulkhead.ok("secrets", "access", "stripe", "--version", "1") == "first"

    code, _ = bulkhead.on_terminal(["secrets", "destroy", "stripe", "1"], (question, "stripe\n"))
    assert code == 0
    gone = bulkhead.run("secrets", "access", "stripe", "--version", "1")
    assert gone.returncode != 0
    assert gone.stdout == ""
    assert bulkhead.json("secrets", "versions", "stripe")[-1]["state"] == "destroyed"


def test_any_bytes_come_back_exactly_and_into_a_private_file(bulkhead: Bulkhead) -> None:
    for name, value in (("text", TEXT.encode()), ("binary", BINARY)):
        _piped(bulkhead, "secrets", "create", name, stdin=value)
        assert _piped(bulkhead, "secrets", "access", name) == value

        file = bulkhead.folder / name
        bulkhead.ok("secrets", "access", name, "-o", name)
        assert file.read_bytes() == value
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        bulkhead.ok("secrets", "add-version", name, "--value-file", name)
        kept = bulkhead.run("secrets", "access", name, "--version", "2", "-o", name)
        assert kept.returncode == 1
        assert "Nothing was read." in kept.stderr
        bulkhead.ok("secrets", "access", name, "--version", "2", "-o", name, "--force")
        assert file.read_bytes() == value


def test_a_value_that_could_not_be_written_is_not_read(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    refused = bulkhead.run("secrets", "access", "stripe", "-o", "missing/stripe.key")
    assert refused.returncode == 2
    assert not (bulkhead.folder / "missing").exists()
    reads = ("--action", "secret_version.access")
    assert bulkhead.json("audit", "list", "--resource", secret_id, *reads) == []


def test_the_current_version_is_disabled_only_by_somebody_who_means_it(
    bulkhead: Bulkhead,
) -> None:
    _create(bulkhead, "stripe", CANARY)
    refused = bulkhead.run("secrets", "disable", "stripe", "1")
    assert refused.returncode == 2
    assert "needs --yes. Nothing was disabled." in refused.stderr
    code, shown = bulkhead.on_terminal(
        ["secrets", "disable", "stripe", "current"], ("Type its name, stripe", "no\n")
    )
    assert code == 1
    assert "is refused from then on" in shown
    assert bulkhead.ok("secrets", "access", "stripe") == CANARY
    bulkhead.ok("secrets", "disable", "stripe", "current", "--yes")
    assert bulkhead.run("secrets", "access", "stripe").returncode == 5


def test_a_terminal_gets_a_line_and_nothing_that_it_would_act_on(bulkhead: Bulkhead) -> None:
    _create(bulkhead, "plain", "opensesame")
    _create(bulkhead, "escape", "\x1b[2Jopensesame")
    code, shown = bulkhead.on_terminal(["secrets", "access", "plain"])
    assert (code, shown) == (0, "opensesame\r\n")
    code, shown = bulkhead.on_terminal(["secrets", "access", "escape"])
    assert code == 2
    assert "opensesame" not in shown
    assert "--output FILE" in shown


def test_a_typed_value_is_hidden_and_asked_for_twice(bulkhead: Bulkhead) -> None:
    words = ["secrets", "create", "typed"]
    code, shown = bulkhead.on_terminal(
        words, ("Value (not shown)", f"{CANARY}\n"), ("Value again", "other\n")
    )
    assert code == 2
    assert "Nothing was stored" in shown
    code, again = bulkhead.on_terminal(
        words, ("Value (not shown)", f"{CANARY}\n"), ("Value again", f"{CANARY}\n")
    )
    assert code == 0, again
    assert CANARY not in shown + again
    assert bulkhead.ok("secrets", "access", "typed") == CANARY


def test_a_line_break_at_the_end_is_kept_and_pointed_out_to_a_person(bulkhead: Bulkhead) -> None:
    (bulkhead.folder / "value").write_text(f"{CANARY}\n")
    words = ["secrets", "create", "echoed", "--value-file", "value"]
    code, shown = bulkhead.on_terminal(words, COLUMNS="200")
    assert code == 0, shown
    assert "ends with a line break" in shown
    assert bulkhead.ok("secrets", "access", "echoed") == f"{CANARY}\n"


@pytest.mark.parametrize(
    ("value", "message"), [("", "The value is empty"), ("x" * 65537, "at most 65536 bytes")]
)
def test_a_value_that_cannot_be_one_is_refused_before_anything_is_asked(
    stranger: Bulkhead, value: str, message: str
) -> None:
    refused = stranger.run("secrets", "create", "a", stdin=value)
    assert refused.returncode == 2
    assert message in refused.stderr


def test_a_value_is_not_taken_as_an_argument(stranger: Bulkhead) -> None:
    for words in (["create", "a"], ["add-version", "a"], ["create", "a", "--value"]):
        refused = stranger.run("secrets", *words, CANARY, COLUMNS="300")
        assert refused.returncode == 2
        assert "standard input or --value-file" in refused.stderr
        assert "history" in refused.stderr
        assert CANARY not in refused.stderr


def test_a_wrapped_value_is_given_once(bulkhead: Bulkhead) -> None:
    _create(bulkhead, "stripe", CANARY)
    token = bulkhead.ok("secrets", "access", "stripe", "--wrap", "5m")
    assert CANARY not in token
    assert bulkhead.run("secrets", "unwrap", stdin=token).stdout == CANARY
    again = bulkhead.run("secrets", "unwrap", stdin=token)
    assert again.returncode != 0
    assert again.stdout == ""
    assert "next:" not in again.stderr
    too_long = bulkhead.run("secrets", "access", "stripe", "--wrap", "1h")
    assert too_long.returncode == 2
    assert "--wrap is from 1s to 5m, and 1h is not." in too_long.stderr


def test_no_command_but_access_shows_a_value(bulkhead: Bulkhead) -> None:
    _create(bulkhead, "stripe", CANARY)
    bulkhead.ok("secrets", "access", "stripe")
    for words in (["list"], ["get", "stripe"], ["versions", "stripe"], ["history", "stripe"]):
        assert CANARY not in bulkhead.ok("secrets", *words)
        assert CANARY not in bulkhead.ok("secrets", *words, "--json")
    assert CANARY not in bulkhead.ok("audit", "list", "--json")


def test_a_token_reads_a_value_only_with_the_scope_for_it(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    holder = _as_token(bulkhead, "secrets:read", "secrets:write")
    assert holder.json("secrets", "list")[0]["id"] == secret_id
    denied = holder.run("secrets", "access", "stripe")
    assert denied.returncode == 4
    assert "next: bulkhead tokens create NAME --scope secrets:access" in denied.stderr

    attempts = bulkhead.json("audit", "list", "--resource", "stripe", "--outcome", "denied")
    assert bulkhead.run("audit", "list", "--outcome", "deny").returncode == 2
    assert [attempt["action"] for attempt in attempts] == ["secret_version.access"]
    assert "denied" in bulkhead.ok("secrets", "history", "stripe")


def test_a_token_that_may_only_read_values_needs_no_other_scope_for_it(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    holder = _as_token(bulkhead, "secrets:access")
    assert holder.ok("secrets", "access", secret_id) == CANARY
    assert holder.run("secrets", "list").returncode == 4
    by_name = holder.run("secrets", "access", "stripe")
    assert by_name.returncode == 4
    assert "give the secret's id instead" in by_name.stderr
    by_number = holder.run("secrets", "access", secret_id, "--version", "1")
    assert by_number.returncode == 4
    assert "give its id, latest or an alias instead" in by_number.stderr
    assert holder.run("secrets", "access", secret_id, "--version", "").returncode == 2


def test_a_history_tells_versions_and_accesses_newest_first(bulkhead: Bulkhead) -> None:
    _create(bulkhead, "stripe", "first")
    bulkhead.run("secrets", "add-version", "stripe", stdin="second")
    bulkhead.ok("secrets", "access", "stripe", "--version", "2")
    events = bulkhead.json("secrets", "history", "stripe")
    assert [(event["what"], event["version_number"]) for event in events] == [
        ("secret_version.access", 2),
        ("secret_version.create", 2),
        ("secret.create", 1),
    ]
    assert len(bulkhead.json("secrets", "history", "stripe", "--limit", "2")) == 2


def test_a_rotation_is_said_step_by_step_and_kept_where_nothing_is_said(
    bulkhead: Bulkhead,
) -> None:
    _create(bulkhead, "hooks", "a-signing-key-of-somebody", "--kind", "webhook_signing")
    nothing = bulkhead.run("secrets", "rotation", "show", "hooks")
    assert nothing.returncode == 3
    assert "next: bulkhead secrets rotation set hooks --rotator" in nothing.stderr
    by_hand = bulkhead.run("secrets", "rotate", "hooks")
    assert by_hand.returncode == 3
    assert "next: bulkhead secrets rotation set hooks --rotator" in by_hand.stderr
    too_often = bulkhead.run("secrets", "rotation", "set", "hooks", "--every", "1m")
    assert too_often.returncode == 2
    assert "--every is from 1h to 366d, and 1m is not." in too_often.stderr
    assert bulkhead.run("secrets", "rotation", "set", "hooks").returncode == 2

    words = ["secrets", "rotation", "set", "hooks"]
    first = bulkhead.json(*words, "--rotator", "webhook_signing_key", "--every", "30d")
    assert (first["interval_seconds"], first["retirement"]) == (2592000, "keep")
    second = bulkhead.json(*words, "--window", "23:00-01:30", "--retire", "disable", "--disable")
    assert second["window"] == {"start_minute": 1380, "minutes": 150}
    assert (second["interval_seconds"], second["enabled"]) == (2592000, False)
    assert "23:00-01:30 UTC" in bulkhead.ok("secrets", "rotation", "show", "hooks")
    assert "every 30d, disabled" in bulkhead.ok("secrets", "get", "hooks")
    third = bulkhead.json(*words, "--window", "always")
    assert third["window"] is None
    bulkhead.ok("secrets", "rotation", "remove", "hooks")
    assert bulkhead.run("secrets", "rotation", "show", "hooks").returncode == 3


def test_a_rotation_is_followed_to_a_new_current_version(bulkhead: Bulkhead) -> None:
    _create(bulkhead, "hooks", "a-signing-key-of-somebody", "--kind", "webhook_signing")
    words = ["secrets", "rotation", "set", "hooks", "--rotator", "webhook_signing_key"]
    bulkhead.ok(*words, "--every", "30d", "--grace", "0")

    rotated = bulkhead.run("secrets", "rotate", "hooks")

    assert rotated.returncode == 0, rotated.stderr
    assert rotated.stdout.startswith("✓ Secret hooks is rotated after ")
    assert "  finish_rotation: completed in " in rotated.stderr
    assert bulkhead.json("secrets", "get", "hooks")["version_aliases"]["current"] == 2
    assert bulkhead.ok("secrets", "access", "hooks").startswith("whsec_")
    assert "Last try     SUCCEEDED, op_" in bulkhead.ok("secrets", "rotation", "show", "hooks")
    previous = bulkhead.ok("secrets", "access", "hooks", "--version", "previous")
    assert previous == "a-signing-key-of-somebody"


def test_a_rotation_that_failed_is_not_shown_as_one_that_never_was(bulkhead: Bulkhead) -> None:
    admin = _create(bulkhead, "admin", "no login")
    _create(bulkhead, "db", "no login either")
    words = ["secrets", "rotation", "set", "db", "--rotator", "postgresql_login", "--every", "30d"]
    users = {"host": "db.example.com", "user_a": "a", "user_b": "b", "admin_secret_id": admin}
    settings = [part for key, value in users.items() for part in ("--setting", f"{key}={value}")]
    assert "Last try" not in bulkhead.ok(*words, *settings)

    assert bulkhead.run("secrets", "rotate", "db").returncode == 7

    shown = bulkhead.ok("secrets", "rotation", "show", "db")
    assert "Last         never" in shown
    assert "Last try     FAILED, op_" in shown


def test_whoever_asked_for_a_purge_does_not_approve_it(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    active = bulkhead.run("secrets", "purge", "request", "stripe", "--yes")
    assert active.returncode == 5
    assert "next: bulkhead secrets delete stripe" in active.stderr
    bulkhead.ok("secrets", "delete", "stripe", "--yes")
    early = bulkhead.run("secrets", "purge", "approve", secret_id, "--yes")
    assert early.returncode == 5
    assert "next: bulkhead secrets purge request stripe" in early.stderr
    assert bulkhead.run("secrets", "purge", "request", secret_id).returncode == 2
    asked = bulkhead.ok("secrets", "purge", "request", secret_id, "--yes")
    assert "next: bulkhead secrets purge approve stripe" in asked
    assert bulkhead.run("secrets", "purge", "approve", secret_id, "--yes").returncode in {4, 5}
    bulkhead.ok("secrets", "restore", secret_id)
    assert bulkhead.ok("secrets", "access", "stripe") == CANARY


def test_a_secret_is_deleted_for_good_only_where_the_policy_allows_it(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    words = ["secrets", "delete", "stripe", "--force", "--yes"]
    assert bulkhead.run(*words).returncode in {4, 5}
    assert "refused" in bulkhead.ok("secrets", "policy", "show")
    assert bulkhead.run("secrets", "policy", "set").returncode == 2
    changed = bulkhead.json("secrets", "policy", "set", "--allow-force")
    assert changed["force_allowed"] is True
    assert bulkhead.json(*words) == {"id": secret_id, "deleted": True}
    assert bulkhead.run("secrets", "access", secret_id).returncode == 3


def test_what_uses_a_secret_is_listed(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    unused = bulkhead.run("secrets", "usage", "stripe")
    assert (unused.stdout, unused.stderr) == ("", "Nothing is registered to use stripe.\n")
    assert bulkhead.json("secrets", "usage", "stripe") == []

    _register(bulkhead, secret_id, "shop", {"acknowledges": True})
    _register(bulkhead, secret_id, "archive", {"version_number": 1})
    shown = bulkhead.ok("secrets", "usage", "stripe").splitlines()
    assert [line.split()[:3] for line in shown] == [
        ["CONSUMER", "NAME", "READS"],
        ["service", "archive", "1"],
        ["service", "shop", "current"],
    ]


def test_a_consumer_is_registered_acknowledges_and_is_removed(bulkhead: Bulkhead) -> None:
    consumers = ("secrets", "consumers")
    _create(bulkhead, "stripe", "first")
    bulkhead.run("secrets", "add-version", "stripe", stdin="second")
    registered = bulkhead.ok(*consumers, "register", "stripe", "service/mailer", "--acknowledges")
    assert "service/mailer uses stripe and follows current." in registered
    pinned = bulkhead.json(*consumers, "register", "stripe", "job/old", "--version", "current")
    assert pinned["version_number"] == 1
    acknowledged = bulkhead.json(*consumers, "acknowledge", "stripe", "service/mailer", "2")
    assert acknowledged["acknowledged_number"] == 2
    listed = bulkhead.json("secrets", "usage", "stripe")
    assert [entry["consumer_id"] for entry in listed] == ["old", "mailer"]
    missing = bulkhead.json("secrets", "usage", "stripe", "--would-miss", "2")
    assert [entry["consumer_id"] for entry in missing] == ["mailer"]
    removed = bulkhead.ok(*consumers, "remove", "stripe", "service/mailer")
    assert "service/mailer is not registered to use stripe any more." in removed
    assert [entry["consumer_id"] for entry in bulkhead.json("secrets", "usage", "stripe")] == [
        "old"
    ]


def test_a_consumer_acknowledges_with_a_token_that_only_reads_values(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    _register(bulkhead, secret_id, "mailer", {"acknowledges": True})
    holder = _as_token(bulkhead, "secrets:access")
    number = holder.json("secrets", "access", secret_id)["version_number"]
    shown = holder.ok(
        "secrets", "consumers", "acknowledge", secret_id, "service/mailer", str(number)
    )
    assert "service/mailer has acknowledged version 1." in shown


def test_a_consumer_that_nobody_knows_leads_to_those_that_are_there(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    consumers = ("secrets", "consumers")
    unknown = bulkhead.run(*consumers, "acknowledge", "stripe", "service/nobody", "current")
    assert unknown.returncode == 3
    assert f"next: bulkhead secrets usage {secret_id}" in unknown.stderr
    misnamed = bulkhead.run(*consumers, "register", "stripe", "mailer")
    assert misnamed.returncode == 2
    assert "such as service/mailer" in misnamed.stderr


def test_every_consumer_is_listed_however_many_there_are(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    consumers = [f"shop-{number:03}" for number in range(PAGE_SIZE + 1)]
    for consumer in consumers:
        _register(bulkhead, secret_id, consumer, {})
    listed = bulkhead.json("secrets", "usage", "stripe")
    assert [entry["consumer_id"] for entry in listed] == consumers


def test_the_quotas_of_a_secret_are_listed_with_the_workspaces(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    _register(bulkhead, secret_id, "shop", {})
    listed = {quota["metric"]: quota for quota in bulkhead.json("quotas", "list")}
    assert "secrets/rotations" in listed
    assert "secrets/versions" not in listed
    of_secret = bulkhead.json("quotas", "list", "--secret", "stripe")
    assert [(quota["metric"], quota["usage"]) for quota in of_secret[len(listed) :]] == [
        ("secrets/versions", 1),
        ("secrets/references", 1),
    ]


def test_what_breaks_is_said_before_it_does(bulkhead: Bulkhead) -> None:
    secret_id = _create(bulkhead, "stripe", CANARY)
    _register(bulkhead, secret_id, "shop", {})
    _register(bulkhead, secret_id, "archive", {"version_number": 1})
    bulkhead.run("secrets", "add-version", "stripe", stdin="second")
    bulkhead.ok("secrets", "update", "stripe", "--alias", "current=2")

    refused = bulkhead.run("secrets", "disable", "stripe", "1")
    assert refused.returncode == 5
    assert "1 consumer would miss version 1 of stripe:" in refused.stderr
    assert "service archive, never used it yet" in refused.stderr
    assert f"next: bulkhead secrets usage {secret_id}" in refused.stderr
    forced = bulkhead.run("secrets", "disable", "stripe", "1", "--force")
    assert forced.returncode == 4
    assert "next: bulkhead secrets policy set --allow-force" in forced.stderr
    bulkhead.ok("secrets", "policy", "set", "--allow-force")
    bulkhead.ok("secrets", "disable", "stripe", "1", "--force")

    kept = bulkhead.run("secrets", "destroy", "stripe", "current", "--yes", "--force")
    assert kept.returncode == 5
    assert "service shop" in kept.stderr
    assert "--alias current=VERSION" in kept.stderr
    assert "2 consumers would miss stripe:" in bulkhead.run("secrets", "delete", "stripe").stderr
