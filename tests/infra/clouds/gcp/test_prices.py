"""Google's prices: made of the list's entries for processors and memory, page after page."""

import secrets
from collections.abc import Iterator

import pytest
import requests

import infra.clouds.gcp.prices
from domain.cloud import InstanceType, Provider
from domain.secret import SecretValue
from infra.clouds.gcp.cloud import GcpCloud
from infra.clouds.gcp.prices import Prices
from infra.local_cloud.serving import served
from tests.clouds.case import LocalAccount
from tests.clouds.gcp_case import CASE

BILLING = "cloudbilling.googleapis.com"
SKUS = "GET /v1/services/[^/]+/skus$"
FRANKFURT, IOWA = "europe-west3-a", "us-central1-a"


@pytest.fixture
def url() -> Iterator[str]:
    """A Google Cloud whose price list nobody has read."""
    with served(Provider.GCP) as url:
        yield url


@pytest.fixture
def account(url: str) -> LocalAccount:
    return LocalAccount(case=CASE, url=url, credential=CASE.credential(url))


@pytest.fixture
def open_without_prices(url: str) -> GcpCloud:
    body = {"project": f"acme-{secrets.token_hex(6)}", "apis_off": [BILLING]}
    answer = requests.post(f"{url}/_accounts", json=body, timeout=30)
    answer.raise_for_status()
    return GcpCloud(SecretValue(answer.content), CASE.settings(url))


def sizes(cloud: object, place: str = FRANKFURT) -> dict[str, InstanceType]:
    assert isinstance(cloud, GcpCloud)
    return {size.name: size for size in cloud.instance_types(place)}


@pytest.mark.parametrize(
    ("place", "name", "dollars"),
    [
        (FRANKFURT, "e2-standard-2", 2 * 0.02812 + 8 * 0.00377),
        (FRANKFURT, "n2-standard-4", 4 * 0.04073 + 16 * 0.00546),
        # Half of one processor is billed, of the two that it may use for a while.
        (FRANKFURT, "e2-small", 0.5 * 0.02812 + 2 * 0.00377),
        (IOWA, "c4a-standard-2", 2 * 0.0306 + 8 * 0.00347),
    ],
)
def test_a_type_costs_what_its_processors_and_its_memory_cost_in_its_region(
    account: LocalAccount, place: str, name: str, dollars: float
) -> None:
    found = sizes(account.cloud, place)[name]
    assert found.price_per_hour == pytest.approx(dollars)
    assert (found.currency, found.price_unknown) == ("USD", None)


def test_the_list_is_read_once_for_all_accounts(url: str, account: LocalAccount) -> None:
    account.disturb(kind="slow", call=SKUS, delay_seconds=0)
    sizes(account.cloud)
    pages = account.faults()[0]["struck"]
    assert pages > 1
    sizes(account.opened(CASE.credential(url)))
    assert account.faults()[0]["struck"] == pages


def test_the_list_is_read_anew_after_a_day(
    account: LocalAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.clouds.gcp.prices, "_KEPT_SECONDS", 0.0)
    account.disturb(kind="slow", call=SKUS, delay_seconds=0)
    sizes(account.cloud)
    pages = account.faults()[0]["struck"]
    sizes(account.cloud)
    assert account.faults()[0]["struck"] == 2 * pages


def test_an_account_whose_billing_api_is_off_has_its_types_without_prices_and_is_told_why(
    open_without_prices: GcpCloud,
) -> None:
    found = sizes(open_without_prices)["e2-standard-2"]
    assert found.available
    assert (found.price_per_hour, found.currency) == (None, None)
    assert BILLING in str(found.price_unknown)


@pytest.mark.parametrize("kind", ["rate_limit", "unavailable"])
def test_a_price_list_that_does_not_answer_stops_nothing(account: LocalAccount, kind: str) -> None:
    account.disturb(kind=kind, call=SKUS)
    found = sizes(account.cloud)["e2-standard-2"]
    assert found.available
    assert found.price_unknown
    account.heal()
    assert sizes(account.cloud)["e2-standard-2"].price_per_hour is not None


def test_a_list_that_takes_too_long_is_read_on_by_the_next_request(
    account: LocalAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.disturb(kind="slow", call=SKUS, delay_seconds=1)
    # The time is up with the first page.
    monkeypatch.setattr(infra.clouds.gcp.prices, "_READ_SECONDS", 0.5)
    problem = sizes(account.cloud)["n2-standard-2"].price_unknown
    assert problem is not None
    assert "not yet read to its end" in problem
    requests_needed = 1
    while sizes(account.cloud)["n2-standard-2"].price_unknown == problem:
        requests_needed += 1
        assert requests_needed < 20
    assert sizes(account.cloud)["n2-standard-2"].price_per_hour is not None


@pytest.mark.parametrize(
    "machine_type",
    [
        {"name": "e2-standard-2", "accelerators": [{"guestAcceleratorCount": 1}]},
        {"name": "e2-standard-2", "bundledLocalSsds": {"partitionCount": 1}},
        {"name": "e2-standard-2-lssd"},
        {"name": "e2-megamem-96"},
        {"name": "x9-standard-2"},
    ],
)
def test_a_type_that_costs_more_than_the_two_has_no_price(machine_type: dict[str, object]) -> None:
    prices = Prices(region="r", parts={("r", "e2", "Core"): 1.0, ("r", "e2", "Ram"): 1.0})
    price, unknown = prices.of({"guestCpus": 2, "memoryMb": 1024, **machine_type})
    assert price is None
    assert unknown
