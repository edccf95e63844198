"""The local Google Cloud, asked by Google's own client library."""

import contextlib
import json
import secrets
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import pytest
import requests
from google.oauth2.service_account import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from domain.cloud import Provider
from infra.local_cloud.serving import served

_ZONE, _REGION = "europe-west3-a", "europe-west3"
_UBUNTU = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]

Body = dict[str, Any]


@dataclass
class RecordedBoots:
    """Notes what would be booted, when it is not held."""

    created: list[dict[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    _free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._free.set()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def create(self, key: str, **how: str) -> IPv4Address | None:
        self._free.wait(60)
        self.created.append({"key": key, **how})
        return IPv4Address("192.0.2.77")

    def power_off(self, key: str) -> None: ...

    def power_on(self, key: str) -> None: ...

    def snapshot(self, key: str) -> str:
        return f"copy-of-{key}"

    def remove_snapshot(self, snapshot_key: str) -> None:
        self.removed.append(snapshot_key)

    def remove(self, key: str) -> None:
        self.removed.append(key)


_BOOTS = RecordedBoots()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(Provider.GCP, boots=_BOOTS, action_seconds=0.1) as found:
        yield found


class Project:
    """A project, with Google's client for Compute Engine."""

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401 - of the control path
        self.url = url
        self.id = f"acme-{secrets.token_hex(6)}"
        self.compute = self.client(**options)

    def client(self, **options: Any) -> Any:  # noqa: ANN401 - Google's client has no types
        answer = requests.post(
            f"{self.url}/_accounts", json={"project": self.id, **options}, timeout=30
        )
        self.key = answer.json()
        credentials = Credentials.from_service_account_info(self.key, scopes=_SCOPES)  # type: ignore[no-untyped-call]
        return build(
            "compute",
            "v1",
            credentials=credentials,
            static_discovery=True,
            cache_discovery=False,
            client_options={"api_endpoint": f"{self.url}/compute/v1/"},
        )

    def wait(self, operation: Body) -> Body:
        arguments, collection = {}, self.compute.globalOperations()
        for scope, name in (("zone", "zoneOperations"), ("region", "regionOperations")):
            if scope in operation:
                collection = getattr(self.compute, name)()
                arguments = {scope: operation[scope].rpartition("/")[2]}
        done: Body = collection.wait(
            project=self.id, operation=operation["name"], **arguments
        ).execute()
        return done

    def add_network(self, name: str = "net") -> None:
        body = {"name": name, "autoCreateSubnetworks": False}
        self.wait(self.compute.networks().insert(project=self.id, body=body).execute())

    def add_subnetwork(self, cidr: str = "10.5.0.0/24", name: str = "subnet") -> Body:
        body = {"name": name, "network": "global/networks/net", "ipCidrRange": cidr}
        subnetworks = self.compute.subnetworks()
        return self.wait(subnetworks.insert(project=self.id, region=_REGION, body=body).execute())

    def instance(self, name: str, **more: Any) -> Body:  # noqa: ANN401 - of the request's body
        return {
            "name": name,
            "machineType": f"zones/{_ZONE}/machineTypes/e2-standard-2",
            "disks": [
                {"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": _UBUNTU}}
            ],
            "networkInterfaces": [
                {
                    "subnetwork": f"regions/{_REGION}/subnetworks/subnet",
                    "accessConfigs": [{"type": "ONE_TO_ONE_NAT"}],
                }
            ],
            "metadata": {"items": [{"key": "user-data", "value": "#cloud-config"}]},
            **more,
        }

    def add_instance(self, name: str = "one", **more: Any) -> Body:  # noqa: ANN401 - as above
        instances = self.compute.instances()
        body = self.instance(name, **more)
        return self.wait(instances.insert(project=self.id, zone=_ZONE, body=body).execute())

    def get(self, name: str = "one") -> Body:
        found: Body = (
            self.compute.instances().get(project=self.id, zone=_ZONE, instance=name).execute()
        )
        return found


@pytest.fixture
def project(url: str) -> Iterator[Project]:
    made = Project(url)
    yield made
    requests.delete(f"{url}/_faults", timeout=30)
    made.compute.close()


def _refused(request: Any) -> tuple[int, str, str]:  # noqa: ANN401 - Google's client has no types
    with pytest.raises(HttpError) as caught:
        request.execute()
    told = json.loads(caught.value.content)["error"]
    return caught.value.resp.status, told["errors"][0]["reason"], told["message"]


def test_a_change_is_an_operation_that_is_done_later_and_a_name_is_taken_at_once(
    project: Project,
) -> None:
    project.add_network()
    project.add_subnetwork()
    instances, where = project.compute.instances(), {"project": project.id, "zone": _ZONE}
    body, again = project.instance("one"), str(uuid.uuid4())
    with _BOOTS.held():
        begun = instances.insert(**where, body=body, requestId=again).execute()
        assert begun["status"] in {"PENDING", "RUNNING"}
        repeated = instances.insert(**where, body=body, requestId=again).execute()
        assert repeated["name"] == begun["name"]
        assert _refused(instances.insert(**where, body=body))[:2] == (409, "alreadyExists")
        assert _refused(instances.delete(**where, instance="one"))[:2] == (400, "resourceNotReady")
    assert project.wait(begun)["status"] == "DONE"
    project.wait(instances.delete(**where, instance="one").execute())
    assert _refused(instances.get(**where, instance="one"))[:2] == (404, "notFound")


def test_what_is_used_cannot_be_deleted_and_ranges_do_not_overlap(project: Project) -> None:
    project.add_network()
    assert "error" not in project.add_subnetwork()
    networks, subnetworks = project.compute.networks(), project.compute.subnetworks()
    in_use = (400, "resourceInUseByAnotherResource")
    assert _refused(networks.delete(project=project.id, network="net"))[:2] == in_use
    with pytest.raises(HttpError, match="conflicts with existing subnetwork"):
        project.add_subnetwork("10.5.0.128/25", "other")
    project.add_instance()
    request = subnetworks.delete(project=project.id, region=_REGION, subnetwork="subnet")
    assert _refused(request)[:2] == in_use


def test_a_body_is_checked_against_googles_own_description(project: Project) -> None:
    networks = project.compute.networks()
    for body, told in (
        ({"name": "net", "nonsense": 1}, 'Unknown name "nonsense"'),
        ({"name": "Not_a_name", "autoCreateSubnetworks": False}, "Must be a match of regex"),
        ({"name": "net", "autoCreateSubnetworks": "perhaps"}, "autoCreateSubnetworks"),
    ):
        status, reason, message = _refused(networks.insert(project=project.id, body=body))
        assert (status, reason) == (400, "invalid")
        assert told in message


def test_a_server_boots_with_its_user_data_and_goes_with_its_disk(project: Project) -> None:
    project.add_network()
    project.add_subnetwork()
    done = project.add_instance(labels={"owner": "us"})
    assert "error" not in done
    found = project.get()
    booted = next(one for one in _BOOTS.created if one["key"] == f"gcp-{found['id']}")
    assert booted["user_data"] == "#cloud-config"
    assert found["networkInterfaces"][0]["networkIP"] == "192.0.2.77"
    assert found["status"] == "RUNNING"
    instances = project.compute.instances()
    project.wait(instances.delete(project=project.id, zone=_ZONE, instance="one").execute())
    disks = project.compute.disks().aggregatedList(project=project.id).execute()
    assert not any(place.get("disks") for place in disks["items"].values())
    assert booted["key"] in _BOOTS.removed


def test_a_change_that_was_decided_on_an_older_state_is_refused(project: Project) -> None:
    project.add_network()
    project.add_subnetwork()
    project.add_instance()
    instances = project.compute.instances()
    where = {"project": project.id, "zone": _ZONE, "instance": "one"}
    old = project.get()
    given = {"labels": {"a": "b"}, "labelFingerprint": old["labelFingerprint"]}
    project.wait(instances.setLabels(**where, body=given).execute())
    assert project.get()["labels"] == {"a": "b"}
    assert _refused(instances.setLabels(**where, body=given))[:2] == (412, "conditionNotMet")
    metadata = {"items": [], "fingerprint": old["metadata"]["fingerprint"]}
    project.wait(instances.setMetadata(**where, body=metadata).execute())
    assert _refused(instances.setMetadata(**where, body=metadata))[:2] == (412, "conditionNotMet")


def test_without_capacity_the_operation_fails_and_nothing_is_left(project: Project) -> None:
    project.add_network()
    project.add_subnetwork()
    fault = {"kind": "capacity", "place": _ZONE, "instance_type": "e2-standard-2"}
    requests.post(f"{project.url}/_faults", json=fault, timeout=30).raise_for_status()
    failed = project.add_instance()
    assert failed["error"]["errors"][0]["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED"
    for name in ("instances", "disks"):
        listed = getattr(project.compute, name)().list(project=project.id, zone=_ZONE).execute()
        assert "items" not in listed or listed["items"] == []


def test_quotas_permissions_and_dead_tokens_are_told_apart(url: str) -> None:
    project = Project(url, region_quotas={"CPUS": 3})
    project.add_network()
    project.add_subnetwork()
    project.add_instance()
    with project.compute as compute:
        request = compute.instances().insert(
            project=project.id, zone=_ZONE, body=project.instance("two")
        )
        status, reason, message = _refused(request)
        assert (status, reason) == (403, "quotaExceeded")
        assert "Quota 'CPUS' exceeded" in message
    with project.client(account="reader", permissions=["compute.networks.list"]) as reader:
        assert reader.networks().list(project=project.id).execute()["items"]
        status, reason, message = _refused(
            reader.networks().delete(project=project.id, network="net")
        )
        assert (status, reason) == (403, "forbidden")
        assert "compute.networks.delete" in message
    answer = requests.get(
        f"{url}/compute/v1/projects/{project.id}/global/networks",
        headers={"authorization": "Bearer ya29.none"},
        timeout=30,
    )
    assert answer.status_code == 401


def test_an_image_of_a_stopped_servers_disk_boots_what_was_on_it(project: Project) -> None:
    project.add_network()
    project.add_subnetwork()
    project.add_instance()
    first = project.get()
    images, where = project.compute.images(), {"project": project.id, "zone": _ZONE}
    body = {"name": "kept", "sourceDisk": first["disks"][0]["source"]}
    in_use = (400, "resourceInUseByAnotherResource")
    assert _refused(images.insert(project=project.id, body=body))[:2] == in_use
    project.wait(project.compute.instances().stop(**where, instance="one").execute())
    project.wait(images.insert(project=project.id, body=body).execute())
    assert images.get(project=project.id, image="kept").execute()["status"] == "READY"
    project.wait(project.compute.instances().delete(**where, instance="one").execute())
    disk = {"boot": True, "initializeParams": {"sourceImage": "global/images/kept"}}
    project.add_instance("two", disks=[disk])
    booted = next(one for one in _BOOTS.created if one["key"] == f"gcp-{project.get('two')['id']}")
    assert booted["image"] == f"copy-of-gcp-{first['id']}"


def test_lists_are_filtered_and_come_in_pages(project: Project) -> None:
    networks = project.compute.networks()
    for name in ("bh-1", "bh-2", "other"):
        project.add_network(name)
    found, request = [], networks.list(project=project.id, filter='name eq "bh-.*"', maxResults=1)
    while request is not None:
        page = request.execute()
        assert len(page["items"]) == 1
        found += page["items"]
        request = networks.list_next(request, page)
    assert [one["name"] for one in found] == ["bh-1", "bh-2"]
    wrong = networks.list(project=project.id, filter="((")
    assert _refused(wrong)[:2] == (400, "invalid")
