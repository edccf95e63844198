"""Where objects of any kind are at an API server: asked from its discovery, remembered."""

from collections import ChainMap
from dataclasses import dataclass
from threading import Lock
from typing import ClassVar, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from domain.errors import BulkheadError
from infra.kubernetes.client import KubernetesClient, Object, none_if_missing

# Stable APIs of every API server, of which nothing goes while it runs; the kinds of others may.
_LASTING: Final = frozenset(
    {
        "v1",
        "apps/v1",
        "batch/v1",
        "networking.k8s.io/v1",
        "policy/v1",
        "rbac.authorization.k8s.io/v1",
        "storage.k8s.io/v1",
    }
)

# What a subresource's name has in a list of resources.
_SUBRESOURCE: Final = "/"


@dataclass(frozen=True, slots=True)
class ApiResource:
    """One kind that an API server serves.

    Attributes:
        api_version: its group and version, as in a manifest.
        kind: what it is.
        plural: its name in paths.
        namespaced: whether its objects are in namespaces.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def group(self) -> str:
        """Its API group; empty for the core's."""
        return self.api_version.rpartition("/")[0]

    def collection(self, namespace: str | None = None) -> str:
        """Return where its objects are listed; None: in all namespaces."""
        root = "/apis" if "/" in self.api_version else "/api"
        space = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}/{self.api_version}{space}/{self.plural}"

    def path(self, name: str, namespace: str | None = None) -> str:
        """Return where one object is."""
        # A name is whatever a chart says: it must lead to no other object, and be no query.
        return f"{self.collection(namespace)}/{quote(name, safe=':')}"


# A version and a kind.
_Key = tuple[str, str]
_Known = dict[_Key, ApiResource]


class Discovery:
    """Finds kinds at one API server. Safe to use from several threads.

    A kind that is served is remembered for the object's life, one of a lasting API for the
    client's; one that is not is asked for again, so that the kinds of a CRD that was just made are
    found.
    """

    _lasting: ClassVar[WeakKeyDictionary[KubernetesClient, _Known]] = WeakKeyDictionary()
    _lock: ClassVar[Lock] = Lock()

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        with self._lock:
            self._known = ChainMap[_Key, ApiResource]({}, self._lasting.setdefault(client, {}))

    def find(self, api_version: str, kind: str) -> ApiResource | None:
        """Return a kind, None when the API server does not serve it.

        Raises:
            BulkheadError: as `KubernetesClient`.
        """
        key = (api_version, kind)
        with self._lock:
            found = self._known.get(key)
        if found is None:
            known = self._known.maps[api_version in _LASTING]
            for resource in self._list(api_version):
                with self._lock:
                    known[resource.api_version, resource.kind] = resource
                if resource.kind == kind:
                    found = resource
        return found

    def path_of(self, manifest: Object, namespace: str) -> str | None:
        """Return where an object is, None when its kind is not served.

        Args:
            manifest: the object.
            namespace: where it is when it is namespaced and names no namespace itself.
        """
        resource = self.find(manifest["apiVersion"], manifest["kind"])
        if resource is None:
            return None
        metadata = manifest["metadata"]
        return resource.path(metadata["name"], metadata.get("namespace") or namespace)

    def _list(self, api_version: str) -> list[ApiResource]:
        root = "/apis" if "/" in api_version else "/api"
        answer = none_if_missing(lambda: self._client.get(f"{root}/{api_version}"))
        return [
            ApiResource(api_version, found["kind"], found["name"], bool(found["namespaced"]))
            for found in (answer or {}).get("resources", [])
            if _SUBRESOURCE not in found["name"]
        ]


def listed_in_namespaces(client: KubernetesClient) -> list[ApiResource]:
    """Return every kind of which a namespace may have objects; extensions that are away have none.

    Raises:
        BulkheadError: as `KubernetesClient`.
    """
    groups = client.get("/apis").get("groups", [])
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    found: list[ApiResource] = []
    for version in versions:
        root = "/apis" if "/" in version else "/api"
        try:
            listed = client.get(f"{root}/{version}").get("resources", [])
        except BulkheadError as error:
            if error.metadata.get("status") is None:
                raise
            continue
        found += [
            ApiResource(version, one["kind"], one["name"], namespaced=True)
            for one in listed
            if one["namespaced"] and "list" in one["verbs"] and _SUBRESOURCE not in one["name"]
        ]
    return found
