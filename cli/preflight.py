"""What a provider says about machines before they are made: price, capacity, allowance."""

import shlex
from collections.abc import Sequence

from cli.client import ApiClient, JsonObject, RetryPolicy, segment
from cli.errors import CliError, ExitCode
from cli.output import Column, plain_table
from cli.session import COMPUTE_CONFIG, Session
from cli.text import clean, plural

_HOURS_A_MONTH = 730

_COLUMNS = (
    Column("TRY", "order", right=True),
    Column("PLACE", "place"),
    Column("TYPE", "instance_type"),
    Column("OFFERED", "offered"),
    Column("AN HOUR", "hour", right=True),
    Column("A MONTH", "month", right=True),
)


def fallbacks_of(texts: Sequence[str]) -> list[JsonObject]:
    """Return what `PLACE[:TYPE]` options say, in their order.

    Raises:
        CliError: one of them names neither a place nor a type.
    """
    fallbacks = []
    for text in texts:
        place, _, instance_type = text.partition(":")
        if not place and not instance_type:
            message = "--fallback takes PLACE, PLACE:TYPE or :TYPE."
            raise CliError(message, ExitCode.USAGE)
        one: JsonObject = {"region": place} if place else {}
        if instance_type:
            one["instance_type"] = instance_type
        fallbacks.append(one)
    return fallbacks


def price_text(price: float | None, currency: str | None, hours: int = 1) -> str:
    """Return a price for so many hours; a provider that does not tell has none."""
    if price is None:
        return "not told"
    digits = 4 if hours == 1 else 2
    return f"{price * hours:.{digits}f} {clean(currency)}".rstrip()


def preflight(client: ApiClient, config: JsonObject, wanted: JsonObject) -> JsonObject:
    """Ask the provider what machines of this shape would cost, and whether there are any.

    Args:
        client: the API, in the workspace of the config.
        config: the compute config.
        wanted: `instance_type`, `count` and `fallbacks`, as a machine's create takes them.

    Raises:
        CliError: the credential, the place or the type is refused, or nobody answers.
    """
    path = f"/compute_configs/{segment(config['id'])}:preflight"
    # Asking changes nothing, so that it needs no key and can be asked again.
    return client.create(path, wanted, once=False)


def instance_types(client: ApiClient, config: JsonObject) -> list[JsonObject]:
    """Return the sizes of machines that the provider has in the config's place.

    Raises:
        CliError: the credential is refused, or nobody answers.
    """
    path = f"/compute_configs/{segment(config['id'])}/instance_types"
    # A provider that does not answer is waited for in the platform already.
    answer = client.get(path, retry=RetryPolicy(attempts=2))
    return list(answer["data"])


def check_before_create(session: Session, config: JsonObject, wanted: JsonObject) -> JsonObject:
    """Ask the provider about what is wanted, tell a person the answer, and return it.

    Raises:
        CliError: the credential, the place or the type is refused, or none of the choices is
            offered. Nothing was created. A provider that cannot be asked now stops nothing.
    """
    output = session.output
    try:
        answer = preflight(session.client, config, wanted)
    except CliError as failure:
        if failure.exit_code is not ExitCode.UNAVAILABLE:
            raise
        output.warn(f"Price and allowance are not known now: {failure.message}")
        return {}
    if output.shows_progress and not output.as_json:
        _show(session, config, answer, int(wanted["count"]))
    choices = answer.get("choices") or []
    if choices and not any(choice.get("available") for choice in choices):
        raise _none_offered(config, choices)
    return answer


def show_unknown_prices(session: Session, entries: Sequence[JsonObject]) -> None:
    """Say once why there is no price of sizes that are shown."""
    for problem in dict.fromkeys(clean(entry.get("price_unknown")) for entry in entries):
        if problem:
            session.output.note((f"No price: {problem}", "dim"))


