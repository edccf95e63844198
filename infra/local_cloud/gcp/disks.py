"""Compute Engine's disks, and the images and snapshots that are copied from them."""

import asyncio
from typing import Final

from infra.local_cloud.boots import Boots
from infra.local_cloud.gcp import answers, catalogue
from infra.local_cloud.gcp.calls import Call, location_of
from infra.local_cloud.gcp.compute import Compute
from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.kinds import KINDS, LINK_BASE, path_of_link, without
from infra.local_cloud.gcp.store import Operation, Resource

COLLECTIONS: Final = frozenset({"disks", "snapshots", "images"})

_DEFAULT_DISK_GIB: Final = 10
# The share of a disk that a copy of it takes.
_COPY_SHARE: Final = 10
_GIB: Final = 1 << 30


class Disks:
    """Answers the methods of `COLLECTIONS`."""

    def __init__(self, compute: Compute, boots: Boots) -> None:
        self._compute = compute
        self._store = compute.store
        self._boots = boots

    async def answer(self, collection: str, verb: str, call: Call) -> Json:
        """Answer a method."""
        match collection, verb:
            case "disks", "insert":
                return self._insert_disk(call).body()
            case "disks", "resize":
                return self._resize(call).body()
            case "disks", "createSnapshot":
                copied = call.body | {"sourceDisk": self._compute.target(call, "disks").path}
                return self._copy("snapshots", call, copied).body()
            case (("images" | "snapshots"), "insert"):
                return self._copy(collection, call, dict(call.body)).body()
            case (("images" | "snapshots"), "delete"):
                return self._delete_copy(collection, call).body()
        return await self._compute.answer(collection, verb, call)

    def _insert_disk(self, call: Call) -> Operation:
        body = self._disk_body(call, call.body, call.body.get("sourceImage"))
        source = body.pop("_boot", None)
        operation = self._compute.insert(KINDS["disks"], call, body)
        self._store.get(operation.target).boot = source
        return operation

    def _resize(self, call: Call) -> Operation:
        disk = self._compute.changeable(call, "disks")
        wanted = int(call.body.get("sizeGb", 0))
        if wanted <= int(disk.body["sizeGb"]):
            raise answers.invalid(message="Invalid value for field 'sizeGb': disks can only grow.")
        disk.body["sizeGb"] = str(wanted)
        return self._compute.begin(disk, "resizeDisk", call)

    def _copy(self, collection: str, call: Call, body: Json) -> Operation:
        """Begin an image or a snapshot of a disk."""
        link = body.get("sourceDisk")
        if not link:
            raise answers.not_emulated(method=f"compute.{collection}.insert without `sourceDisk`")
        project = call.project
        disk = self._store.ready(path_of_link(link, project, None, None))
        owner = next(map(self._store.get, self._store.users_of(disk.path)), None)
        forced = collection == "snapshots" or call.query.get("forceCreate") == "true"
        if owner is not None and owner.body["status"] != "TERMINATED" and not forced:
            raise answers.in_use(what="disk", path=disk.path, user=owner.path)
        size = int(disk.body["sizeGb"])
        taken = str(size * _GIB // _COPY_SHARE)
        body |= {"sourceDiskId": disk.body["id"], "diskSizeGb": str(size)}
        body["archiveSizeBytes" if collection == "images" else "storageBytes"] = taken
        body.setdefault("storageLocations", ["eu"])
        kind = KINDS[collection]
        # A snapshot of a disk is asked for in the disk's zone, but lives nowhere in particular.
        everywhere = Call({"project": project}, call.query, call.body, call.caller)
        operation = self._compute.insert(kind, everywhere, body)
        made = self._store.get(operation.target)
        made.body["status"] = "PENDING" if collection == "images" else "CREATING"
        operation.finish = lambda _: made.body.update(status="READY")
        if owner is not None and owner.boot is not None:
            operation.work = asyncio.create_task(self._keep(made, owner.boot, operation))
        return operation

    async def _keep(self, made: Resource, boot: str, operation: Operation) -> None:
        try:
            made.boot = await asyncio.to_thread(self._boots.snapshot, boot)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no copy
            print(f"{made.path}: {error}")
            operation.errors.append(("INTERNAL_ERROR", "Internal error. Please try again."))
            operation.finish = lambda _: made.body.update(status="FAILED")

    def _delete_copy(self, collection: str, call: Call) -> Operation:
        made = self._compute.changeable(call, collection)
        operation = self._compute.delete(made, call)
        if made.boot is not None:
            remove = asyncio.to_thread(self._boots.remove_snapshot, made.boot)
            operation.work = asyncio.create_task(remove)
        return operation

    def of_instance(self, call: Call, body: Json) -> tuple[list[Resource], list[Json]]:
        """Make the disks that come with an instance; returns them and what is attached."""
        made: list[Resource] = []
        attached = []
        for index, given in enumerate(body.get("disks", [])):
            link = given.get("source")
            if link is None:
                parameters = given.get("initializeParams", {})
                name = parameters.get("diskName", body["name"])
                disk = self._disk_body(
                    call,
                    {
                        "name": name,
                        "sizeGb": parameters.get("diskSizeGb"),
                        "type": parameters.get("diskType"),
                        "labels": parameters.get("labels", {}),
                    },
                    parameters.get("sourceImage"),
                )
                source = disk.pop("_boot", None)
                path = self._compute.path_of(call, "disks", name)
                resource = self._store.add(path, KINDS["disks"], disk | {"status": "READY"})
                resource.boot = source
                made.append(resource)
                link = f"{LINK_BASE}{path}"
            attached.append(
                {"mode": "READ_WRITE", "type": "PERSISTENT", "interface": "SCSI"}
                | without(given, "initializeParams")
                | {
                    "kind": "compute#attachedDisk",
                    "index": index,
                    "source": link,
                    "deviceName": given.get("deviceName", f"persistent-disk-{index}"),
                }
            )
        if not any(disk.get("boot") for disk in attached):
            raise answers.invalid(message="Invalid value for field 'resource.disks': no boot disk.")
        return made, attached

    def _disk_body(self, call: Call, given: Json, image_link: str | None) -> Json:
        """Return a disk's body; `_boot` in it is the key of what it was copied from."""
        project = call.project
        body = {name: value for name, value in given.items() if value is not None}
        size = _DEFAULT_DISK_GIB
        if image_link:
            path = path_of_link(image_link, project, None, None)
            image = catalogue.public_image(path)
            if image is None:
                own = self._store.ready(path)
                image, body["_boot"] = self._store.rendered(own), own.boot
            size = int(image["diskSizeGb"])
            body |= {"sourceImage": image["selfLink"], "sourceImageId": image["id"]}
        wanted = int(body.get("sizeGb", size))
        if wanted < size:
            raise answers.invalid_field(
                field="resource.sizeGb",
                value=wanted,
                why=f"Requested disk size cannot be smaller than the image size ({size} GB)",
            )
        zone = location_of(call).partition("/")[2]
        kind = path_of_link(body.get("type", "diskTypes/pd-standard"), project, None, zone)
        return body | {"sizeGb": str(wanted), "type": f"{LINK_BASE}{kind}"}
