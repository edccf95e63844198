"""A type of resource of a provider: what the engine may ask about one token."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

# Inputs and outputs by their names in the provider's schema, in camelCase.
Properties = dict[str, Any]

ClientT = TypeVar("ClientT")


class ProviderError(Exception):
    """The provider refused; the message is what the real provider program would print of it."""


class PartialError(ProviderError):
    """Something exists, but is not as it was asked for.

    The engine keeps it in the state as it is, makes nothing that depends on it, and the next `up`
    calls `update` (or replaces it).

    Attributes:
        id: by which the provider knows it.
        outputs: as far as they are known.
    """

    def __init__(self, resource_id: str, outputs: Properties, reason: str) -> None:
        super().__init__(reason)
        self.id = resource_id
        self.outputs = outputs


@dataclass(frozen=True, slots=True)
class CheckRefusal:
    """An input that cannot be."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """A resource as the provider has it.

    Attributes:
        id: by which the provider knows it; what it was asked by may be another word for it.
        outputs: all of its properties.
        inputs: all inputs that the provider tells, whether a program gave them or not.
    """

    id: str
    outputs: Properties
    inputs: Properties


class Resource(ABC, Generic[ClientT]):
    """One type. An object serves all resources of it, in several threads at once.

    Attributes:
        replace_on: inputs whose change makes another resource in its place.
        delete_before_replace: the old one goes first, because its name or address is taken.
        computed: inputs that the provider chooses when the program gives none: their absence is
            no change.
        unreadable: inputs that the provider does not tell again: a read keeps those of the state.
        secret: inputs and outputs that are always encrypted in the state.
    """

    replace_on: ClassVar[frozenset[str]] = frozenset()
    delete_before_replace: ClassVar[bool] = False
    computed: ClassVar[frozenset[str]] = frozenset()
    unreadable: ClassVar[frozenset[str]] = frozenset()
    secret: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, client: ClientT) -> None:
        self.client = client

    def check(self, inputs: Properties) -> Iterable[CheckRefusal]:
        """Return what is wrong with inputs, of which some may be `UNKNOWN`."""
        return ()

    def defaults(self, inputs: Properties) -> Properties:
        """Return inputs that the provider program adds when they are not given."""
        return {}

    def same(self, key: str, old: Any, new: Any) -> bool:
        """Return whether two values of an input mean the same; order in sets, for one."""
        return bool(old == new)

    @abstractmethod
    def create(self, inputs: Properties) -> tuple[str, Properties]:
        """Make one and return its id and its outputs. What exists already is never taken over.

        Raises:
            PartialError: it exists, but is not ready.
            ProviderError: nothing exists.
        """

    @abstractmethod
    def read(self, resource_id: str, inputs: Properties) -> Found | None:
        """Return one as it is now, for a refresh or an import; None: it is gone.

        Args:
            resource_id: the state's, or what an import was given.
            inputs: the state's; empty at an import.
        """

    @abstractmethod
    def update(
        self, resource_id: str, outputs: Properties, old: Properties, new: Properties
    ) -> Properties:
        """Change one in place and return its outputs.

        Also called, with `old` equal to `new`, after a `PartialError`: then it finishes it.

        Args:
            resource_id: which.
            outputs: as the state has them.
            old: its inputs so far.
            new: its inputs from now on.
        """

    @abstractmethod
    def delete(self, resource_id: str, outputs: Properties) -> None:
        """Remove one and wait until it is gone; one that is gone already is no failure."""


def changed_keys(
    resource: Resource[Any], old: Properties, new: Properties, ignored: Sequence[str] = ()
) -> dict[str, str]:
    """Return what differs between inputs: `add`, `update` or `delete` by key."""
    changes = {}
    for key in sorted(old.keys() | new.keys()):
        if key in ignored or key.startswith("__"):
            continue
        before, after = old.get(key), new.get(key)
        if key not in new and key in resource.computed:
            continue
        if (not before and not after) or resource.same(key, before, after):
            continue
        changes[key] = "add" if key not in old else "delete" if key not in new else "update"
    return changes
