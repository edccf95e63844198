"""Small charts, each for one thing, and places that serve them: a registry and a repository."""

import base64
import contextlib
import functools
import hashlib
import http.server
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import yaml

from infra.helm.archive import pack, read_archive
from infra.tools import ensure
from tests.api.process import free_port

_CHARTS = Path(__file__).parent
NAMES = tuple(sorted(path.parent.name for path in _CHARTS.glob("*/Chart.yaml")))

# What a registry or a repository may ask for. The registry knows bcrypt's hashes alone.
LOGIN = ("charts", "one-of-this-test")
_HASHED = "$2b$04$vRaPQpWH/dE597K6KgEjlOuYtFdUO/hQc88EctEM0QY9vPP6Zy.Mm"

_CONFIG = "application/vnd.cncf.helm.config.v1+json"
_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def archive(
    name: str,
    version: str = "1.0.0",
    *,
    values: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> bytes:
    """Package a chart of this folder.

    Args:
        name: of the chart.
        version: of the package.
        values: over the defaults in the chart's own `values.yaml`.
        files: that are added or replaced, by their path in the chart.
    """
    folder = _CHARTS / name
    found = {
        path.relative_to(_CHARTS).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    about = yaml.safe_load(found[f"{name}/Chart.yaml"])
    found[f"{name}/Chart.yaml"] = json.dumps(
        {**about, "version": version, "appVersion": version}
    ).encode()
    if values:
        defaults = yaml.safe_load(found.get(f"{name}/values.yaml", b"")) or {}
        found[f"{name}/values.yaml"] = json.dumps({**defaults, **values}).encode()
    for path, text in (files or {}).items():
        found[f"{name}/{path}"] = text.encode()
    return pack(found)


@dataclass(frozen=True)
class Registry:
    """The registry program, on loopback without TLS."""

    address: str
    asks_login: bool = False

    def url_of(self, name: str) -> str:
        """Return where a chart's versions are."""
        return f"oci://{self.address}/charts/{name}"

    def push(self, content: bytes, tag: str | None = None) -> str:
        """Push a package under its version, or another tag; return the manifest's digest."""
        chart = read_archive(content, "")
        repository = f"http://{self.address}/v2/charts/{chart.name}"
        config = json.dumps({"name": chart.name, "version": chart.semver}).encode()
        with httpx.Client(auth=LOGIN if self.asks_login else None, trust_env=False) as client:
            for blob in (config, content):
                started = client.post(f"{repository}/blobs/uploads/").raise_for_status()
                place = httpx.URL(started.headers["location"])
                place = place.copy_merge_params({"digest": _digest(blob)})
                client.put(place, content=blob).raise_for_status()
            manifest = {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {"mediaType": _CONFIG, "digest": _digest(config), "size": len(config)},
                "layers": [{"mediaType": _LAYER, "digest": _digest(content), "size": len(content)}],
            }
            reference = tag or chart.semver.replace("+", "_")
            client.put(
                f"{repository}/manifests/{reference}",
                content=json.dumps(manifest).encode(),
                headers={"content-type": _MANIFEST},
            ).raise_for_status()
        return _digest(json.dumps(manifest).encode())


@contextlib.contextmanager
def running_registry(
    *,
    asks_login: bool = False,
    auth: Mapping[str, Any] | None = None,
    port: int | None = None,
    storage: Path | None = None,
) -> Iterator[Registry]:
    """Run the registry program.

    Args:
        asks_login: for `LOGIN`.
        auth: another way in which it asks for a login, as in its configuration.
        port: where; a free one by default.
        storage: a folder that outlives it.
    """
    with tempfile.TemporaryDirectory(prefix="bulkhead-charts-") as home:
        address = f"127.0.0.1:{port or free_port()}"
        settings: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": os.fspath(storage or Path(home, "data"))}},
            "http": {"addr": address, "secret": "for-this-test-alone"},
        }
        if auth is not None:
            settings["auth"] = auth
        elif asks_login:
            Path(home, "htpasswd").write_text(f"{LOGIN[0]}:{_HASHED}\n")
            settings["auth"] = {
                "htpasswd": {"realm": "charts", "path": os.fspath(Path(home, "htpasswd"))}
            }
        Path(home, "registry.json").write_text(json.dumps(settings))
        program = ensure(("registry",))["registry"]
        with subprocess.Popen(
            [program, "serve", Path(home, "registry.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                _wait_for(address)
                yield Registry(address, asks_login)
            finally:
                process.terminate()


@dataclass
class Repository:
    """A chart repository: an index that Helm made, and packages, over HTTP on loopback."""

    url: str
    folder: Path
    requests: list[str] = field(default_factory=list)

    def add(self, *contents: bytes) -> None:
        """Publish packages, and write the index anew."""
        for content in contents:
            self.replace(content)
        environment = {name: os.fspath(self.folder.parent) for name in ("HOME", "HELM_CACHE_HOME")}
        helm = ensure(("helm",))["helm"]
        subprocess.run([helm, "repo", "index", self.folder], check=True, env=environment)

    def replace(self, content: bytes) -> None:
        """Put a package in its place, and leave the index as it is."""
        chart = read_archive(content, "")
        (self.folder / f"{chart.name}-{chart.semver}.tgz").write_bytes(content)


@contextlib.contextmanager
def running_repository(*, asks_login: bool = False) -> Iterator[Repository]:
    """Serve a chart repository; `asks_login`: to whoever shows `LOGIN`."""
    with tempfile.TemporaryDirectory(prefix="bulkhead-charts-") as home:
        folder = Path(home, "charts")
        folder.mkdir()
        wanted = f"Basic {base64.b64encode(':'.join(LOGIN).encode()).decode()}"
        found = Repository("", folder)

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                found.requests.append(self.path)
                if asks_login and self.headers["authorization"] != wanted:
                    self.send_error(401)
                    return
                super().do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        handler = functools.partial(Handler, directory=os.fspath(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            found.url = f"http://127.0.0.1:{server.server_port}"
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                found.add()
                yield found
            finally:
                server.shutdown()
                thread.join()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _wait_for(address: str) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
