"""Rotation: a new value at the target, proved there, before consumers get it."""

import json
import re
import shlex
from collections.abc import Sequence
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.arguments import pairs_of, seconds_within, span_of
from cli.client import JsonObject, segment
from cli.commands.secrets.group import SecretArgument, active_secret, app, path_of
from cli.errors import ApiError, CliError, ExitCode
from cli.options import NoWaitOption, command
from cli.session import Session
from cli.text import clean, duration, moment
from cli.waiting import see_through

rotation_app = typer.Typer(help="How and when a secret rotates by itself.", no_args_is_help=True)

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_MINUTES_A_DAY = 24 * 60
_ALWAYS = "always"

_HOUR = 3600
_DAY = 24 * _HOUR
_YEAR = 366 * _DAY
# The option, and what the API takes, in seconds.
_SPANS = {
    "interval_seconds": ("--every", _HOUR, _YEAR),
    "jitter_seconds": ("--jitter", 0, _DAY),
    "catch_up_seconds": ("--catch-up", 0, _YEAR),
    "grace_seconds": ("--grace", 0, 30 * _DAY),
}

# What is sent back as it was read, where nothing else is said.
_KEPT = (
    "rotator",
    "settings",
    "interval_seconds",
    "jitter_seconds",
    "window",
    "catch_up_seconds",
    "grace_seconds",
    "retirement",
    "enabled",
)


class Retirement(StrEnum):
    """What becomes of the version that was replaced."""

    KEEP = "keep"
    DISABLE = "disable"
    DESTROY = "destroy"


_RotatorOption = Annotated[
    str | None,
    typer.Option(
        metavar="ROTATOR",
        help="postgresql_login, workspace_api_token, webhook_signing_key, "
        "kubernetes_service_account, https, aws_access_key, gcp_service_account_key or "
        "hetzner_cloud_token.",
    ),
]
_SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Of the rotator: a JSON value or a text; KEY=@FILE takes a file's text. Other "
        "secrets are named by id; a value of a secret does not belong here.",
    ),
]
_EveryOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="From one rotation to the next: 30d.")
]
_JitterOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Up to so much later, by chance.")
]
_WindowOption = Annotated[
    str | None,
    typer.Option(metavar="HH:MM-HH:MM", help="Begin only then, in UTC; or: always."),
]
_CatchUpOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="How late a missed rotation still begins; unset: as --every."
    ),
]
_GraceOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="How long a rotation waits for consumers that acknowledge; unset: 1d."
    ),
]
_RetireOption = Annotated[Retirement | None, typer.Option(help="What becomes of the old version.")]
_EnabledOption = Annotated[
    bool | None, typer.Option("--enable/--disable", help="Whether it rotates by itself.")
]


