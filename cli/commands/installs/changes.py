"""Installs made, moved to other versions and values, restored and removed."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import pairs_of
from cli.client import JsonObject
from cli.commands.installs.group import (
    InstallArgument,
    app,
    ask,
    install_called,
    operation_of,
    path_of,
    render_before,
    typed_name,
)
from cli.commands.installs.options import (
    ChannelOption,
    ClusterOption,
    ConsentOption,
    LabelOption,
    PackageOption,
    ProductArgument,
    RegionOption,
    SecretOption,
    SetOption,
    ValuesOption,
    VersionOption,
)
from cli.commands.installs.secret_uses import explaining_secrets, secret_id_called
from cli.commands.packages import version_of
from cli.confirmation import confirm_by_name
from cli.documents import merged, values_of
from cli.errors import CliError, ExitCode
from cli.names import title_of
from cli.options import NoWaitOption, YesOption, command
from cli.progress import OperationProgress
from cli.session import (
    CLUSTER,
    PACKAGE,
    PACKAGE_VERSION,
    PRODUCT,
    REGION,
    Session,
    is_id,
)
from cli.text import clean, duration
from cli.waiting import see_through


@command(
    app,
    "create",
    examples=(
        "bulkhead installs create shop --cluster demo --set web.replicas=2",
        "bulkhead installs create shop --cluster demo --label name=shop-eu --values shop.yaml",
        "bulkhead installs create shop --cluster demo --secret database.password=db-password",
        "bulkhead installs create --package shop --version 1.4.0 --cluster demo",
    ),
)
def create_install(
    session: Session,
    product: ProductArgument = None,
    cluster: ClusterOption = None,
    region: RegionOption = None,
    package: PackageOption = None,
    version: VersionOption = None,
    settings: SetOption = None,
    values: ValuesOption = None,
    secret: SecretOption = None,
    label: LabelOption = None,
    channel: ChannelOption = None,
    consent: ConsentOption = None,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Install a product, or a package of yours, on a cluster, and wait until it is healthy.

    If the chart has objects of the whole cluster, such as custom resource definitions, it waits
    until its plan was looked at and approved.
    """
    body = _what(session, product, package, version) | _where(session, cluster, region)
    given = _values(session, values, settings, secret)
    said = {
        "initial_values": given,
        "labels": pairs_of(label or (), "--label"),
        "channel": channel,
        "grant": consent and {"consent": consent},
    }
    body |= {key: value for key, value in said.items() if value}
    with explaining_secrets(session, given, None):
        operation = session.client.create("/installs", body)
    subject = _subject(body, product or package or "", cluster or region or "")
    ended = see_through(session, operation, subject=subject, no_wait=no_wait)
    if ended is not None:
        _tell_installed(session, body, subject, ended)


def _tell_installed(
    session: Session, body: JsonObject, subject: str, ended: OperationProgress
) -> None:
    took = duration(ended.elapsed_seconds)
    session.output.say(("✓ ", "green"), f"{subject} is installed and healthy after {took}.")
    install_id = clean(ended.operation["owner_id"])
    typed = shlex.quote((body.get("labels") or {}).get("name") or install_id)
    session.output.say(("  id: ", "dim"), install_id, copied=True)
    session.output.next_commands(
        f"bulkhead installs status {typed}", f"bulkhead installs pods {typed}"
    )


