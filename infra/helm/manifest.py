"""The objects that a chart came to: told apart, named, stored without what Secrets hold."""

import base64
import binascii
import copy
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.helm import go_yaml
from infra.kubernetes.client import Object
from infra.kubernetes.discovery import Discovery

# What Secrets of a manifest held: by the object's key, the field and the datum's name; as written.
SecretData = dict[str, dict[str, dict[str, str]]]

HOOK: Final = "helm.sh/hook"
RESOURCE_POLICY: Final = "helm.sh/resource-policy"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

_TESTS: Final = frozenset({"test", "test-success", "test-failure"})
_SECRET_FIELDS: Final = ("data", "stringData")
_DIGEST: Final = "hmac:"
_CRD: Final = "CustomResourceDefinition"

# They become parts of paths at the API server. Names may be those of RBAC: `system:reader`.
_API_VERSION: Final = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[a-z0-9]{1,63}")
_KIND: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_OBJECT_NAME: Final = re.compile(r"(?!\.{1,2}$)[^/%?#\s\x00-\x1f\x7f]{1,253}")
_SHOWN_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Split:
    """Objects by where they live, and with that by which identity they are applied."""

    namespaced: list[Object]
    cluster: list[Object]


def parse_stream(text: str) -> list[Object]:
    """Return the objects of a YAML stream in its order, those in Lists among them.

    Raises:
        BulkheadError: INVALID_ARGUMENT when it is no YAML, or a document is no object.
    """
    found: list[Object] = []
    for document in go_yaml.load_all(text, what="What the chart's templates print"):
        found += _objects_in(document)
    return found


def key_of(obj: Object) -> str:
    """Return which object it is: `<group>/<Kind>/<namespace>/<name>`.

    The group of the core and the namespace of what has none are empty; the version counts nothing.
    """
    metadata = obj["metadata"]
    group = obj["apiVersion"].rpartition("/")[0]
    return f"{group}/{obj['kind']}/{metadata.get('namespace') or ''}/{metadata['name']}"


def named(obj: Object) -> str:
    """Return how a sentence calls an object: `Deployment web`."""
    return f"{obj['kind']} {obj['metadata']['name']}"


def hooks_of(obj: Object) -> frozenset[str]:
    """Return at which points Helm runs the object as a hook; none for an ordinary one."""
    text = _annotations(obj).get(HOOK) or ""
    return frozenset(filter(None, (part.strip() for part in str(text).split(","))))


def is_test(obj: Object) -> bool:
    """Tell whether it is for `helm test` alone, and so never made by a deployment."""
    hooks = hooks_of(obj)
    return bool(hooks) and hooks <= _TESTS


def is_kept(obj: Object) -> bool:
    """Tell whether the chart asks that Helm never removes the object."""
    return str(_annotations(obj).get(RESOURCE_POLICY) or "").strip().lower() == "keep"


def split(objects: Iterable[Object], discovery: Discovery, namespace: str) -> Split:
    """Return copies of objects by their scope; what is namespaced says the namespace itself.

    Args:
        objects: of one rendering; the kinds of its own CRDs count as served.
        discovery: of the cluster.
        namespace: the install's.

    Raises:
        BulkheadError: INVALID_ARGUMENT for an object in another namespace, twice the same one, and
            the install's namespace itself; FAILED_PRECONDITION for a kind that is not served.
    """
    copies = [copy.deepcopy(obj) for obj in objects]
    own_kinds = _kinds_defined_in(copies)
    found = Split([], [])
    for obj in copies:
        if _is_namespaced(obj, own_kinds, discovery):
            _place(obj, namespace)
            found.namespaced.append(obj)
        else:
            obj["metadata"].pop("namespace", None)
            if obj["kind"] == "Namespace" and obj["metadata"]["name"] == namespace:
                raise _refused(obj, why="the platform makes the install's namespace")
            found.cluster.append(obj)
    _refuse_twins(copies)
    return found


def redact(objects: Iterable[Object], key: bytes) -> tuple[list[Object], SecretData]:
    """Return copies of objects, sorted, with a keyed digest for each datum of a Secret; and these.

    Args:
        objects: of one rendering, namespaces set.
        key: the install's own; the same datum in the same place has the same digest under it.
    """
    data: SecretData = {}
    redacted = [_redacted(obj, key, data) for obj in objects]
    return sorted(redacted, key=_place_of), data


