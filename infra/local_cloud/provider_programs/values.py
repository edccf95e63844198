"""Property values as the engine sends them: a protobuf struct with marks for what is special."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime import rpc

# Marks of the engine's wire format, which its SDKs have without a public name.
_MARK: Final = rpc._special_sig_key  # noqa: SLF001
_SECRET: Final = rpc._special_secret_sig  # noqa: SLF001


class Unknown:
    """A value that is known only after something else is made: in previews alone."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()


def decode(struct: Struct) -> dict[str, Any]:
    """Return plain values: secrets bare, whole numbers as integers, `UNKNOWN` where so."""
    return {key: _plain(value) for key, value in _raw(struct).items()}


def secret_keys(struct: Struct) -> frozenset[str]:
    """Return the keys of the values that are secret or have a secret inside."""
    return frozenset(key for key, value in _raw(struct).items() if _has_secret(value))


def encode(values: Mapping[str, Any], secrets: Iterable[str] = ()) -> Struct:
    """Return values for the engine.

    Args:
        values: plain values.
        secrets: the keys of those that it is to keep encrypted.
    """
    marked = {key: _wire(value) for key, value in values.items()}
    for key in secrets:
        if key in marked:
            marked[key] = {_MARK: _SECRET, "value": marked[key]}
    struct = Struct()
    json_format.ParseDict(marked, struct)
    return struct


def _raw(struct: Struct) -> dict[str, Any]:
    return json_format.MessageToDict(struct)


def _plain(value: Any) -> Any:
    match value:
        case {**members} if members.get(_MARK) == _SECRET:
            return _plain(members.get("value"))
        case {**members}:
            return {key: _plain(member) for key, member in members.items()}
        case list():
            return [_plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case rpc.UNKNOWN:
            return UNKNOWN
        case _:
            return value


def _wire(value: Any) -> Any:
    match value:
        case Unknown():
            return rpc.UNKNOWN
        case {**members}:
            return {key: _wire(member) for key, member in members.items()}
        case list() | tuple():
            return [_wire(item) for item in value]
        case _:
            return value


def _has_secret(value: Any) -> bool:
    match value:
        case {**members}:
            return members.get(_MARK) == _SECRET or any(map(_has_secret, members.values()))
        case list():
            return any(map(_has_secret, value))
        case _:
            return False
