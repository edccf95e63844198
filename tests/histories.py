"""Histories as Temporal keeps them, and with their payloads opened."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle, WorkflowHistory

from infra.temporal.codec import SealingCodec, workflow_of


async def opened(history: WorkflowHistory, codec: SealingCodec) -> dict[str, Any]:
    """Return a history as JSON, with each sealed payload replaced by what is in it."""
    found: dict[str, Any] = history.to_json_dict()
    for value in _payloads_in(found):
        payload = json_format.ParseDict(value, Payload())
        if workflow_of(payload) is not None:
            value.clear()
            value.update(json_format.MessageToDict(await codec.open(payload)))
    return found


async def keep_history(handle: WorkflowHandle[Any, Any], codec: SealingCodec, path: Path) -> bool:
    """Write the history of a workflow that has ended, unless there is one; tell whether it did."""
    # The key that opens it is gone with the servers of this run.
    found = await opened(await handle.fetch_history(), codec)
    return _write_new(path, json.dumps(found, indent=2))


def _write_new(path: Path, history: str) -> bool:
    if path.exists():
        return False
    # Which machine recorded it is nobody's business.
    path.write_text(re.sub(r'"identity": *"\d+@[^"]*"', '"identity": "worker"', history))
    return True


def texts_of(history: dict[str, Any]) -> Iterator[bytes]:
    """Yield what is inside each payload of a history in JSON, where it stands in base64."""
    for payload in _payloads_in(history):
        yield base64.b64decode(payload.get("data", ""))


def _payloads_in(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "encoding" in value.get("metadata", {}):
            yield value
        else:
            for part in value.values():
                yield from _payloads_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from _payloads_in(part)
