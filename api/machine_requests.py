"""Machines of one shape, as several requests name them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from api.fields import PRINTABLE, Body, check_visible
from api.machine_plans import Fallback, MachineRequest
from api.places import Place
from domain.compute import LARGEST_POOL
from domain.errors import BulkheadError, Reason


def _visible_or_empty(name: str) -> str:
    return check_visible(name) if name else name


MachineName = Annotated[
    str,
    StringConstraints(max_length=120, pattern=PRINTABLE),
    AfterValidator(_visible_or_empty),
]


InstanceType = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]


class FallbackRequest(Body):
    """What is tried when the choice before it has no capacity; what is absent is as before."""

    region: Place | None = None
    instance_type: InstanceType | None = None


Count = Annotated[int, Field(ge=1, le=LARGEST_POOL)]
Fallbacks = Annotated[list[FallbackRequest], Field(max_length=LARGEST_POOL)]


class MachineShapeRequest(Body):
    """Machines of one shape; `count` and `fallbacks` are ours."""

    instance_type: InstanceType
    compute_config_id: Annotated[
        str, StringConstraints(min_length=1, max_length=54, pattern=PRINTABLE)
    ]
    name: MachineName = ""
    count: Count = 1
    # Without it, the config's own places.
    fallbacks: Fallbacks | None = None

    def wanted(self, *path: str) -> MachineRequest:
        """Return what is asked for, at a path of the request.

        Raises:
            BulkheadError: INVALID_ARGUMENT for a fallback that says nothing.
        """
        return MachineRequest(
            compute_config_id=self.compute_config_id,
            instance_type=self.instance_type,
            count=self.count,
            name=self.name or None,
            fallbacks=fallbacks_of(self.fallbacks, *path),
            path=path,
        )


def fallbacks_of(fallbacks: Sequence[FallbackRequest] | None, *path: str) -> list[Fallback] | None:
    """Return what is tried when the first choice has no capacity; None: the config's own places.

    Raises:
        BulkheadError: INVALID_ARGUMENT for a fallback that says nothing.
    """
    if fallbacks is None:
        return None
    for position, fallback in enumerate(fallbacks):
        if fallback.region is None and fallback.instance_type is None:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                "A fallback names another region, another instance_type, or both.",
                path=(*path, "fallbacks", str(position)),
            )
    return [Fallback(region=each.region, instance_type=each.instance_type) for each in fallbacks]
