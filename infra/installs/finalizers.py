"""What holds objects of an install that shall go: finalizers, which whoever set them removes."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from domain.errors import BulkheadError
from domain.names import install_namespace_of
from infra.installs.plan_needs import first_few
from infra.kubernetes.client import KubernetesClient, Object
from infra.kubernetes.discovery import ApiResource, Discovery, listed_in_namespaces

# The API server's own: of a CRD that waits for its objects, which have the finalizers that count,
# and of what waits for those that it owns.
_OF_OTHERS: Final = frozenset({"customresourcecleanup.apiextensions.k8s.io", "foregroundDeletion"})


@dataclass(frozen=True, slots=True)
class Held:
    """An object that was deleted and that finalizers keep.

    Attributes:
        kind: what it is.
        resource: as kubectl calls it, such as `widgets.example.com`.
        namespace: empty for one of cluster scope.
        name: its name.
        finalizers: what keeps it.
    """

    kind: str
    resource: str
    namespace: str
    name: str
    finalizers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}/{self.name} (finalizer {', '.join(self.finalizers)})"

    @property
    def command(self) -> str:
        """What removes the finalizers, whatever they were for."""
        space = f"--namespace {shlex.quote(self.namespace)} " if self.namespace else ""
        return (
            f"kubectl {space}patch {shlex.quote(self.resource)} {shlex.quote(self.name)} "
            """--type=merge --patch '{"metadata":{"finalizers":null}}'"""
        )


def find_held(
    client: KubernetesClient, install_id: str, references: Sequence[Mapping[str, str]]
) -> list[Held]:
    """Look for what finalizers keep, in the install's namespace and among objects of the cluster.

    Asks for every kind that the API server has: for when something has not gone for a while.

    Args:
        client: may see everything.
        install_id: whose namespace.
        references: the install's objects of cluster scope.
    """
    space = install_namespace_of(install_id)
    return [*_in_namespace(client, space), *_of_cluster(client, references)]


def what_holds(held: Sequence[Held]) -> str:
    """Return what an operation waits for, as people read it."""
    return f"what has finalizers to go: {first_few([str(one) for one in held], ', ')}"


def what_to_do(held: Sequence[Held]) -> str:
    """Return what is there and what a person does about it, as sentences."""
    return (
        f"Finalizers keep {first_few([str(one) for one in held], ', ')}. Whatever set a finalizer "
        "removes it when it has cleaned up after itself. If that is gone too, look at what it "
        f"leaves behind, and remove the finalizer: {held[0].command}. The operation then goes on."
    )


def _in_namespace(client: KubernetesClient, space: str) -> Iterator[Held]:
    for resource in listed_in_namespaces(client):
        try:
            found = client.list_metadata(resource.collection(space))
        except BulkheadError as error:
            # It went meanwhile, or is an extension's whose server is away.
            if error.retryable and error.metadata.get("status") is None:
                raise
            continue
        for one in found:
            yield from _held(resource, one)


def _of_cluster(
    client: KubernetesClient, references: Sequence[Mapping[str, str]]
) -> Iterator[Held]:
    discovery = Discovery(client)
    for reference in references:
        resource = discovery.find(reference["api_version"], reference["kind"])
        if resource is not None:
            live = client.find(resource.path(reference["name"], reference["namespace"]))
            if live is not None:
                yield from _held(resource, live)


def _held(resource: ApiResource, found: Object) -> Iterator[Held]:
    metadata: dict[str, Any] = found["metadata"]
    finalizers = tuple(one for one in metadata.get("finalizers") or [] if one not in _OF_OTHERS)
    if finalizers and "deletionTimestamp" in metadata:
        yield Held(
            kind=resource.kind,
            resource=f"{resource.plural}.{resource.group}".rstrip("."),
            namespace=metadata.get("namespace") or "",
            name=metadata["name"],
            finalizers=finalizers,
        )
