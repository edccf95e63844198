"""How two states of one object differ, as people read it. Of a Secret's data: only that it does."""

from collections.abc import Iterator
from typing import Any, Final

from domain.json_document import storable
from infra.kubernetes.client import Object

HIDDEN: Final = "(hidden)"

# Fields that the API server writes by itself.
_OWN: Final = frozenset(
    {"creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"}
)
_SECRET_FIELDS: Final = frozenset({"data", "stringData"})

# kubectl keeps a copy of what it applied, Secrets' data among it.
_COPY: Final = "kubectl.kubernetes.io/last-applied-configuration"

# Of one value; a person reads the object itself for more.
_CHARACTERS: Final = 1000


def differences(
    before: Object, after: Object, *, only_wanted: bool = False
) -> tuple[dict[str, Any], ...]:
    """Return each difference as `{path, before, after}`, None where there is nothing.

    Args:
        before: the object as it is.
        after: the object as it would be.
        only_wanted: `after` is what is asked for, in which defaults are missing: only fields that
            it has are looked at.
    """
    is_secret = before["kind"] == "Secret"
    return tuple(
        _shown(path, old, new, hide=is_secret and path[0] in _SECRET_FIELDS)
        for path, old, new in _walk(_content(before), _content(after), (), only_wanted=only_wanted)
    )


def _content(manifest: Object) -> Object:
    content = {name: value for name, value in manifest.items() if name != "status"}
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in _OWN}
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(_COPY, None)
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    content["metadata"] = metadata
    return content


def _walk(
    before: Any,  # noqa: ANN401 - JSON
    after: Any,  # noqa: ANN401 - JSON
    path: tuple[str, ...],
    *,
    only_wanted: bool,
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = after if only_wanted else before | after
        for name in sorted(names):
            yield from _walk(
                before.get(name), after.get(name), (*path, name), only_wanted=only_wanted
            )
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _walk(old, new, (*path, f"[{place}]"), only_wanted=only_wanted)
    elif before != after:
        yield path, before, after


def _shown(path: tuple[str, ...], before: Any, after: Any, *, hide: bool) -> dict[str, Any]:  # noqa: ANN401 - JSON
    text = storable(".".join(path).replace(".[", "["))
    if hide:
        return {
            "path": text,
            "before": None if before is None else HIDDEN,
            "after": None if after is None else HIDDEN,
        }
    # What is live may be anybody's, and is no text of PostgreSQL's then.
    return {"path": text, "before": storable(_cut(before)), "after": storable(_cut(after))}


def _cut(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, str) and len(value) > _CHARACTERS:
        return f"{value[:_CHARACTERS]}... ({len(value)} characters)"
    return value
