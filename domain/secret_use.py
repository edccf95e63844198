"""References to secrets inside an install's values; the values themselves are never here.

`{"$secret": {"id": "sec_...", "alias": "current", "key": "value"}}` may stand wherever a text may.
What the chart sees there is the name of a Kubernetes Secret that the platform keeps in the
install's namespace, with the secret's value under `key`.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id
from domain.secret import is_alias

SECRET_MARK: Final = "$secret"  # noqa: S105 - a field's name

_DEFAULT_ALIAS: Final = "current"
_DEFAULT_KEY: Final = "value"

# As a key of a Kubernetes Secret.
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")

_OBJECT_NAME: Final = re.compile(r"sec-[0-9a-f]{20}")

# Charts nest a handful; what is deeper is made to exhaust whatever walks through it.
_DEEPEST: Final = 64

Path = tuple[str, ...]


@dataclass(frozen=True, order=True, slots=True)
class SecretUse:
    """A secret to which values refer.

    Attributes:
        secret_id: which secret.
        alias: which of its versions.
        key: under which the value is in the Kubernetes Secret.
    """

    secret_id: str
    alias: str = _DEFAULT_ALIAS
    key: str = _DEFAULT_KEY

    @property
    def object_name(self) -> str:
        """The name of the Kubernetes Secret."""
        text = f"{self.secret_id}\n{self.alias}\n{self.key}"
        return f"sec-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def is_object_name(name: str) -> bool:
    """Tell whether a Kubernetes Secret of a secret may have this name."""
    return _OBJECT_NAME.fullmatch(name) is not None


def secret_uses_in(
    values: Mapping[str, Any], root: Path = ("values",)
) -> list[tuple[Path, SecretUse]]:
    """Return the references in values, each with its path, which begins with `root`.

    Raises:
        BulkheadError: INVALID_ARGUMENT, with the path, for one that is not well-formed, and for
            values that are nested too deeply.
    """
    return list(_uses(values, root))


def with_object_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values in which the name of the Kubernetes Secret stands for each reference.

    Raises:
        BulkheadError: as `secret_uses_in`.
    """
    return {name: _named(value, ("values", name)) for name, value in values.items()}


def _uses(node: object, path: Path) -> Iterator[tuple[Path, SecretUse]]:
    _check_depth(path)
    if isinstance(node, Mapping):
        if SECRET_MARK in node:
            yield path, _use(node, path)
            return
        for name, value in node.items():
            yield from _uses(value, (*path, str(name)))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from _uses(value, (*path, str(position)))


def _named(node: object, path: Path) -> Any:  # noqa: ANN401 - JSON
    _check_depth(path)
    if isinstance(node, Mapping):
        if SECRET_MARK in node:
            return _use(node, path).object_name
        return {name: _named(value, (*path, str(name))) for name, value in node.items()}
    if isinstance(node, list):
        return [_named(value, (*path, str(position))) for position, value in enumerate(node)]
    return node


def _use(node: Mapping[str, Any], path: Path) -> SecretUse:
    said = node[SECRET_MARK]
    if len(node) != 1 or not isinstance(said, Mapping) or said.keys() - {"id", "alias", "key"}:
        raise _malformed(path, 'It is {"$secret": {"id": "sec_...", "alias"?, "key"?}}, alone.')
    use = SecretUse(
        said.get("id", ""), said.get("alias", _DEFAULT_ALIAS), said.get("key", _DEFAULT_KEY)
    )
    if not isinstance(use.secret_id, str) or not is_id(Prefix.SECRET, use.secret_id):
        raise _malformed((*path, SECRET_MARK, "id"), "It names no secret by its id.")
    if not isinstance(use.alias, str) or not is_alias(use.alias):
        raise _malformed((*path, SECRET_MARK, "alias"), "This can be no alias of a version.")
    if not isinstance(use.key, str) or _KEY.fullmatch(use.key) is None:
        raise _malformed(
            (*path, SECRET_MARK, "key"),
            "A key has 1 to 253 letters, digits, `-`, `_` and `.`.",
        )
    return use


def _check_depth(path: Path) -> None:
    if len(path) > _DEEPEST:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"The values are nested more than {_DEEPEST} deep.",
            path=path[:4],
        )


def _malformed(path: Path, why: str) -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT, f"This is no reference to a secret. {why}", path=path
    )
