"""Copies of the disks of Hetzner's servers."""

import secrets
from contextlib import closing
from functools import partial

import pytest
import requests
from hcloud import Client
from hcloud.images import Image
from hcloud.server_types import ServerType

from domain.cloud import SNAPSHOT, Provider, Tag
from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.clouds.hcloud.cloud import open_cloud
from infra.local_cloud.serving import served
from infra.settings import ProviderSettings
from tests.infra.clouds.copies import HeldDisks, end_of_copy

TAGS: dict[str, str] = {Tag.WORKSPACE: "ws_1", Tag.RESOURCE: SNAPSHOT}


def make_server(url: str, token: str) -> str:
    """Have a server, and return its id."""
    console = Client(token, f"{url}/v1", poll_interval=0.05)
    with closing(console._client._session):  # noqa: SLF001 - it has no other end
        made = console.servers.create("one", ServerType(name="cx23"), Image(name="debian-12"))
        for action in (made.action, *made.next_actions):
            action.wait_until_finished()
        return str(made.server.id)


def test_a_copy_that_failed_is_removed_and_begun_again() -> None:
    disks = HeldDisks()
    with served(Provider.HCLOUD, boots=disks) as url:
        body = {"project": secrets.token_hex(8)}
        token = requests.post(f"{url}/_accounts", json=body, timeout=10).json()["token"]
        cloud = open_cloud(SecretValue.of_text(token), ProviderSettings(hcloud_url=f"{url}/v1"))
        keep = partial(cloud.snapshot, make_server(url, token), "bh-kept", TAGS, "fsn1")
        disks.fail_once()
        assert keep() is None
        with pytest.raises(BulkheadError) as failed:
            end_of_copy(keep)
        assert failed.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert keep() is None
        kept = end_of_copy(keep)
        assert [thing.id for thing in cloud.inventory("ws_1")] == [kept.id]
