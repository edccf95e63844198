"""What Helm's last words mean, typed. Helm has no codes: its sentences are those of v4."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from domain.errors import BulkheadError, Reason
from domain.foreign_text import printable

# The cause of a failure that a killed Helm may have left behind.
LOCKED: Final = "locked"

_SENTENCE_CHARACTERS: Final = 600
# Shorter ones would be found in ordinary words.
_SHORTEST_HIDDEN: Final = 4
_SHORTEST_LINE: Final = 8

_ERROR: Final = re.compile(r"^Error: (.*)\Z", re.DOTALL | re.MULTILINE)
# A decoder of JSON shows what is around the place where it stopped, which may be a Secret's datum.
_SNIPPET: Final = re.compile(
    r"error found in #\d+ byte of \.\.\.\|.*?\|\.\.\.(, bigger context \.\.\.\|.*?\|\.\.\.)?",
    re.DOTALL,
)
_SCHEMA_LINE: Final = re.compile(r"- at '([^']*)': (.*)")
_SCHEMA_MARK: Final = "values don't meet the specifications of the schema"

# What a fault in values comes to: the schema's keyword and what it wants, and nothing of the value,
# which may be a secret that somebody sent. The first that fits counts.
_FAULTS: Final = tuple(
    (re.compile(words), told)
    for words, told in (
        (r"got [a-z]+, want ([a-z ]+)", r"type is \1"),
        (r"value must be one of (.*)", r"enum is \1"),
        (r"value must be (.*)", r"const is \1"),
        (r"missing propert(?:y|ies) (.*)", r"required is \1"),
        (r"([a-zA-Z]+): got .*, want (.*)", r"\1 is \2"),
        (r".* does not match pattern .*", "pattern"),
        (r"additional properties .* not allowed", "additionalProperties"),
        (r"invalid propertyName .*", "propertyNames"),
        (r"properties .* required, if .* exists", "dependentRequired"),
        (r"items at .* are equal", "uniqueItems"),
        (r"no items match contains schema", "contains"),
        (r"'?([a-zA-Z]+)'? failed.*", r"\1"),
        (r".*", "it does not fit its schema"),
    )
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of failure: the words that tell it, and what is answered."""

    words: re.Pattern[str]
    reason: Reason
    cause: str
    advice: str
    retryable: bool | None = None


def _kind(
    words: str, reason: Reason, cause: str, advice: str, *, retryable: bool | None = None
) -> _Kind:
    return _Kind(re.compile(words, re.IGNORECASE | re.DOTALL), reason, cause, advice, retryable)


# The first that fits counts.
_KINDS: Final = (
    _kind(
        r"chart requires kubeVersion",
        Reason.FAILED_PRECONDITION,
        "kube_version",
        "The chart does not support the cluster's Kubernetes version; upgrade the cluster, or "
        "choose another version of the package.",
    ),
    _kind(
        r"another operation .* is in progress|release: already exists",
        Reason.ABORTED,
        LOCKED,
        "Another deployment of the release is going on.",
        retryable=True,
    ),
    _kind(
        # Nothing but hooks is waited for.
        r"(failed (pre|post)-\w+:|(pre|post)-\w+ hooks? failed:|not ready\. status:).*"
        r"(timed out|deadline exceeded|still exists|context canceled)",
        Reason.DEADLINE_EXCEEDED,
        "hook",
        "A hook of the chart did not end in time.",
        retryable=False,
    ),
    _kind(
        r"failed (pre|post)-\w+:|(pre|post)-\w+ hooks? failed",
        Reason.FAILED_PRECONDITION,
        "hook",
        "A hook of the chart failed; its Job and pods say why.",
    ),
    _kind(
        r"must have at most 1048576|too long: may not be (more|longer) than 1048576|"
        r"entity too large|request is too large|message larger than max",
        Reason.FAILED_PRECONDITION,
        "too_large",
        "The release is larger than Kubernetes keeps in one Secret; split the chart.",
    ),
    _kind(
        r"is immutable|immutable field|updates to .* are forbidden|may not change once set",
        Reason.FAILED_PRECONDITION,
        "immutable",
        "A field that cannot be changed would change; the object must be replaced.",
    ),
    _kind(
        r"cannot be imported into the current release|invalid ownership metadata",
        Reason.CONFLICT,
        "not_ours",
        "An object of that name exists and belongs to nobody's release or another one; remove or "
        "rename it.",
    ),
    _kind(
        r"apply failed with \d+ conflict|conflict occurred while applying|conflict with \"",
        Reason.CONFLICT,
        "fields",
        "Another program owns fields of an object.",
    ),
    _kind(
        r"denied the request|admission webhook|ValidatingAdmissionPolicy|violates PodSecurity|"
        r"exceeded quota",
        Reason.FAILED_PRECONDITION,
        "admission",
        "A policy of the cluster refuses an object.",
    ),
    _kind(
        r"because it is being terminated",
        Reason.CONFLICT,
        "terminating",
        "The install's namespace is being removed.",
    ),
    _kind(
        r"is forbidden|attempting to grant RBAC permissions",
        Reason.PERMISSION_DENIED,
        "forbidden",
        "The chart needs what an install may not do outside its own namespace.",
    ),
    _kind(
        r"no matches for kind|resource mapping not found|could not find the requested resource|"
        r"unable to get apiresource",
        Reason.FAILED_PRECONDITION,
        "unknown_kind",
        "The cluster does not serve a kind that the chart uses.",
    ),
    _kind(
        r"execution error at|executing \"|parse error|error converting YAML|template: |not defined|"
        r"error unmarshaling|chart metadata|missing in charts/|values\.yaml",
        Reason.INVALID_ARGUMENT,
        "template",
        "The chart cannot be rendered with these values.",
    ),
    _kind(
        r"connection refused|connection reset|no such host|i/o timeout|TLS handshake|\bEOF\b|"
        r"cluster unreachable|unable to handle the request|internal error occurred|etcdserver|"
        r"deadline exceeded|timed out|x509|certificate|Unauthorized|too many requests|"
        r"network is unreachable|no route to host|currently unable|"
        r"credentials",
        Reason.DEPENDENCY_UNAVAILABLE,
        "cluster",
        "The cluster's API server does not answer as it should; the step is tried again.",
    ),
    _kind(
        r"is invalid|Invalid value|illegal base64|(failed|unable) to convert|cannot be handled as|"
        r"ValidationError|strict decoding|failed to create typed patch|unknown field",
        Reason.INVALID_ARGUMENT,
        "object",
        "The API server does not take an object of the chart.",
    ),
)

