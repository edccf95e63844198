"""An install whose pods really run: on a server that joined, seen and read through the platform."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from domain.names import install_namespace_of
from tests import charts
from tests.end_to_end.canaries import Canaries, histories, other_files, processes_seen
from tests.end_to_end.servers import Place, running_place, until
from tests.end_to_end.stack import Body
from tests.end_to_end.vendor import Vendor
from tests.end_to_end.workload import port_forward

_LINE_WITHIN_SECONDS = 30.0

_DEPLOYMENT = "web/templates/deployment.yaml"
# At the end of it: where the web server keeps what is uploaded.
_VOLUME = """\
          volumeMounts: [{name: uploads, mountPath: /uploads}]
      volumes: [{name: uploads, emptyDir: {}}]
"""


@pytest.mark.full
@pytest.mark.timeout(600)
def test_an_install_runs_on_a_server_and_what_its_app_has_stays_there(
    tmp_path: Path,
) -> None:
    with running_place(tmp_path) as place:
        server = place.switch_on("worker")
        place.joined(server)
        versions = {version: _web(place, version) for version in ("1.0.0", "1.1.0")}
        vendor = Vendor(place.bulkhead, versions)
        cluster = place.bulkhead.get(f"/clusters/{place.cluster_id}")
        created = vendor.succeeded(vendor.install(cluster["region_id"], cluster["id"]))
        install_id = created["owner_id"]
        _turn_logs_on(place, cluster["workspace_id"])
        pod = _running_pod(place, install_id)
        with _followed(place, install_id) as lines:
            # Written before anybody followed, and written while somebody does.
            assert "8080" in _line_of(lines, pod, "server")
            canaries = Canaries()
            in_log = canaries.new("a line of the log")
            with port_forward(place, f"pod/{pod}", 8080, install_namespace_of(install_id)) as url:
                _keep_in_volume(url, canaries.new("a file of a volume"))
                asked = {"x-canary": canaries.new("a request")}
                said = httpx.get(f"{url}/echo", params={"msg": in_log}, headers=asked, timeout=10)
            assert said.text == in_log
            assert _line_of(lines, pod, in_log)
            # What the customer's app has is on the customer's server.
            kept = f"grep --recursive --quiet {canaries['a file of a volume'].decode()}"
            assert server.run(f"{kept} /var/lib/kubelet/pods").status == 0
            assert canaries.found_in(_stores_of(place, install_id)) == []
        _move(place, vendor, install_id)
        assert _running_pod(place, install_id) != pod
        _delete(place, vendor, install_id)
        space = install_namespace_of(install_id)
        assert space not in place.kubectl("get", "namespaces", "-o", "name")
        assert server.firewall_counters().accepted == 0


def _headers(place: Place, path: str) -> dict[str, str]:
    """Return what a change of something needs, as it is now."""
    return {"If-Match": place.bulkhead.get(path)["etag"], "Idempotency-Key": uuid4().hex}


def _keep_in_volume(url: str, content: str) -> None:
    """Have the web server write a file into its volume."""
    files = {"file": ("upload", content.encode())}
    httpx.post(f"{url}/upload", files=files, timeout=10).raise_for_status()


def _stores_of(place: Place, install_id: str) -> dict[str, bytes]:
    """Return all that the platform keeps, where an install's operations are as well."""
    home = place.bulkhead.stack.home.directory
    kept, inside = asyncio.run(histories(place.bulkhead))
    assert install_id.encode() in inside
    return {
        "histories": kept,
        "payloads": inside,
        "processes": processes_seen(),
        **other_files(home),
    }


def _web(place: Place, version: str) -> bytes:
    """Return a chart of Kubernetes' test image, as a web server that logs what it is asked."""
    values = {
        "image": place.demo_image,
        "args": ["netexec", "--http-port=8080"],
        "greeting": version,
    }
    template = Path(charts.__file__).parent / _DEPLOYMENT
    files = {"templates/deployment.yaml": template.read_text() + _VOLUME}
    return charts.archive("web", version, values=values, files=files)


def _turn_logs_on(place: Place, workspace_id: str) -> None:
    path = f"/workspaces/{workspace_id}"
    body = {"install_logs_enabled": True}
    place.bulkhead.persist("PATCH", path, json=body, headers=_headers(place, path))


def _running_pod(place: Place, install_id: str) -> str:
    """Return the install's only pod, which is ready."""
    status = place.bulkhead.get(f"/installs/{install_id}/status")
    assert (status["state"], status["health"]) == ("healthy", "Healthy"), status

    def look() -> str | None:
        pods = place.bulkhead.get(f"/installs/{install_id}/pods")["data"]
        # The one before may need a second to end.
        return pods[0]["name"] if len(pods) == 1 and pods[0]["ready"] else None

    return until(look, 30, "one ready pod")


@contextlib.contextmanager
def _followed(place: Place, install_id: str) -> Iterator[Iterator[Body]]:
    """Follow an install's logs: the lines as they come."""
    timeout = httpx.Timeout(10, read=_LINE_WITHIN_SECONDS)
    path = f"/installs/{install_id}/logs"
    with place.bulkhead.http.stream("GET", path, timeout=timeout) as answer:
        assert answer.status_code == httpx.codes.OK
        yield (
            json.loads(line.removeprefix("data: "))
            for line in answer.iter_lines()
            if line.startswith("data: ")
        )


def _line_of(lines: Iterator[Body], pod: str, part: str) -> str:
    """Return the next line of a pod that has a part in it."""
    return next(
        str(line["content"]) for line in lines if line["podName"] == pod and part in line["content"]
    )


def _move(place: Place, vendor: Vendor, install_id: str) -> None:
    path = f"/installs/{install_id}"
    body = {"package_version_id": vendor.versions["1.1.0"]}
    changed = place.bulkhead.persist(
        "POST", f"{path}:update", json=body, headers=_headers(place, path)
    )
    vendor.succeeded({"id": changed["render"]["operation_id"]})


def _delete(place: Place, vendor: Vendor, install_id: str) -> None:
    path = f"/installs/{install_id}"
    vendor.succeeded(place.bulkhead.persist("DELETE", path, headers=_headers(place, path)))
