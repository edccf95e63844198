from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.compose.volumes import OPENBAO_DIRECTORY, OPENBAO_PORT, Users
from infra.temporal.start import SEARCH_ATTRIBUTES

ROOT = Path(__file__).parents[3]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
    "services"
]
SETUP = ("secrets", "platform")


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in SETUP])
def test_each_service_runs_as_the_user_that_its_secrets_are_given_to(name: str) -> None:
    user = getattr(Users(), name)

    assert SERVICES[name]["user"] == f"{user}:{user}"


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_no_service_keeps_a_capability_that_it_does_not_name(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_no_service_leaves_core_dumps(service: dict[str, Any]) -> None:
    assert service["ulimits"] == {"core": 0}


def test_only_the_api_the_ui_and_the_clusters_are_published_on_loopback_by_default() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert set(published) == {"api", "temporal", "worker"}
    assert all(
        port.startswith("${BULKHEAD_BIND:-127.0.0.1}:")
        for ports in published.values()
        for port in ports
    )


def test_a_server_sees_no_secret_volume_of_another() -> None:
    mounts = {
        name: {volume.split(":")[0] for volume in service.get("volumes", [])}
        for name, service in SERVICES.items()
    }

    assert mounts["api"] == {"api-secrets"}
    assert mounts["worker"] == {"worker-secrets", "control-planes"}
    assert mounts["postgresql"] == {"postgresql", "postgresql-secrets"}
    assert {name for name, volumes in mounts.items() if "setup" in volumes} == set(SETUP)


def test_no_secret_is_a_variable() -> None:
    values = [value for service in SERVICES.values() for value in _variables(service).items()]

    assert values
    assert not [name for name, _ in values if name.endswith(("PASSWORD", "TOKEN", "KEY"))]


def test_temporal_gets_the_search_attributes_that_workflows_use() -> None:
    wanted = {f"--search-attribute={key.name}=Keyword" for key in SEARCH_ATTRIBUTES}

    assert wanted == {
        option
        for option in SERVICES["temporal"]["command"]
        if option.startswith("--search-attribute")
    }


def test_openbao_reads_the_configuration_where_it_is_written() -> None:
    assert f"openbao:{OPENBAO_DIRECTORY}" in SERVICES["openbao"]["volumes"]
    assert f"openbao:{OPENBAO_DIRECTORY}" in SERVICES["secrets"]["volumes"]
    assert SERVICES["openbao"]["working_dir"] == str(OPENBAO_DIRECTORY)
    for name in ("api", "worker"):
        assert _variables(SERVICES[name])["OPENBAO__ADDRESS"] == f"http://openbao:{OPENBAO_PORT}"


def _variables(service: dict[str, Any]) -> dict[str, str]:
    return dict(service.get("environment", {}))
