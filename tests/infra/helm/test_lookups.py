"""Templates read the cluster as it is, but for what Secrets hold that their chart did not make."""

import json
from typing import Any

import pytest

from infra.helm.archive import files_of
from infra.helm.lookups import can_look_up
from infra.helm.manifest import LAST_APPLIED
from infra.kubernetes.client import Object
from tests.charts import archive
from tests.infra.helm.conftest import Place

_SEEN = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: seen}
data:
  one: {{ lookup "v1" "Secret" .Release.Namespace "NAME" | toJson | quote }}
  all: {{ lookup "v1" "Secret" .Release.Namespace "" | toJson | quote }}
  settings: {{ (lookup "v1" "ConfigMap" .Release.Namespace "settings").data | toJson | quote }}
  absent: {{ lookup "v1" "Secret" .Release.Namespace "absent" | toJson | quote }}
"""
_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def _secret(name: str, **metadata: Any) -> Object:  # noqa: ANN401 - of an object
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, **metadata},
        "stringData": {"password": f"of {name}", "ca.crt": _CERTIFICATE},
    }


def _owned(place: Place) -> dict[str, str]:
    return {
        "meta.helm.sh/release-name": place.release.name,
        "meta.helm.sh/release-namespace": place.release.namespace,
    }


async def _seen(place: Place, name: str) -> dict[str, Any]:
    """Return what a template finds of a Secret, of all, and of other objects."""
    chart = archive("web", files={"templates/seen.yaml": _SEEN.replace("NAME", name)})
    rendered = await place.helm.template(chart, {}, place.release, place.access)
    [found] = [obj["data"] for obj in rendered if obj["metadata"]["name"] == "seen"]
    return {key: json.loads(text) for key, text in found.items()}


async def test_templates_see_what_their_own_chart_keeps_in_secrets_and_no_other_data(
    place: Place,
) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    place.client.create(place.path_of("configmaps"), {**settings, "data": {"a": "b"}})
    applied = {LAST_APPLIED: json.dumps(_secret("theirs")), "note": "theirs"}
    for secret in (
        _secret("own", annotations=_owned(place)),
        _secret("theirs", annotations=applied),
        _secret("ours", annotations=_owned(place), labels={"bulkhead.io/secret": "x"}),
    ):
        place.client.create(place.path_of("secrets"), secret)

    own = await _seen(place, "own")
    assert set(own["one"]["data"]) == {"password", "ca.crt"}
    assert own["settings"] == {"a": "b"}
    assert own["absent"] == {}
    by_name = {obj["metadata"]["name"]: obj for obj in own["all"]["items"]}
    assert set(by_name) >= {"own", "theirs", "ours"}
    for name in ("theirs", "ours"):
        seen = (await _seen(place, name))["one"]
        assert seen["type"] == "Opaque"
        # Public by what it is.
        assert list(seen["data"]) == ["ca.crt"]
        assert LAST_APPLIED not in seen["metadata"]["annotations"]
        assert by_name[name]["data"] == seen["data"]
    assert "of theirs" not in json.dumps(own)
    assert by_name["own"]["data"] == own["one"]["data"]


@pytest.mark.parametrize(
    ("template", "can"),
    [
        ("a: {{ .Values.a }}", False),
        ('a: {{ lookup "v1" "Secret" "" "" }}', True),
        ('a: {{ tpl (printf "{{ look%s }}" "up") . }}', True),
    ],
)
def test_a_chart_that_looks_nothing_up_asks_the_cluster_itself(template: str, can: bool) -> None:  # noqa: FBT001 - a case
    assert can_look_up(files_of(archive("web", files={"templates/own.yaml": template}))) is can
