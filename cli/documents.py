"""YAML and JSON that people hand over in files or as `PATH=VALUE`."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from cli.client import JsonObject
from cli.errors import CliError, ExitCode

# As much as a request of the API may hold.
_MAXIMUM_BYTES = 1024 * 1024

_STEP = re.compile(r"(?P<key>[^\[\].]+)(?P<indexes>(?:\[[0-9]{1,4}\])*)")
_INDEX = re.compile(r"\[([0-9]+)\]")


def document_in(file: Path) -> JsonObject:
    """Return the mapping that a YAML or JSON file has.

    Raises:
        CliError: it cannot be read, or is something else.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAXIMUM_BYTES + 1)
    except OSError as error:
        message = f"Cannot read {file}: {error.strerror or error}."
        raise CliError(message, ExitCode.USAGE) from error
    if len(data) > _MAXIMUM_BYTES:
        message = f"{file} is longer than {_MAXIMUM_BYTES} bytes."
        raise CliError(message, ExitCode.USAGE)
    try:
        found = yaml.safe_load(data)
        json.dumps(found)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        message = f"{file} is neither YAML nor JSON that could be sent{where}."
        raise CliError(message, ExitCode.USAGE) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        message = f"{file} has to be a mapping of names to values."
        raise CliError(message, ExitCode.USAGE)
    return found


def merged(base: JsonObject, over: JsonObject) -> JsonObject:
    """Return a mapping in which what `over` has replaces or, for mappings, joins what was there."""
    result = dict(base)
    for key, value in over.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            value = merged(before, value)  # noqa: PLW2901 - what is put there
        result[key] = value
    return result


def values_of(
    files: Iterable[Path],
    settings: Iterable[str],
    secrets: Iterable[str],
    secret_id_of: Callable[[str], str],
) -> JsonObject:
    """Return the values that a command line gives: files in order, then single ones, then secrets.

    Args:
        files: YAML or JSON.
        settings: `path.to.key=VALUE`; what is JSON is read as such, so that 3 is a number.
        secrets: `path.to.key=SECRET[:alias[:key]]`.
        secret_id_of: finds a secret by its name or id; what it raises repeats nothing of a name
            that is none.

    Raises:
        CliError: one of them is written in another way.
    """
    values: JsonObject = {}
    for file in files:
        values = merged(values, document_in(file))
    for text in settings:
        path, value = _pair(text, "--set", "replicas=3")
        _put(values, path, _scalar(value))
    for text in secrets:
        path, reference = _pair(text, "--secret", "database.password=SECRET:current")
        _put(values, path, {"$secret": _reference(reference, secret_id_of)})
    return values


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not path or not equals:
        # Not repeated: what was typed may be a value that is secret.
        message = f"{option} takes PATH=VALUE, for example {option} {example}."
        raise CliError(message, ExitCode.USAGE)
    return path, value


def _reference(text: str, secret_id_of: Callable[[str], str]) -> JsonObject:
    name, *rest = text.split(":")
    if not name or len(rest) > 2:  # noqa: PLR2004 - alias and key
        raise no_secret()
    reference: JsonObject = {"id": secret_id_of(name)}
    reference |= dict(zip(("alias", "key"), (part for part in rest if part), strict=False))
    return reference


def no_secret() -> CliError:
    """Return the failure of a `--secret` that names none; it repeats nothing, as it may be one."""
    message = (
        "--secret takes PATH=SECRET, PATH=SECRET:ALIAS or PATH=SECRET:ALIAS:KEY, where SECRET is "
        "the name or id of one secret of the workspace. Never the value: if this was one, it is "
        "now in your shell's history; remove it there."
    )
    return CliError(message, ExitCode.USAGE, next_commands=("bulkhead secrets list",))


def _scalar(text: str) -> Any:  # noqa: ANN401 - whatever JSON makes of it
    """Return what JSON makes of a text, and the text itself where that would lose something.

    A tag such as 1.10 stays a text, and so does what is no JSON.
    """
    try:
        found = json.loads(text)
    except ValueError:
        return text
    is_changed = isinstance(found, float) and str(found) != text
    return text if is_changed else found


def _put(values: JsonObject, path: str, value: object) -> None:
    """Set what a path such as `web.env[0].name` names; what is missing on the way is made."""
    steps: list[str | int] = []
    for part in path.split("."):
        match = _STEP.fullmatch(part)
        if match is None:
            message = f"{path!r} is no path: write names with dots between them, and [0] for lists."
            raise CliError(message, ExitCode.USAGE)
        steps.append(match["key"])
        steps += [int(index) for index in _INDEX.findall(match["indexes"])]
    place: Any = values
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        fresh = value if following is None else ([] if isinstance(following, int) else {})
        place = _step_into(place, step, fresh, path, replace=following is None)


def _step_into(
    place: Any,  # noqa: ANN401 - a mapping or a list
    step: str | int,
    fresh: object,
    path: str,
    *,
    replace: bool,
) -> Any:  # noqa: ANN401 - the same, or what was set
    if isinstance(step, int):
        fits = isinstance(place, list) and step <= len(place)
        missing = fits and step == len(place)
    else:
        fits = isinstance(place, dict)
        missing = fits and step not in place
    if not fits:
        message = f"{path!r} does not fit what is there: lists are filled from [0] on."
        raise CliError(message, ExitCode.USAGE)
    if missing and isinstance(place, list):
        place.append(fresh)
    elif missing or replace or not isinstance(place[step], type(fresh)):
        place[step] = fresh
    return place[step]