def restore(
    redacted: Iterable[Object], data: Mapping[str, Mapping[str, Mapping[str, str]]]
) -> list[Object]:
    """Return the objects as they were before `redact`.

    Raises:
        BulkheadError: FAILED_PRECONDITION when the data do not have every datum.
    """
    return [_restored(obj, data) for obj in redacted]


def texts_of(data: Mapping[str, Mapping[str, Mapping[str, str]]]) -> set[str]:
    """Return every text that must not be repeated anywhere: data of Secrets, plain and encoded."""
    found: set[str] = set()
    for fields in data.values():
        for field, held in fields.items():
            for value in held.values():
                plain = _decoded(field, value)
                found |= {
                    value,
                    plain.decode(errors="replace"),
                    base64.b64encode(plain).decode(),
                }
    return found - {""}


def render_hash(redacted: Iterable[Object]) -> str:
    """Return the digest of a rendering: the same whenever it came to the same objects."""
    ordered = sorted(redacted, key=_place_of)
    text = json.dumps(ordered, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def datum_digest(key: bytes, object_key: str, name: str, value: bytes) -> str:
    """Return what stands for a datum of a Secret; it says nothing to whoever has not the key.

    Args:
        key: the install's own.
        object_key: of the Secret, so that equal passwords of two Secrets look different.
        name: of the datum.
        value: the datum itself, decoded.
    """
    place = json.dumps([object_key, name]).encode()
    digest = hmac.new(key, place + b"\0" + value, hashlib.sha256).hexdigest()
    return f"{_DIGEST}{digest}"


def is_secret(obj: Object) -> bool:
    """Tell whether it is a Secret of Kubernetes."""
    return bool(obj["apiVersion"] == "v1" and obj["kind"] == "Secret")


def _objects_in(document: object) -> list[Object]:
    if document is None or document == {}:
        return []
    if not isinstance(document, dict) or not all(
        isinstance(document.get(name), str) for name in ("apiVersion", "kind")
    ):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            "The chart's templates print a document without apiVersion and kind; correct the "
            "chart.",
        )
    if document["kind"].endswith("List") and isinstance(document.get("items"), list):
        return [obj for item in document["items"] for obj in _objects_in(item)]
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"The chart's templates print a {document['kind']} without a name; give it one.",
        )
    metadata.pop("creationTimestamp", None)
    _check_shape(document, metadata)
    return [document]


def _check_shape(obj: Object, metadata: Mapping[str, object]) -> None:
    """Refuse what the API server would refuse as well, after others have stumbled over it."""
    if not _API_VERSION.fullmatch(obj["apiVersion"]) or not _KIND.fullmatch(obj["kind"]):
        raise _refused_shape(obj, why="its apiVersion and kind name no kind of object")
    if not _OBJECT_NAME.fullmatch(obj["metadata"]["name"]):
        raise _refused_shape(obj, why="no object can have its name")
    if not isinstance(metadata.get("namespace") or "", str):
        raise _refused_shape(obj, why="its namespace is no text")
    for name in ("labels", "annotations"):
        if not isinstance(metadata.get(name) or {}, dict):
            raise _refused_shape(obj, why=f"its {name} are no mapping")
    if is_secret(obj) and not all(_is_data(obj.get(field)) for field in _SECRET_FIELDS):
        raise _refused_shape(obj, why="what it holds is not all text")
    if not isinstance(obj.get("roleRef") or {}, dict):
        raise _refused_shape(obj, why="its roleRef is no mapping")
    if obj["kind"] == _CRD and not _is_crd(obj.get("spec")):
        raise _refused_shape(obj, why="it lacks a group, names, a scope or versions")


def _is_data(held: object) -> bool:
    texts = held.values() if isinstance(held, dict) else [held]
    return all(one is None or isinstance(one, str) for one in texts) and not isinstance(held, str)


def _is_crd(spec: object) -> bool:
    if not isinstance(spec, dict) or not isinstance(spec.get("names"), dict):
        return False
    versions = spec.get("versions")
    texts = [spec.get("group"), spec.get("scope"), *map(spec["names"].get, ("kind", "plural"))]
    if not isinstance(versions, list) or not versions:
        return False
    texts += [one.get("name") if isinstance(one, dict) else None for one in versions]
    return all(isinstance(text, str) and text for text in texts)


