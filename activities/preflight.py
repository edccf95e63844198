"""What an account offers before anything is made in it: sizes, prices, and how much more."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from temporalio import activity

from domain.caller import system_caller
from domain.compute import PlaceOffer, PreflightRequest, PreflightResult
from infra.clouds.threads import in_thread

if TYPE_CHECKING:
    from infra.clouds.accounts import Accounts
    from infra.clouds.cloud import Cloud
    from infra.database.records.account import AccountRecords

_CALLER: Final = "preflight-machines"

# Types, prices and limits: some pages for each place.
_CALLS_A_PLACE: Final = 6


class PreflightActivities:
    """Asks an account, for a request that waits."""

    def __init__(self, accounts: "Accounts", records: "AccountRecords") -> None:
        self._accounts = accounts
        self._records = records

    @activity.defn
    async def preflight(self, request: PreflightRequest) -> PreflightResult:
        """Return what each place has, in the order of the request.

        Raises:
            BulkheadError: NOT_FOUND for the config; INVALID_ARGUMENT for a place that the provider
                does not have, or an image that the types which are wanted cannot boot;
                CREDENTIAL_REJECTED; RATE_LIMITED.
        """
        account = await self._records.account_of_config(
            request.workspace_id, request.compute_config_id
        )
        caller = request.caller or system_caller(request.workspace_id, _CALLER)
        secret_id = account.secret_id
        async with self._accounts.opened(
            account, caller, operation_id=_CALLER, calls=_CALLS_A_PLACE * len(request.places)
        ) as cloud:
            offers = [
                await in_thread(secret_id, partial(_offer, cloud, place), only_reads=True)
                for place in request.places
            ]
            for offer in offers:
                if account.image:
                    wanted = request.instance_types
                    look = partial(_check_image, cloud, account.image, offer, wanted)
                    await in_thread(secret_id, look, only_reads=True)
        return PreflightResult(places=offers)


def _offer(cloud: "Cloud", place: str) -> PlaceOffer:
    name = cloud.place(place).name
    return PlaceOffer(
        place=name,
        instance_types=list(cloud.instance_types(name)),
        allowance=cloud.allowance(name),
    )


def _check_image(cloud: "Cloud", image: str, offer: PlaceOffer, wanted: Sequence[str]) -> None:
    architectures = {one.architecture for one in offer.instance_types if one.name in wanted}
    for architecture in sorted(architectures):
        cloud.check_image(image, offer.place, architecture)