@command(
    app,
    "update",
    examples=(
        "bulkhead installs update shop-eu --version 1.5.0",
        "bulkhead installs update shop-eu --set web.replicas=4",
        "bulkhead installs update shop-eu --version 1.5.0 --values shop.yaml --replace-values",
    ),
)
def update_install(
    session: Session,
    install: InstallArgument,
    positional: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="The same as --version.")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--version", metavar="VERSION", help="Of the package: a semantic version, or its id."
        ),
    ] = None,
    settings: SetOption = None,
    values: ValuesOption = None,
    secret: SecretOption = None,
    replace_values: Annotated[  # noqa: FBT002 - Typer's flags are boolean parameters
        bool, typer.Option("--replace-values", help="Keep none of the values that it has.")
    ] = False,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Move an install to another version, other values, or both; other values stay.

    A failure takes it back to the last render that was good.
    """
    given = _values(session, values, settings, secret)
    if version is not None and positional is not None:
        message = "Give one version, with --version."
        raise CliError(message, ExitCode.USAGE)
    version = version or positional
    if version is None and not given and not replace_values:
        message = "Nothing to change: give a version or values."
        raise CliError(message, ExitCode.USAGE)
    found = install_called(session, install)
    title = title_of(session, found)
    wanted = None if version is None else _version_id(session, found, version)
    changes_values = bool(given) or replace_values
    if changes_values:
        found = _with_values(session, found, given, replace=replace_values)
    held, name = found.get("values") or {}, typed_name(found)
    with explaining_secrets(session, held, name, kept=changes_values):
        if wanted is None:
            answer = session.client.create(f"{path_of(found)}/renders", {})
        else:
            answer = ask(session, found, "POST", ":update", {"package_version_id": wanted})
    _see(session, answer, title, name, "is updated", no_wait=no_wait)


@command(
    app,
    "restore",
    examples=("bulkhead installs restore shop-eu", "bulkhead installs restore shop-eu rnd_0199..."),
)
def restore_install(
    session: Session,
    install: InstallArgument,
    render: Annotated[
        str | None,
        typer.Argument(
            metavar="RENDER", help="Of `bulkhead installs renders`; by default the one before."
        ),
    ] = None,
    no_wait: NoWaitOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
) -> None:
    """Apply an earlier render once more, exactly as it was."""
    found = install_called(session, install)
    title = title_of(session, found)
    chosen = render or render_before(session, found)
    answer = ask(session, found, "POST", ":restore", {"render_id": chosen})
    _see(session, answer, title, typed_name(found), "is restored", no_wait=no_wait)


@command(app, "delete", examples=("bulkhead installs delete shop-eu --yes",))
def delete_install(
    session: Session,
    install: InstallArgument,
    yes: YesOption = False,  # noqa: FBT002 - Typer's flags are boolean parameters
    no_wait: NoWaitOption = False,  # noqa: FBT002 - the same
) -> None:
    """Remove an install with everything that it has on its cluster, data included."""
    found = install_called(session, install)
    title, name = title_of(session, found), typed_name(found)
    if not yes:
        effect = (
            f"This removes {title}: its namespace, its volumes, the Kubernetes Secrets that were "
            "written for it, and every render. Secrets of the workspace stay."
        )
        confirm_by_name(session, name, doing="deleting", effect=effect, done="deleted")
    operation = ask(session, found, "DELETE", "")
    if see_through(session, operation, subject=title, no_wait=no_wait) is not None:
        session.output.say(("✓ ", "green"), f"{title} is removed, and nothing of it is left.")


def _with_values(
    session: Session, install: JsonObject, given: JsonObject, *, replace: bool
) -> JsonObject:
    """Give an install values, which the next render takes; return it."""
    whole = given if replace else merged(install.get("values") or {}, given)
    with explaining_secrets(session, whole, typed_name(install)):
        return session.client.change(
            "PATCH", path_of(install), etag=install["etag"], body={"values": whole}
        )


def _values(
    session: Session,
    files: list[Path] | None,
    settings: list[str] | None,
    secrets: list[str] | None,
) -> JsonObject:
    find = partial(secret_id_called, session)
    return values_of(files or (), settings or (), secrets or (), find)


def _what(
    session: Session, product: str | None, package: str | None, version: str | None
) -> JsonObject:
    if (product is None) == (package is None):
        message = "Say what to install: a product, or --package PACKAGE."
        raise CliError(message, ExitCode.USAGE, next_commands=("bulkhead products list",))
    if product is not None:
        if version is not None:
            message = "A product decides its version; --version goes with --package."
            raise CliError(message, ExitCode.USAGE)
        return {"product_id": session.id_of(PRODUCT, product)}
    assert package is not None  # noqa: S101 - looked at above
    package_id = session.id_of(PACKAGE, package)
    pin: JsonObject = {"kind": "latest"}
    if version is not None:
        if is_id(PACKAGE_VERSION, version):
            version = str(version_of(session, package_id, version)["semver"])
        pin = {"kind": "pinned", "version": version.removeprefix("v")}
    return {"package_id": package_id, "package_version_pin": pin}


def _where(session: Session, cluster: str | None, region: str | None) -> JsonObject:
    if cluster is not None:
        found = session.resource(CLUSTER, cluster)
        return {"cluster_id": found["id"], "region_id": found["region_id"]}
    if region is None:
        message = "Say where to install: --cluster CLUSTER, or --region REGION for any of it."
        raise CliError(message, ExitCode.USAGE, next_commands=("bulkhead clusters list",))
    return {"region_id": session.id_of(REGION, region)}


def _subject(body: JsonObject, what: str, where: str) -> str:
    named = (body.get("labels") or {}).get("name")
    return clean(named or f"{what} on {where}")


def _version_id(session: Session, install: JsonObject, version: str) -> str:
    if is_id(PACKAGE_VERSION, version):
        return version
    if not install.get("package_id"):
        message = "This install is another workspace's; a rollout moves it."
        move = f"bulkhead rollouts create PRODUCT VERSION --install {install['id']}"
        raise CliError(message, ExitCode.CONFLICT, next_commands=(move,))
    return str(version_of(session, install["package_id"], version)["id"])


def _see(
    session: Session, answer: JsonObject, title: str, typed: str, done: str, *, no_wait: bool
) -> None:
    operation = operation_of(session, answer)
    if operation is None:
        if session.output.as_json:
            session.output.data(answer)
        else:
            session.output.say("Nothing had to be done.")
        return
    ended = see_through(session, operation, subject=title, no_wait=no_wait)
    if ended is None:
        return
    took = duration(ended.elapsed_seconds)
    if (ended.operation.get("response") or {}).get("skipped"):
        session.output.say(("✓ ", "green"), f"{title} is as it was: it renders to the same.")
    else:
        session.output.say(("✓ ", "green"), f"{title} {done}, and healthy, after {took}.")
    session.output.next_commands(f"bulkhead installs status {shlex.quote(typed)}")
