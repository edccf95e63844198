"""What of a release goes so that another one can come back, and what is left alone."""

from functools import partial
from typing import Any

import pytest

from domain.errors import BulkheadError
from domain.names import install_namespace_of
from infra.helm.manifest import key_of
from infra.installs.planner import Wanted, make_plan
from infra.installs.release_objects import (
    added_by,
    make_way,
    remove_release_objects,
    remove_replaced,
)
from infra.kubernetes.client import KubernetesClient, Object
from tests.infra.installs.objects import config_map, path_of
from tests.infra.installs.world import World

_KEEP = {"helm.sh/resource-policy": "keep"}
_CLAIM = "persistentvolumeclaims"


def claim(mode: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": [mode],
            "storageClassName": "none",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def placed(install: str, manifest: Object, **metadata: Any) -> Object:  # noqa: ANN401 - JSON
    space = install_namespace_of(install)
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": space, **metadata}}


async def find(world: World, path: str) -> Object | None:
    return await world.clusters.ask(world.cluster, lambda client: client.find(path))


async def test_objects_of_others_in_the_namespace_are_refused_and_never_removed(
    world: World,
) -> None:
    install = await world.deploy(config_map("own"))
    hook = {"annotations": {"helm.sh/hook": "pre-upgrade"}}
    own = placed(install, config_map("own", a="1"))
    theirs = placed(install, config_map("theirs", a="1"))
    path = path_of(install, "configmaps", "theirs")

    def make(client: KubernetesClient) -> None:
        client.create(path.rpartition("/")[0], config_map("theirs", of="the-customer"))

    await world.clusters.ask(world.cluster, make)
    for wanted in (theirs, placed(install, config_map("theirs"), **hook)):
        asked = Wanted(namespaced=[wanted], cluster=[], before=[own], release_bytes=0)
        planning = partial(make_plan, install_id=install, wanted=asked)
        with pytest.raises(BulkheadError, match="theirs is on the cluster and not of this install"):
            await world.clusters.ask(world.cluster, planning)
        removal = partial(remove_release_objects, install_id=install, manifests=[own, wanted])
        await world.clusters.ask(world.cluster, removal)
    live = await find(world, path)
    assert live is not None
    assert live["data"] == {"of": "the-customer"}
    assert await find(world, path_of(install, "configmaps", "own")) is None


async def test_what_holds_data_stays_as_it_is_when_it_cannot_come_back(world: World) -> None:
    install = await world.deploy(
        claim("ReadWriteMany"),
        {**config_map("kept", a="2"), "immutable": True}
        | {"metadata": {"name": "kept", "annotations": _KEEP}},
        {**config_map("plain", a="2"), "immutable": True},
        {**config_map("by-hand", a="2"), "immutable": True},
    )
    unmarked = {"metadata": {"annotations": {"meta.helm.sh/release-name": None}}}
    by_hand = path_of(install, "configmaps", "by-hand")
    await world.clusters.ask(world.cluster, lambda client: client.patch(by_hand, unmarked))
    good = [
        placed(install, claim("ReadWriteOnce")),
        placed(install, config_map("kept", a="1"), annotations=_KEEP),
        placed(install, config_map("plain", a="1")),
        placed(install, config_map("by-hand", a="1")),
    ]

    def way(client: KubernetesClient) -> list[Object]:
        return make_way(client, install, good, ())

    volume, kept, plain, foreign = await world.clusters.ask(world.cluster, way)
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    assert (kept["data"], kept["metadata"]) == ({"a": "2"}, good[1]["metadata"])
    assert plain == good[2]
    assert foreign["data"] == {"a": "2"}
    assert await find(world, path_of(install, "configmaps", "plain")) is None
    for plural, name in (
        (_CLAIM, "data"),
        ("configmaps", "kept"),
        ("configmaps", "by-hand"),
    ):
        live = await find(world, path_of(install, plural, name))
        assert live is not None
        assert "deletionTimestamp" not in live["metadata"]


async def test_what_a_customer_made_in_place_of_an_object_goes_only_with_an_approval(
    world: World,
) -> None:
    install = await world.deploy(config_map("one"), config_map("two"))
    before = [placed(install, config_map(name)) for name in ("one", "two")]
    asked = Wanted(namespaced=[], cluster=[], before=before, release_bytes=0)
    planning = partial(make_plan, install_id=install, wanted=asked)
    assert not (await world.clusters.ask(world.cluster, planning)).needs_approval
    path = path_of(install, "configmaps", "two")

    def make_anew(client: KubernetesClient) -> None:
        client.delete(path)
        client.create(path.rpartition("/")[0], config_map("two"))

    await world.clusters.ask(world.cluster, make_anew)
    [need] = (await world.clusters.ask(world.cluster, planning)).needs
    assert (need["what"], "two (not of the release" in need["why"]) == ("approval", True)


async def test_what_came_after_an_object_that_was_approved_to_go_stays(world: World) -> None:
    install = await world.deploy(config_map("own"))
    own, path = placed(install, config_map("own")), path_of(install, "configmaps", "own")
    live = await find(world, path)
    assert live is not None
    for uid, stays in (("of-an-earlier-one", True), (live["metadata"]["uid"], False)):
        removal = partial(
            remove_replaced, install_id=install, manifests=[own], uids={key_of(own): uid}
        )
        await world.clusters.ask(world.cluster, removal)
        assert (await find(world, path) is not None) is stays


def test_what_a_failed_render_brought_goes_and_what_was_there_before_stays() -> None:
    space = {"namespace": "here"}

    def one(name: str, kind: str = "ConfigMap", **annotations: str) -> Object:
        metadata = {"name": name, "annotations": annotations, **space}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata}

    upgrade, first = {"helm.sh/hook": "pre-upgrade"}, {"helm.sh/hook": "pre-install"}
    failed = [
        one("added"),
        one("there-before"),
        one("deployed"),
        one("kept", **_KEEP),
        one("hook", **upgrade),
        one("hook-of-both", **upgrade),
        one("worker", "Pod", **upgrade),
        one("password", **first),
    ]
    good = [one("deployed"), one("hook-of-both", **upgrade), one("worker", "Pod", **upgrade)]
    added = frozenset(key_of(found) for found in failed if found != failed[1])
    gone = [found["metadata"]["name"] for found in added_by(failed, added, good)]
    assert gone == ["added", "hook", "worker"]