@command(
    app,
    "rotate",
    examples=("bulkhead secrets rotate db-login", "bulkhead secrets rotate db-login --no-wait"),
)
def rotate_secret(
    session: Session,
    secret: SecretArgument,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Rotate a secret now, and show each step.

    The new value is tried at the target before `current` names it; if that fails, the old value
    stays. Ctrl-C stops the watching only.
    """
    found = active_secret(session, secret)
    name = clean(found["name"])
    try:
        operation = session.client.create(f"{path_of(found)}:rotate", {})
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise _rotates_not(found) from error
        raise
    ended = see_through(session, operation, subject=name, no_wait=no_wait)
    if ended is not None:
        took = duration(ended.elapsed_seconds)
        session.output.say(("✓ ", "green"), f"Secret {name} is rotated after {took}.")
        session.output.next_commands(f"bulkhead secrets versions {shlex.quote(name)}")


@command(rotation_app, "get", examples=("bulkhead secrets rotation get db-login",))
@command(rotation_app, "show", examples=("bulkhead secrets rotation show db-login",))
def show_rotation(session: Session, secret: SecretArgument) -> None:
    """Show how and when a secret rotates."""
    found = active_secret(session, secret)
    rotation = rotation_of(session, found)
    if rotation is None:
        raise _rotates_not(found)
    _show(session, rotation)


@command(
    rotation_app,
    "set",
    examples=(
        "bulkhead secrets rotation set hooks --rotator webhook_signing_key --every 90d",
        "bulkhead secrets rotation set db-login --window 02:00-04:00 --retire disable",
        "bulkhead secrets rotation set db-login --disable",
    ),
)
def set_rotation(
    session: Session,
    secret: SecretArgument,
    rotator: _RotatorOption = None,
    setting: _SettingOption = None,
    every: _EveryOption = None,
    jitter: _JitterOption = None,
    window: _WindowOption = None,
    catch_up: _CatchUpOption = None,
    grace: _GraceOption = None,
    retire: _RetireOption = None,
    enabled: _EnabledOption = None,
) -> None:
    """Say how and when a secret rotates. What is not mentioned stays as it is."""
    given = (every, jitter, catch_up, grace)
    changes: JsonObject = {
        field: seconds_within(text, *bounds)
        for (field, bounds), text in zip(_SPANS.items(), given, strict=True)
        if text is not None
    }
    plain = {"rotator": rotator, "retirement": retire, "enabled": enabled}
    changes |= {field: value for field, value in plain.items() if value is not None}
    found = active_secret(session, secret)
    before = rotation_of(session, found)
    wanted = _changed(before, changes, setting or (), window)
    if "rotator" not in wanted or "interval_seconds" not in wanted:
        message = f"{clean(found['name'])} does not rotate yet: give --rotator and --every."
        raise CliError(message, ExitCode.USAGE)
    etag = (before or {}).get("etag")
    path = f"{path_of(found)}/rotation"
    _show(session, session.client.change("PUT", path, etag=etag, body=wanted))


def _changed(
    before: JsonObject | None, changes: JsonObject, settings: Sequence[str], window: str | None
) -> JsonObject:
    """Return a rotation as it is wanted, whole: the API replaces all of it."""
    wanted: JsonObject = {field: before[field] for field in _KEPT} if before else {}
    if changes.get("rotator") not in {None, wanted.get("rotator")}:
        # Settings of another rotator mean nothing to this one.
        wanted.pop("settings", None)
    wanted |= changes
    if settings:
        wanted["settings"] = wanted.get("settings", {}) | _settings(settings)
    if window is not None:
        wanted["window"] = _window(window)
    return wanted


@command(rotation_app, "remove", examples=("bulkhead secrets rotation remove db-login",))
def remove_rotation(session: Session, secret: SecretArgument) -> None:
    """Let a secret rotate no more. Its versions stay as they are."""
    found = active_secret(session, secret)
    rotation = rotation_of(session, found)
    if rotation is None:
        raise _rotates_not(found)
    session.client.change("DELETE", f"{path_of(found)}/rotation", etag=rotation["etag"])
    if session.output.as_json:
        session.output.data({"secret_id": found["id"], "removed": True})
    else:
        session.output.say(("✓ ", "green"), f"Secret {clean(found['name'])} rotates no more.")


def rotation_of(session: Session, secret: JsonObject) -> JsonObject | None:
    """Return how a secret rotates; None: it does not."""
    try:
        return session.client.get(f"{path_of(secret)}/rotation")
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise


def _rotates_not(secret: JsonObject) -> CliError:
    name = clean(secret["name"])
    say_how = f"bulkhead secrets rotation set {shlex.quote(name)} --rotator ROTATOR --every 30d"
    message = f"Secret {name} does not rotate."
    return CliError(message, ExitCode.NOT_FOUND, next_commands=(say_how,))


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    return {key: _setting(text) for key, text in pairs_of(texts, "--setting").items()}


def _setting(text: str) -> object:
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"Cannot read {text[1:]}: {error}."
            raise CliError(message, ExitCode.USAGE) from error
    try:
        return json.loads(text)
    except ValueError:
        return text


def _window(text: str) -> JsonObject | None:
    if text == _ALWAYS:
        return None
    match = _WINDOW.fullmatch(text)
    if match is None:
        message = f"{text!r} is no window: write it like 22:00-04:30, in UTC, or: always."
        raise CliError(message, ExitCode.USAGE)
    hours_from, from_, hours_to, to = (int(part) for part in match.groups())
    start = hours_from * 60 + from_
    # A window may reach over midnight; one that ends when it begins is a whole day.
    length = (hours_to * 60 + to - start) % _MINUTES_A_DAY or _MINUTES_A_DAY
    return {"start_minute": start, "minutes": length}


def _window_text(window: JsonObject | None) -> str:
    if window is None:
        return _ALWAYS
    start = window["start_minute"]
    end = (start + window["minutes"]) % _MINUTES_A_DAY
    return f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02} UTC"


def _last_try(session: Session, rotation: JsonObject) -> str | None:
    """Return how the newest rotation ended, which may have failed; its operation says why."""
    operation_id = rotation.get("last_operation_id")
    if operation_id is None or session.output.as_json:
        return None
    operation = session.client.get(f"/operations/{segment(operation_id)}")
    return f"{operation['state']}, {operation['id']}"


def _show(session: Session, rotation: JsonObject) -> None:
    settings = ", ".join(
        f"{key}={json.dumps(value)}" for key, value in sorted(rotation["settings"].items())
    )
    session.output.fields(
        rotation,
        (
            ("Rotator", rotation["rotator"]),
            ("Settings", settings or None),
            ("Every", span_of(rotation["interval_seconds"])),
            ("Jitter", span_of(rotation["jitter_seconds"])),
            ("Window", _window_text(rotation.get("window"))),
            ("Catch-up", span_of(rotation["catch_up_seconds"])),
            ("Grace", span_of(rotation["grace_seconds"])),
            ("Old version", rotation["retirement"]),
            ("Enabled", "yes" if rotation["enabled"] else "no"),
            ("Next", moment(rotation.get("next_rotation_at"))),
            ("Last", moment(rotation.get("last_rotated_at"), missing="never")),
            ("Last try", _last_try(session, rotation)),
        ),
    )
