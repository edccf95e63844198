"""What the engine says when it fails, as our reasons. No message quotes a secret."""

import base64
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from infra.clouds.registry import profile_of
from infra.database.records.stack import taken_over
from infra.stacks.request import StackRequest, StackSecrets

_ReasonOfMessage = Callable[[str], tuple[Reason, str]]

_CHARACTERS_SHOWN: Final = 500
# Of what the engine printed, when no event says what failed.
_CHARACTERS_KEPT: Final = 2000
# Shorter values are words: nothing would be left of a message without them.
_SECRET_CHARACTERS: Final = 8
_HIDDEN: Final = "[secret]"
# Ours, of any kind: a provider may quote a part of the user data that has one.
_TOKEN: Final = re.compile(r"bulkhead_[a-z]+_[0-9A-Za-z]+")
_FENCE: Final = "bulkhead: the fence"
# Only the provider's own words say what a person must change: which limit, what is protected.
_QUOTED: Final = (Reason.CONFLICT, Reason.INVALID_ARGUMENT, Reason.QUOTA_EXCEEDED)

_PASSPHRASE: Final = (
    Reason.FAILED_PRECONDITION,
    (
        "The passphrase that OpenBao has for this stack does not open its state. Was the database"
        " restored without the secret store, or the other way round? Restore both of one moment."
    ),
)
_LOCKED: Final = (
    Reason.ABORTED,
    "Another run has the lock of this stack's state. It is looked at again at the next attempt.",
)
_STATE_STORE: Final = (
    Reason.DEPENDENCY_UNAVAILABLE,
    (
        "The database with the states of stacks did not answer the engine. What was made is found"
        " by its tags at the next attempt."
    ),
)
_CRASHED: Final = (
    Reason.DEPENDENCY_UNAVAILABLE,
    (
        "The provider program ended in the middle of a call. What it made is found by its tags at"
        " the next attempt."
    ),
)
_NOT_INSTALLED: Final = (
    Reason.FAILED_PRECONDITION,
    (
        "The provider's Pulumi program is not installed on this worker, or not in its SDK's"
        " version. Install it where docs/operations.md says."
    ),
)
_CANCELLED: Final = (
    Reason.ABORTED,
    "The run was cancelled. What it made is recovered by the next one.",
)
_KNOWN: Final[tuple[tuple[re.Pattern[str], tuple[Reason, str]], ...]] = (
    (re.compile(r"incorrect passphrase|passphrase must be set"), _PASSPHRASE),
    (re.compile(r"the stack is currently locked by"), _LOCKED),
    (
        re.compile(r"(?:ping|connect to) PostgreSQL|failed to save snapshot|pq: "),
        _STATE_STORE,
    ),
    (
        re.compile(
            r"error reading from server: (?:EOF|read)|transport is closing"
            r"|code = Unavailable|plugin .{1,200}exited"
        ),
        _CRASHED,
    ),
    (
        re.compile(r"no resource plugin|could not find plugin|plugin .{1,200}not found"),
        _NOT_INSTALLED,
    ),
    (re.compile(r"update cancel|deployment canceled|code = Canceled"), _CANCELLED),
)


def failure_of(
    request: StackRequest, document: Mapping[str, Any], secrets: StackSecrets
) -> BulkheadError:
    """Return the failure of a run from what its runner wrote.

    Args:
        request: what was asked.
        document: the runner's result.
        secrets: what must not be in the message.
    """
    program = request.program
    errors: list[tuple[str | None, str]] = [
        (name, _clean(text, secrets)) for name, text in document["errors"]
    ]
    # The SDK puts both streams into the error, the output first.
    said = _clean(document["failure"], secrets)[-_CHARACTERS_KEPT:]
    everything = "\n".join([*(text for _, text in errors), said])
    if _FENCE in everything:
        return taken_over(program.stack_id)
    if document["cancelled"]:
        reason, sentence = _CANCELLED
        resource, text = None, ""
    else:
        resource, text, reason, sentence = _told(program.provider, errors, everything)
    metadata = {"stack_id": program.stack_id, "action": request.action.value}
    if resource:
        metadata["resource"] = resource
    if text:
        metadata["provider_message"] = text[:_CHARACTERS_SHOWN]
        if reason in _QUOTED:
            words = " ".join(text.split())[:_CHARACTERS_SHOWN]
            sentence = f"{sentence} {profile_of(program.provider).title} says: {words}"
    # Names are made of our ids: what has one already is an earlier attempt's, of which the answer
    # was lost. The next attempt looks for it first, and adopts it.
    conflict = reason is Reason.CONFLICT
    return BulkheadError(reason, sentence, metadata=metadata, retryable=conflict or None)


def no_result(request: StackRequest, log: str, secrets: StackSecrets) -> BulkheadError:
    """Return the failure of a runner that ended without a word.

    Args:
        request: what was asked.
        log: what it printed.
        secrets: what must not be in the message.
    """
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "nothing")
    return BulkheadError(
        Reason.INTERNAL,
        "The process of the run ended before it could tell what came of it. What it made is found"
        " by its tags at the next attempt. It said last:"
        f" {_clean(last, secrets)[:_CHARACTERS_SHOWN]}",
        metadata={"stack_id": request.program.stack_id},
    )


def _told(
    provider: Provider, errors: Sequence[tuple[str | None, str]], everything: str
) -> tuple[str | None, str, Reason, str]:
    """Return what happened to which resource, with the provider's words and ours."""
    explain = _explainer_of(provider)
    for resource, text in errors:
        reason, sentence = explain(text)
        if reason is not Reason.INTERNAL:
            return resource, text, reason, sentence
    for pattern, (reason, sentence) in _KNOWN:
        if pattern.search(everything):
            return None, "", reason, sentence
    resource, text = errors[0] if errors else (None, everything.strip())
    about = f" at {resource}" if resource else ""
    return (
        resource,
        text,
        Reason.INTERNAL,
        f"Pulumi failed{about}: {text[:_CHARACTERS_SHOWN]}",
    )


def _explainer_of(provider: Provider) -> _ReasonOfMessage:
    """Return the provider's own reading of its messages; INTERNAL is what it does not know."""
    module = importlib.import_module(f"infra.clouds.{provider}.errors")
    return cast("_ReasonOfMessage", module.reason_of_message)


def without_tokens(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a run found, without the tokens that a server's metadata may have in it."""
    cleaned: Mapping[str, Any] = json.loads(_TOKEN.sub(_HIDDEN, json.dumps(facts)))
    return cleaned


def _clean(text: str, secrets: StackSecrets) -> str:
    for value in sorted(set(_values(secrets)), key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    return _TOKEN.sub(_HIDDEN, text)


def _values(secrets: StackSecrets) -> Iterator[str]:
    """Return every form in which a secret may stand in a message."""
    whole = [secrets.passphrase, secrets.user_data, *secrets.credential.values()]
    for value in whole:
        yield from _forms(value)
    for value in secrets.credential.values():
        # A key file: each of its members by itself.
        try:
            members = json.loads(value)
        except ValueError:
            continue
        if isinstance(members, dict):
            for member in members.values():
                yield from _forms(str(member))


def _forms(value: str) -> Iterator[str]:
    if len(value) < _SECRET_CHARACTERS:
        return
    yield value
    yield base64.b64encode(value.encode()).decode()
    yield json.dumps(value)[1:-1]
