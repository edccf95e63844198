"""Sees to it that a rendering does not repeat what is in Secrets.

A template may look up the Kubernetes Secrets that its chart made (`infra.helm.lookups`), and have
data of others by its values. What it prints is kept in rows, outside of Secrets as it is.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.errors import BulkheadError, Reason
from domain.names import install_namespace_of
from infra.helm.lookups import is_public
from infra.helm.manifest import named
from infra.kubernetes.client import KubernetesClient, Object

# Shorter ones stand in objects by chance.
_SHORTEST: Final = 8

# How JSON has whitespace and what HTML would read, after its backslashes are gone.
_IN_JSON: Final = (
    *((spelled, "") for spelled in (r"\n", r"\r", r"\t", "\\")),
    *(("u003c", "<"), ("u003e", ">"), ("u0026", "&")),
)

# Stands between texts, and in none.
_BETWEEN: Final = "\0"


@dataclass(frozen=True, slots=True)
class Echo:
    """What a rendering repeats of a Kubernetes Secret.

    Attributes:
        secret: the name of the Kubernetes Secret.
        where: the object, as people call it.
        text: what it repeats, folded.
    """

    secret: str
    where: str
    text: str


def carried_texts(client: KubernetesClient, install_id: str) -> dict[str, str]:
    """Return what the Kubernetes Secrets of an install's namespace hold, plain and in base64.

    Returns:
        The name of the Kubernetes Secret, by each text.
    """
    space = install_namespace_of(install_id)
    found: dict[str, str] = {}
    for secret in client.list_all(f"/api/v1/namespaces/{space}/secrets"):
        for encoded in (secret.get("data") or {}).values():
            try:
                plain = base64.b64decode(encoded).decode(errors="replace")
            except binascii.Error:
                continue
            # Where it is itself is what Kubernetes has in tokens of ServiceAccounts.
            if plain != space and not is_public(plain):
                for text in (plain, plain.strip(), encoded):
                    found[text] = secret["metadata"]["name"]
    return found


def echoes_in(manifest: Iterable[Object], carried: Mapping[str, str]) -> list[Echo]:
    """Return what a rendering repeats of what is carried, each text once.

    Args:
        manifest: the objects with digests of what is in Secrets.
        carried: from `carried_texts`.
    """
    said = [(found, _said_by([found])) for found in manifest]
    longest = max((len(text) for _, text in said), default=0)
    wanted = {_folded(text): name for text, name in carried.items()}
    echoes = []
    for text, secret in wanted.items():
        if _SHORTEST <= len(text) <= longest:
            where = next((found for found, within in said if text in within), None)
            if where is not None:
                echoes.append(Echo(secret, named(where), text))
    return echoes


def refuse_echoes(echoes: Iterable[Echo], unseeing: Iterable[Object]) -> None:
    """Refuse echoes, but for what the chart says as well when nothing can be looked up.

    Args:
        echoes: from `echoes_in`.
        unseeing: what the chart came to then, from its own texts and values alone.

    Raises:
        BulkheadError: INVALID_ARGUMENT, with the object and the name of the Kubernetes Secret.
    """
    said = _said_by(unseeing)
    for echo in echoes:
        if echo.text not in said:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"The chart looks up the Kubernetes Secret {echo.secret}, and its {echo.where} "
                "repeats what that holds, for everybody to read. Have it refer to the Secret by "
                "its name.",
            )


def _said_by(objects: Iterable[Object]) -> str:
    return _BETWEEN.join(_folded(text) for found in objects for text in _texts_in(found))


def _folded(text: str) -> str:
    """Return a text without what quoting, indenting or breaking its lines changes."""
    folded = "".join(text.split())
    for spelled, plain in _IN_JSON:
        folded = folded.replace(spelled, plain)
    return folded


def _texts_in(node: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    if isinstance(node, dict):
        for name, value in node.items():
            yield name
            yield from _texts_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts_in(value)
    elif node is not None:
        yield str(node)
