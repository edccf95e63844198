import asyncio
import ipaddress
from typing import Any

import pytest

from domain.errors import BulkheadError, Reason
from infra.embedded.applications import environment_of
from infra.outbound import Outbound
from infra.settings import OutboundSettings, WorkerSettings
from tests.servers import Servers

NOT_PUBLIC = [
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.9",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700:0:0:200:5efe:a00:1",
    "3fff::1",
    "fc00::1",
    "fec0::1",
]
NEVER = [
    "0.0.0.0",  # noqa: S104 - an address that is refused
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]


def way_out(*networks: str) -> Outbound:
    return Outbound(OutboundSettings.model_validate({"allowed_networks": list(networks)}))


@pytest.mark.parametrize("address", NOT_PUBLIC + NEVER)
def test_an_address_that_is_not_public_is_closed(address: str) -> None:
    with pytest.raises(BulkheadError) as refused:
        way_out().check(address)
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    assert address not in refused.value.message


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_open_and_not_the_operators_own(address: str) -> None:
    way_out().check(address)
    assert not way_out("10.0.0.0/8").is_operators_own(address)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_services_stay_closed_whatever_the_operator_allows(address: str) -> None:
    with pytest.raises(BulkheadError):
        way_out("0.0.0.0/0", "::/0").check(address)


def test_the_operator_opens_a_network_and_nothing_beside_it() -> None:
    outbound = way_out("10.2.0.0/16")
    outbound.check("10.2.0.1")
    outbound.check("::ffff:10.2.0.1")
    assert outbound.is_operators_own("10.2.0.1")
    for beside in ("10.3.0.1", "2002:a02:1::", "::10.2.0.1"):
        with pytest.raises(BulkheadError):
            outbound.check(beside)


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1", "017700000001"])
async def test_a_name_is_judged_by_what_it_resolves_to(host: str) -> None:
    with pytest.raises(BulkheadError) as refused:
        await way_out().addresses_of(host, 443)
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    found = await way_out("127.0.0.0/8", "::1/128").addresses_of(host, 443)
    assert all(ipaddress.ip_address(address).is_loopback for address in found)


async def test_of_a_name_with_many_addresses_a_few_are_tried_and_all_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [f"1.1.1.{number}" for number in range(1, 200)]

    async def resolve(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(2, 1, 6, "", (address, 443)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    assert await way_out().addresses_of("many.example", 443) == found[:4]
    found.append("10.0.0.1")
    with pytest.raises(BulkheadError) as refused:
        await way_out().addresses_of("many.example", 443)
    assert refused.value.reason is Reason.FAILED_PRECONDITION


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".example"])
async def test_a_name_that_nobody_knows_is_tried_again(host: str) -> None:
    with pytest.raises(BulkheadError) as unknown:
        await way_out().addresses_of(host, 443)
    assert unknown.value.retryable


def test_a_worker_reads_the_operators_networks_from_its_environment(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbound = OutboundSettings.model_validate({"allowed_networks": ["10.0.0.0/8", "fd12::/48"]})
    variables = environment_of(
        servers.database, servers.temporal, servers.openbao("worker"), outbound
    )
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert WorkerSettings().outbound == outbound
