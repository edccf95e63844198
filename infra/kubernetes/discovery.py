"""Where objects of any kind are at an API server: asked from its discovery, remembered."""

from dataclasses import dataclass
from threading import Lock
from typing import Final
from urllib.parse import quote

from infra.kubernetes.client import KubernetesClient, Object, none_if_missing

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


class Discovery:
    """Finds kinds at one API server. Safe to use from several threads.

    A kind that is served is remembered for the object's life; one that is not is asked for again,
    so that the kinds of a CRD that was just made are found.
    """

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        self._lock = Lock()
        self._known: dict[tuple[str, str], ApiResource] = {}

    def find(self, api_version: str, kind: str) -> ApiResource | None:
        """Return a kind, None when the API server does not serve it.

        Raises:
            BulkheadError: as `KubernetesClient`.
        """
        key = (api_version, kind)
        with self._lock:
            found = self._known.get(key)
        if found is None:
            for resource in self._list(api_version):
                with self._lock:
                    self._known[resource.api_version, resource.kind] = resource
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
