"""The demo's chart, packaged in whatever version is wanted and pushed to a registry."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from cli.errors import CliError, ExitCode

NAME: Final = "greeter"

_CHART: Final = Path(__file__).with_name("chart")
_REPOSITORY: Final = f"charts/{NAME}"
_CONFIG: Final = "application/vnd.cncf.helm.config.v1+json"
_LAYER: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_SECONDS: Final = 20.0


def package(version: str, values: Mapping[str, Any]) -> bytes:
    """Return the chart as an archive.

    Args:
        version: its semantic version.
        values: over the chart's own defaults.
    """
    files = {
        path.relative_to(_CHART).as_posix(): path.read_text()
        for path in sorted(_CHART.rglob("*"))
        if path.is_file()
    }
    about = yaml.safe_load(files["Chart.yaml"]) | {"version": version, "appVersion": version}
    defaults = yaml.safe_load(files["values.yaml"]) | dict(values)
    files |= {"Chart.yaml": json.dumps(about), "values.yaml": json.dumps(defaults)}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as packed:
        for name, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(f"{NAME}/{name}")
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def push(registry: str, version: str, content: bytes) -> str:
    """Push an archive to a registry of this machine; return where the chart's versions are.

    Args:
        registry: its `host:port`, which is asked in plain HTTP.
        version: the tag.
        content: of `package`.

    Raises:
        CliError: the registry does not take it.
    """
    config = json.dumps({"name": NAME, "version": version}).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": _digest(config), "size": len(config)},
            "layers": [{"mediaType": _LAYER, "digest": _digest(content), "size": len(content)}],
        }
    ).encode()
    base = f"http://{registry}/v2/{_REPOSITORY}"
    try:
        with httpx.Client(trust_env=False, timeout=_SECONDS) as client:
            for blob in (config, content):
                begun = client.post(f"{base}/blobs/uploads/").raise_for_status()
                place = httpx.URL(begun.headers["location"])
                place = place.copy_merge_params({"digest": _digest(blob)})
                client.put(place, content=blob).raise_for_status()
            client.put(
                f"{base}/manifests/{version}",
                content=manifest,
                headers={"content-type": _MANIFEST},
            ).raise_for_status()
    except httpx.HTTPError as error:
        message = f"The registry of charts at {registry} does not take the demo's chart: {error}"
        raise CliError(message, ExitCode.UNAVAILABLE, next_commands=("make status",)) from error
    return f"oci://{registry}/{_REPOSITORY}"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