def _refused_shape(obj: Object, *, why: str) -> BulkheadError:
    name = obj["metadata"]["name"][:_SHOWN_CHARACTERS]
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"The chart's {obj['kind'][:_SHOWN_CHARACTERS]} {name} is none: {why}. Correct the chart.",
    )


def _annotations(obj: Object) -> Mapping[str, object]:
    found = obj["metadata"].get("annotations")
    return found if isinstance(found, dict) else {}


def _kinds_defined_in(objects: Iterable[Object]) -> dict[tuple[str, str], bool]:
    """Return whether the kinds of CRDs are namespaced, by API version and kind."""
    found: dict[tuple[str, str], bool] = {}
    for obj in objects:
        spec = obj.get("spec")
        if obj["kind"] == _CRD and isinstance(spec, dict):
            kind = (spec.get("names") or {}).get("kind")
            for version in spec.get("versions") or []:
                api_version = f"{spec.get('group')}/{version.get('name')}"
                found[api_version, str(kind)] = spec.get("scope") == "Namespaced"
    return found


def _is_namespaced(
    obj: Object, own_kinds: Mapping[tuple[str, str], bool], discovery: Discovery
) -> bool:
    # What the cluster serves counts first: a chart could bring a CRD of a kind that is built in.
    served = discovery.find(obj["apiVersion"], obj["kind"])
    own = own_kinds.get((obj["apiVersion"], obj["kind"]))
    if served is None and own is not None:
        return own
    if served is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The chart brings a {named(obj)} of {obj['apiVersion']}, which the cluster does not "
            "serve. Install what defines that kind first, or choose another version.",
            metadata={"api_version": obj["apiVersion"], "kind": obj["kind"]},
        )
    return served.namespaced


def _place(obj: Object, namespace: str) -> None:
    wanted = obj["metadata"].get("namespace") or namespace
    if wanted != namespace:
        raise _refused(obj, why=f"it aims at the namespace {wanted}; an install has its own alone")
    obj["metadata"]["namespace"] = namespace


def _refuse_twins(objects: Iterable[Object]) -> None:
    seen: set[str] = set()
    for obj in objects:
        place = _place_of(obj)
        if place in seen:
            raise _refused(obj, why="the chart prints it twice")
        seen.add(place)


def _place_of(obj: Object) -> str:
    """Return an object's key, another one for a hook: a chart may have both of one name."""
    return f"{key_of(obj)}#hook" if hooks_of(obj) else key_of(obj)


def _redacted(obj: Object, key: bytes, data: SecretData) -> Object:
    found = copy.deepcopy(obj)
    if not is_secret(found):
        return found
    if isinstance(found["metadata"].get("annotations"), dict):
        found["metadata"]["annotations"].pop(LAST_APPLIED, None)
    for field in _SECRET_FIELDS:
        held = found.get(field)
        if not isinstance(held, dict):
            # A null, or what is no mapping at all: the API server would refuse it.
            found.pop(field, None)
            continue
        written = {name: value if isinstance(value, str) else "" for name, value in held.items()}
        data.setdefault(_place_of(obj), {})[field] = written
        found[field] = {
            name: datum_digest(key, key_of(obj), name, _decoded(field, value))
            for name, value in written.items()
        }
    return found


def _decoded(field: str, value: str) -> bytes:
    if field == "data":
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except binascii.Error:
            # The API server will say so.
            pass
    return value.encode()


def _restored(obj: Object, data: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Object:
    found = copy.deepcopy(obj)
    if not is_secret(found):
        return found
    held = data.get(_place_of(obj), {})
    for field in _SECRET_FIELDS:
        if field not in found:
            continue
        if found[field].keys() != held.get(field, {}).keys():
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"What {named(obj)} held is no longer kept, so this render cannot be applied. "
                "Render the version once more.",
            )
        found[field] = dict(held[field])
    return found


def _refused(obj: Object, *, why: str) -> BulkheadError:
    return BulkheadError(
        Reason.INVALID_ARGUMENT,
        f"The chart's {named(obj)} cannot be deployed: {why}. Change the chart or its values.",
        metadata={"object": key_of(obj)},
    )
