"""When and by whom an install may be moved: holds, windows, automatic updates."""

import re
import shlex
import time
from typing import Annotated, Literal

import typer

from cli.arguments import pairs_of, seconds_of
from cli.client import JsonObject
from cli.commands.installs.group import (
    InstallArgument,
    app,
    ask,
    install_called,
    path_of,
    typed_name,
)
from cli.errors import CliError, ExitCode
from cli.options import command
from cli.session import Session
from cli.text import clean, moment

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d"
_WINDOW = re.compile(
    rf"(?P<days>daily|[a-z,-]+) (?P<start>{_CLOCK})-(?P<end>{_CLOCK}) "
    r"(?P<timezone>[A-Za-z0-9/_+-]+)"
)


@command(
    app,
    "hold",
    examples=(
        "bulkhead installs hold shop-eu --reason 'Sale until Sunday'",
        "bulkhead installs hold shop-eu --reason 'Migration' --for 12h",
    ),
)
def hold_install(
    session: Session,
    install: InstallArgument,
    reason: Annotated[str, typer.Option(help="Why, as your colleagues read it.")],
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="By default until it is released.")
    ] = None,
) -> None:
    """Keep rollouts and automatic updates away from an install; what runs already ends."""
    found = install_called(session, install)
    body: JsonObject = {"reason": reason}
    if lasting is not None:
        body["until"] = int(time.time()) + seconds_of(lasting, "--for", "12h")
    changed = session.client.change("POST", f"{path_of(found)}:hold", body=body)
    if session.output.as_json:
        session.output.data(changed)
        return
    name = typed_name(found)
    until = f" until {moment(body['until'])}" if "until" in body else ""
    session.output.say(("✓ ", "green"), f"{name} is held{until}: no rollout moves it.")
    session.output.next_commands(f"bulkhead installs release {shlex.quote(name)}")


@command(app, "release", examples=("bulkhead installs release shop-eu",))
def release_install(session: Session, install: InstallArgument) -> None:
    """End a hold; rollouts that wait for the install go on with it."""
    found = install_called(session, install)
    changed = session.client.change("POST", f"{path_of(found)}:release_hold")
    if session.output.as_json:
        session.output.data(changed)
    else:
        session.output.say(("✓ ", "green"), f"{typed_name(found)} may be moved again.")


@command(
    app,
    "auto-update",
    examples=(
        "bulkhead installs auto-update shop-eu on --channel stable",
        "bulkhead installs auto-update shop-eu --window 'mon-fri 22:00-04:00 Europe/Berlin'",
        "bulkhead installs auto-update shop-eu --pin 1.4.0",
        "bulkhead installs auto-update shop-eu off --any-time --no-pin",
    ),
)
def set_automatic_updates(
    session: Session,
    install: InstallArgument,
    switch: Annotated[
        Literal["on", "off"] | None,
        typer.Argument(metavar="on|off", help="Whether new versions come by themselves."),
    ] = None,
    channel: Annotated[
        Literal["stable", "edge"] | None, typer.Option(help="Releases, or pre-releases too.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="'DAYS HH:MM-HH:MM ZONE'",
            help="When rollouts and automatic updates may move it: daily, mon-fri or mon,wed.",
        ),
    ] = None,
    any_time: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--any-time", help="They may at any time.")
    ] = False,
    pin: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Nothing but this version comes.")
    ] = None,
    no_pin: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--no-pin", help="Any version of its channel may come.")
    ] = False,
) -> None:
    """Say when an install is moved by itself and by rollouts; without options, show it."""
    if (window is not None and any_time) or (pin is not None and no_pin):
        message = "Give --window or --any-time, and --pin or --no-pin, not both."
        raise CliError(message, ExitCode.USAGE)
    found = install_called(session, install)
    body: JsonObject = {}
    if channel is not None:
        body["channel"] = channel
    if window is not None or any_time:
        body["update_window"] = None if window is None else window_of(window)
    if pin is not None or no_pin:
        body["pinned_semver"] = None if pin is None else pin.removeprefix("v")
    if body:
        found = session.client.change("PATCH", path_of(found), etag=found["etag"], body=body)
    if switch is not None:
        wanted = {"automatic_updates_enabled": switch == "on"}
        ask(session, found, "PATCH", "/automatic_updates", wanted)
        found = session.client.get(path_of(found))
    _show(session, found)


@command(app, "label", examples=("bulkhead installs label shop-eu tier=gold name=shop-eu-1",))
def label_install(
    session: Session,
    install: InstallArgument,
    labels: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="KEY= alone takes the label away.")
    ],
) -> None:
    """Set labels, by which rollouts choose installs; `name` is what to call it here."""
    found = install_called(session, install)
    given = pairs_of(labels, "label")
    whole = {**found["labels"], **given}
    body = {"labels": {key: value for key, value in whole.items() if value}}
    changed = session.client.change("PATCH", path_of(found), etag=found["etag"], body=body)
    if session.output.as_json:
        session.output.data(changed)
        return
    shown = ", ".join(
        f"{clean(key)}={clean(value)}" for key, value in sorted(body["labels"].items())
    )
    session.output.say(("✓ ", "green"), f"Labels: {shown or 'none'}")


def window_of(text: str) -> JsonObject:
    """Return the window that a text such as `mon-fri 22:00-04:00 Europe/Berlin` names.

    Raises:
        CliError: it is written in another way.
    """
    match = _WINDOW.fullmatch(" ".join(text.split()))
    days = None if match is None else _days_of(match["days"])
    if match is None or not days:
        message = (
            f"{text!r} is no window: write days, times and a time zone, such as "
            "'mon-fri 22:00-04:00 Europe/Berlin' or 'daily 01:00-05:00 UTC'."
        )
        raise CliError(message, ExitCode.USAGE)
    return {
        "timezone": match["timezone"],
        "days": days,
        "start": match["start"],
        "end": match["end"],
    }


def _days_of(text: str) -> list[str] | None:
    if text == "daily":
        return list(_DAYS)
    days: set[str] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            return None
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        # Behind Sunday the week begins anew: fri-mon are four days.
        days |= {_DAYS[number % 7] for number in range(begin, end + (1 if begin <= end else 8))}
    return [day for day in _DAYS if day in days]


def _show(session: Session, install: JsonObject) -> None:
    window = install.get("update_window")
    days = "" if window is None else ", ".join(window["days"])
    session.output.fields(
        install,
        (
            ("Install", typed_name(install)),
            ("By itself", "on" if install.get("automatic_updates_enabled") else "off"),
            ("Channel", install["channel"]),
            ("Pinned to", install.get("pinned_semver")),
            (
                "Window",
                "at any time"
                if window is None
                else f"{window['start']} to {window['end']} on {days} ({window['timezone']})",
            ),
        ),
    )
