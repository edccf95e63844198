"""The address at which servers reach a stack: chosen once, kept, and taken away by the purge."""

import os
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from domain.errors import BulkheadError, Reason
from infra.embedded import node_address
from infra.embedded.home import Home
from infra.embedded.stack import Stack
from infra.settings import EmbeddedSettings

# No stack has it: there are not that many blocks of ports.
NUMBER = 249
ADDRESS = f"100.64.{NUMBER}.1"
ELSEWHERE = "203.0.113.7"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can add an address")


def _is_here(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


@needs_root
def test_a_local_address_is_made_kept_made_again_and_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "node-address.json"
    try:
        node_address.ensure(file, "local", NUMBER)
        assert _is_here(ADDRESS)
        kept = file.read_text()
        # The next start says nothing about it, and finds it gone with the machine's power.
        node_address.forget(file)
        assert not _is_here(ADDRESS)
        file.write_text(kept)
        assert "make up" in node_address.problem_of(ADDRESS)
        node_address.ensure(file, None, NUMBER)
        assert _is_here(ADDRESS)
        node_address.ensure(file, "none", NUMBER)
        assert not _is_here(ADDRESS)
        assert node_address.load(file) is None
    finally:
        file.write_text(node_address.NodeAddress(address=ADDRESS, made=True).model_dump_json())
        node_address.forget(file)


def test_an_address_of_another_machine_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "node-address.json"
    with pytest.raises(BulkheadError) as refused:
        node_address.ensure(file, ELSEWHERE, NUMBER)
    assert refused.value.reason is Reason.FAILED_PRECONDITION
    assert "BULKHEAD_NODE_ADDRESS" in refused.value.message
    assert not file.exists()


def test_nothing_is_made_where_nothing_is_set(tmp_path: Path) -> None:
    file = tmp_path / "node-address.json"
    node_address.ensure(file, None, NUMBER)
    assert node_address.load(file) is None
    node_address.forget(file)


@pytest.mark.parametrize(
    "value",
    ["127.0.0.1", "0.0.0.0", "::1", "a-name", "224.0.0.1"],  # noqa: S104 - refused
)
def test_what_no_server_could_dial_is_refused_as_a_setting(value: str) -> None:
    with pytest.raises(ValidationError):
        EmbeddedSettings(node_address=value)


def test_programs_of_nodes_are_needed_only_where_servers_can_join(tmp_path: Path) -> None:
    def needed(chosen: str | None) -> tuple[str, ...]:
        settings = EmbeddedSettings.model_construct(home=None, node_address=chosen)
        return Stack(Home(tmp_path), settings).programs

    assert "kube-apiserver" in needed(None)
    assert "kubelet" not in needed(None)
    assert {"kubelet", "coredns"} <= set(needed("local"))
    # Chosen before, by another `up`.
    kept = node_address.NodeAddress(address=ELSEWHERE, made=False)
    Home(tmp_path).node_address_file.write_text(kept.model_dump_json())
    assert "kubelet" in needed(None)
    assert "kubelet" not in needed("none")
