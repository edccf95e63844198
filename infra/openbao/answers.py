"""Requests as plain data: hvac answers with the whole envelope, with a response, or with None."""

from collections.abc import Mapping
from typing import Any

import hvac


def read(client: hvac.Client, path: str) -> dict[str, Any] | None:
    """Return what is at a path; None when nothing is, or its namespace does not exist."""
    answer = client.read(path)
    return answer["data"] if isinstance(answer, dict) else None


def listing(client: hvac.Client, path: str) -> dict[str, Any]:
    """Return what is below a path, `keys` at least; empty when nothing is."""
    answer = client.list(path)
    return answer["data"] if isinstance(answer, dict) else {}


def write(
    client: hvac.Client,
    path: str,
    data: dict[str, object],
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write to a path and return what was answered; empty when that was nothing."""
    answer = client.adapter.post(f"/v1/{path}", json=data, headers=dict(headers or {}))
    return answer["data"] or {} if isinstance(answer, dict) else {}


def certificate_in(answer: dict[str, Any]) -> str:
    """Return the certificate of an answer as PEM with its final line break."""
    return str(answer["certificate"]).strip() + "\n"