def first_machines(session: Session, text: str) -> JsonObject:
    """Return what the API takes for machines of one shape, once the provider was asked about them.

    Raises:
        CliError: the text says no shape, or the provider has none of it: nothing was created.
    """
    config, _, rest = text.partition(":")
    instance_type, _, count = rest.partition(":")
    if not config or not instance_type or not (count or "1").isdecimal():
        message = f"--machines takes CONFIG:TYPE or CONFIG:TYPE:COUNT, and {text!r} is neither."
        raise CliError(message, ExitCode.USAGE)
    found = session.resource(COMPUTE_CONFIG, config)
    wanted: JsonObject = {"instance_type": instance_type, "count": int(count or "1")}
    check_before_create(session, found, wanted)
    return {**wanted, "compute_config_id": found["id"]}


def check_limit_of_cluster(session: Session, cluster: JsonObject, count: int) -> None:
    """See that a cluster may have so many machines more.

    Raises:
        CliError: it may not.
    """
    settings = session.client.get(f"/clusters/{segment(cluster['id'])}/compute_settings")
    used, limit = int(settings["machines"]), int(settings["max_machines"])
    if used + count <= limit:
        return
    name = clean(cluster["name"])
    message = (
        f"Cluster {name} may have {plural(limit, 'machine')} in clouds and has {used}: "
        f"{count} more would be refused."
    )
    raise CliError(
        message,
        ExitCode.CONFLICT,
        next_commands=(
            f"bulkhead clusters compute-settings {shlex.quote(name)} --max-machines {used + count}",
        ),
    )


def _none_offered(config: JsonObject, choices: Sequence[JsonObject]) -> CliError:
    types = f"bulkhead compute-configs types {shlex.quote(clean(config['name']))}"
    provider = clean(config["provider"])
    if not any(choice.get("known", True) for choice in choices):
        names = ", ".join(sorted({clean(choice["instance_type"]) for choice in choices}))
        message = f"{provider} has no type {names} there: nothing was created."
        return CliError(message, ExitCode.USAGE, next_commands=(types,))
    message = (
        f"{provider} offers none of these now: nothing was created. Give "
        "another type, or places to fall back to (--fallback)."
    )
    return CliError(message, ExitCode.UNAVAILABLE, next_commands=(types,))


def _show(session: Session, config: JsonObject, answer: JsonObject, count: int) -> None:
    choices = answer.get("choices") or []
    output = session.output
    output.note((f"{plural(count, 'machine')} at {clean(config['provider'])}:", "bold"))
    for line in _lines(choices, count):
        output.note(line, copied=True)
    show_unknown_prices(session, choices)
    output.note(*_allowance(answer.get("allowance") or {}, count))


def _allowance(allowance: JsonObject, count: int) -> tuple[tuple[str, str], ...]:
    machines, cpus = allowance.get("machines_left"), allowance.get("cpus_left")
    if machines is not None and machines < count:
        told = f"The account may have {plural(machines, 'more machine')}; {count} are asked for."
        return ((told, "yellow"),)
    left = [
        plural(number, f"more {noun}")
        for number, noun in ((machines, "machine"), (cpus, "virtual CPU"))
        if number is not None
    ]
    if not left:
        return (("The provider does not tell how many more the account may have.", "dim"),)
    return ((f"The account may have {' and '.join(left)}.", "dim"),)


def _lines(choices: Sequence[JsonObject], count: int) -> list[str]:
    """Return the choices as an aligned table: beside the result, so that a pipe gets none."""
    rows = [
        {
            **choice,
            "order": str(number),
            "offered": _offered(choice),
            "hour": _times(choice, count, 1),
            "month": _times(choice, count, _HOURS_A_MONTH),
        }
        for number, choice in enumerate(choices, start=1)
    ]
    return [f"  {line}" for line in plain_table(rows, _COLUMNS).splitlines()]


def _offered(choice: JsonObject) -> str:
    if not choice.get("known", True):
        return "no such type"
    return "yes" if choice.get("available") else "none left"


def _times(choice: JsonObject, count: int, hours: int) -> str:
    price = choice.get("price_per_hour")
    return price_text(None if price is None else price * count, choice.get("currency"), hours)