_UNKNOWN: Final = _kind("", Reason.INTERNAL, "unknown", "Helm failed in a way that we do not know.")


def failure_of(said: str, *, hidden: Iterable[str] = ()) -> BulkheadError:
    """Return the error that Helm's standard error tells of.

    Args:
        said: what Helm wrote there.
        hidden: texts that must not be repeated: what Secrets hold, plain and in base64.
    """
    match = _ERROR.search(said)
    text = (match[1] if match else said).strip()
    if _SCHEMA_MARK in text:
        return _schema_failure(text)
    kind = next((one for one in _KINDS if one.words.search(text)), _UNKNOWN)
    shown = _shown(text, hidden)
    return BulkheadError(
        kind.reason,
        f"{kind.advice} Helm says: {shown}" if shown else kind.advice,
        metadata={"dependency": "helm", "cause": kind.cause},
        retryable=kind.retryable,
    )


def template_place(said: str) -> str | None:
    """Return the template that Helm could not read the output of, None when it is none of them."""
    match = re.search(r"YAML parse error on (\S+):", said)
    return match[1] if match else None


def _schema_failure(text: str) -> BulkheadError:
    faults = [
        (match[1], _told(match[2].strip()))
        for match in map(_SCHEMA_LINE.search, text.splitlines())
        # A line that only says that its details follow.
        if match and match[2].strip() != "validation failed"
    ]
    place, fault = faults[0] if faults else ("", "they do not fit its schema")
    path = tuple(_unescaped(part) for part in place.split("/")[1:])
    where = ".".join(("values", *path))
    more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"The chart does not accept `{where}`: {_cut(fault)}{more}.",
        path=("values", *path),
        metadata={
            "dependency": "helm",
            "cause": "schema",
            "faults": _cut("; ".join(f"{_dotted(at)}: {why}" for at, why in faults)),
        },
    )


def _told(fault: str) -> str:
    found = ((words.fullmatch(fault), told) for words, told in _FAULTS)
    return next(match.expand(told) for match, told in found if match is not None)


def _dotted(pointer: str) -> str:
    return ".".join(("values", *(_unescaped(part) for part in pointer.split("/")[1:])))


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _shown(text: str, hidden: Iterable[str]) -> str:
    shown = _SNIPPET.sub("...", text)
    # The longest first, since a shorter one may be a part of it.
    for one in sorted(_variants(hidden), key=len, reverse=True):
        if len(one) < _SHORTEST_HIDDEN:
            break
        shown = shown.replace(one, "(hidden)")
    return _cut(printable(" ".join(shown.split()), len(shown)))


def _variants(hidden: Iterable[str]) -> set[str]:
    """Return texts as they are, as a quoted text shows them, and the long lines of each."""
    found: set[str] = set()
    for one in hidden:
        lines = [line for line in one.splitlines() if len(line) >= _SHORTEST_LINE]
        found |= {one, json.dumps(one, ensure_ascii=False)[1:-1], *lines}
    return found


def _cut(text: str) -> str:
    if len(text) <= _SENTENCE_CHARACTERS:
        return text
    return f"{text[:_SENTENCE_CHARACTERS]}..."
