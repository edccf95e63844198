"""YAML as Helm and Kubernetes read it, which is not quite as Python does.

Their parser takes `y` and `on` for booleans and `1e3` for a number, and leaves dates and `12:30` as
text. What is read here is JSON: only strings as keys, whole numbers as integers.
"""

import math
import re
from typing import Any, Final

import yaml

from domain.errors import BulkheadError, Reason
from domain.json_document import check_text

# A few lines of aliases can stand for more than memory holds.
_MAXIMUM_NODES: Final = 1_000_000
_MAXIMUM_DEPTH: Final = 100

# Each value begins with one of these, or is the second one of a pair that does.
_SEPARATORS: Final = ",[{:-?"

# Go's largest; Python cannot write down the longest ones at all.
_LARGEST_INTEGER: Final = 2**64 - 1

# Beyond it floating-point numbers are written with an exponent.
_LARGEST_WHOLE: Final = 1e21

_BOOLEAN: Final = re.compile(
    r"y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"
)
_TRUE: Final = frozenset({"y", "yes", "true", "on"})
_INTEGER: Final = re.compile(
    r"[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0|[1-9][0-9_]*|0[xX][0-9a-fA-F_]+)"
)
_OCTAL: Final = re.compile(r"[-+]?0[0-7_]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_NUMBERS: Final = list("-+.0123456789")

# Besides its own, what the library's constructors raise where a tag does not fit its text.
_UNREADABLE: Final = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Resolves plain scalars as Go's parser does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


def _boolean(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in _TRUE


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    return int(text, 0)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)))


def _resolve(tag: str, pattern: re.Pattern[str], first: list[str]) -> None:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern.pattern})$"), first
    )


_resolve("bool", _BOOLEAN, list("yYnNtTfFoO"))
_resolve("int", _INTEGER, _NUMBERS)
_resolve("float", _FLOAT, _NUMBERS)
_resolve("null", _NULL, ["~", "n", "N", ""])
_resolve("merge", re.compile("<<"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def load_all(text: str, *, what: str) -> list[Any]:
    """Return every document of a stream, as JSON; empty ones are None.

    Args:
        text: the stream.
        what: it is, for the error's sentence.

    Raises:
        BulkheadError: INVALID_ARGUMENT when it is no YAML, has what JSON cannot say, or is too
            large.
    """
    budget = _Budget(what)
    try:
        _check_size(text, budget)
        documents = list(yaml.load_all(text, _Loader))
    except _UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise BulkheadError(
            Reason.INVALID_ARGUMENT, f"{what} is no valid YAML{where}; correct the chart."
        ) from None
    budget = _Budget(what)
    return [_as_json(document, budget, 0) for document in documents]


def load(text: str, *, what: str) -> Any:  # noqa: ANN401 - JSON of any kind
    """Return the only document of a text, None when there is none.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as `load_all`, and for more than one document.
    """
    documents = load_all(text, what=what)
    if len(documents) > 1:
        raise BulkheadError(Reason.INVALID_ARGUMENT, f"{what} has more than one YAML document.")
    return documents[0] if documents else None


def _check_size(text: str, budget: "_Budget") -> None:
    """Refuse what has too many values before they are in memory, where each takes 400 bytes."""
    if 2 * sum(map(text.count, _SEPARATORS)) < _MAXIMUM_NODES:
        return
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.NodeEvent):
            budget.take(0)


class _Budget:
    def __init__(self, what: str) -> None:
        self.what = what
        self._left = _MAXIMUM_NODES

    def take(self, depth: int) -> None:
        self._left -= 1
        if self._left < 0 or depth > _MAXIMUM_DEPTH:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"{self.what} comes to more than {_MAXIMUM_NODES:,} values or is nested deeper "
                f"than {_MAXIMUM_DEPTH}; make it smaller.",
            )

    def refuse(self, value: object) -> BulkheadError:
        return BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"{self.what} has a value that JSON cannot say ({type(value).__name__}).",
        )


def _as_json(value: object, budget: _Budget, depth: int) -> Any:  # noqa: ANN401 - JSON of any kind
    budget.take(depth)
    match value:
        case dict():
            return {
                _key(key, budget): _as_json(item, budget, depth + 1) for key, item in value.items()
            }
        case list():
            return [_as_json(item, budget, depth + 1) for item in value]
        case float():
            if not math.isfinite(value):
                raise budget.refuse(value)
            return int(value) if value.is_integer() and abs(value) < _LARGEST_WHOLE else value
        case int() if abs(value) > _LARGEST_INTEGER:
            raise budget.refuse(value)
        case str():
            return _text(value, budget)
        case None | bool() | int():
            return value
        case _:
            raise budget.refuse(value)


def _text(text: str, budget: _Budget) -> str:
    try:
        return check_text(text)
    except ValueError:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"{budget.what} has a text with a NUL or half of a surrogate pair, which cannot be "
            "stored; take it out, or encode it.",
        ) from None


def _key(key: object, budget: _Budget) -> str:
    match key:
        case str():
            return _text(key, budget)
        case bool():
            return "true" if key else "false"
        case int() if abs(key) <= _LARGEST_INTEGER:
            return str(key)
        case _:
            raise budget.refuse(key)
