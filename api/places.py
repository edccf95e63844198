"""Places as requests name them: their shape, and whether a workspace lets machines be there."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import StringConstraints

from api.scope import RequestScope
from domain.cloud import Provider
from domain.compute import allowed_place
from domain.errors import BulkheadError, Reason
from infra.clouds.registry import profile_of
from infra.database.queries.compute import allowed_places

Place = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")
]


def check_place(provider: Provider, place: str, path: tuple[str, ...]) -> None:
    """Refuse what cannot name a place of the provider.

    Raises:
        BulkheadError: INVALID_ARGUMENT.
    """
    profile = profile_of(provider)
    # A zone's region is named like it, less a letter.
    if profile.zone is not None and not profile.zone.fullmatch(place):
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"At {provider} a machine is in a zone: name one, such as {profile.zone_example}.",
            path=path,
        )


async def check_allowed(scope: RequestScope, provider: Provider, places: Iterable[str]) -> None:
    """Refuse places where the workspace lets no machine or snapshot be.

    Raises:
        BulkheadError: PERMISSION_DENIED.
    """
    allowed = await allowed_places(scope.session)
    if allowed is None:
        return
    refused = sorted({allowed_place(provider, place) for place in places} - set(allowed))
    if refused:
        raise BulkheadError(
            Reason.PERMISSION_DENIED,
            f"The workspace does not let machines and their snapshots be in {', '.join(refused)}. "
            "An owner can change the list of allowed places (compute_policy).",
            metadata={"places": ",".join(refused)},
        )
