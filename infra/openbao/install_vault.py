"""What OpenBao keeps of an install: the key of its digests, and what its renders put into Secrets.

All of that is under `installs/<install>/` of the workspace's own `kv` mount, so that one removal
takes everything.
"""

import contextlib
import json
import secrets
from collections.abc import Callable
from typing import Final, TypeVar

import hvac
from hvac import exceptions

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.identifiers import opaque_part
from domain.names import authority_mount_of, install_secret_path_of, secret_namespace_of
from infra.openbao import authorities, policies
from infra.openbao.answers import listing, read, write
from infra.openbao.session import OpenBaoSession

_T = TypeVar("_T")

_KEY: Final = "render-key"
_KEY_BYTES: Final = 32
_RENDERS: Final = "renders/"

# What charts put into Secrets, by object and field; see `infra.helm.manifest`.
SecretData = dict[str, dict[str, dict[str, str]]]


class InstallVault:
    """One workspace's installs at a time. Blocking; safe to use from several threads.

    Every method raises `BulkheadError` DEPENDENCY_UNAVAILABLE when the server is down, sealed or
    denies the login.
    """

    def __init__(self, session: OpenBaoSession) -> None:
        self._session = session
        self._ensured: set[str] = set()

    def ensure_readers(self, plane: HostedControlPlane) -> None:
        """Have the roles and policies of today for a cluster that is older than one of them.

        Two or three reads where nothing is missing. A cluster that has no authority gets none here.
        """
        mount = authority_mount_of(plane.cluster_id)

        def ensure(client: hvac.Client) -> None:
            known = listing(client, f"{mount}/roles").get("keys", [])
            for name, role in authorities.roles().items():
                if known and name not in known:
                    write(client, f"{mount}/roles/{name}", role)
            for login in policies.workspace_logins():
                path = f"sys/policies/acl/{login.principal}"
                found = read(client, path)
                if found is not None and found["policy"] != login.policy:
                    write(client, path, {"policy": login.policy})

        # Roles are those of the running program: once a process, and what a person removes is back
        # with the next one.
        if plane.cluster_id not in self._ensured:
            self._call("bring a cluster's roles up to date", plane.workspace_id, ensure)
            self._ensured.add(plane.cluster_id)

    def render_key(self, workspace_id: str, install_id: str) -> bytes:
        """Return the key of an install's digests of Secret data, made when there is none yet."""
        path = f"kv/data/{install_secret_path_of(install_id, _KEY)}"

        def ensure(client: hvac.Client) -> bytes:
            found = read(client, path)
            if found is None or found["data"] is None:
                # Create only: of two attempts at once the first one's key stays, for both.
                with contextlib.suppress(exceptions.InvalidRequest):
                    made = secrets.token_hex(_KEY_BYTES)
                    write(client, path, {"data": {"value": made}, "options": {"cas": 0}})
                found = read(client, path)
            if found is None or found["data"] is None:
                raise BulkheadError(
                    Reason.DEPENDENCY_UNAVAILABLE, "An install's key could not be kept."
                )
            return bytes.fromhex(found["data"]["value"])

        return self._call("keep an install's key", workspace_id, ensure)

    def keep_render(
        self, workspace_id: str, install_id: str, render_id: str, data: SecretData
    ) -> None:
        """Keep what a render puts into Secrets; once more, it is written over."""
        path = f"kv/data/{_render_path(install_id, render_id)}"
        # One string: the audit log hashes strings and shows everything else.
        if not data:
            return
        document: dict[str, object] = {"data": {"value": json.dumps(data)}}
        self._call("keep a render", workspace_id, lambda client: write(client, path, document))

    def render_data(self, workspace_id: str, install_id: str, render_id: str) -> SecretData:
        """Return what a render puts into Secrets; empty when nothing is kept of it."""
        path = f"kv/data/{_render_path(install_id, render_id)}"
        found = self._call("read a render", workspace_id, lambda client: read(client, path))
        if found is None or found["data"] is None:
            return {}
        data: SecretData = json.loads(found["data"]["value"])
        return data

    def forget_render(self, workspace_id: str, install_id: str, render_id: str) -> None:
        """Remove what a render puts into Secrets; what is not there is fine."""
        path = f"kv/metadata/{_render_path(install_id, render_id)}"
        self._call("remove a render", workspace_id, lambda client: _remove(client, path))

    def forget_install(self, workspace_id: str, install_id: str) -> None:
        """Remove everything of an install; what is not there is fine."""

        def remove(client: hvac.Client) -> None:
            for name in _names(client, install_id):
                _remove(client, f"kv/metadata/{install_secret_path_of(install_id, name)}")

        self._call("remove an install's keys", workspace_id, remove)

    def leftovers(self, workspace_id: str, install_id: str) -> list[str]:
        """Return what is still there of an install, as names for a person."""
        return self._call(
            "look for an install's keys", workspace_id, lambda client: _names(client, install_id)
        )

    def _call(self, what: str, workspace_id: str, request: Callable[[hvac.Client], _T]) -> _T:
        return self._session.call(what, request, namespace=secret_namespace_of(workspace_id))


def _render_path(install_id: str, render_id: str) -> str:
    return install_secret_path_of(install_id, _RENDERS + opaque_part(render_id))


def _names(client: hvac.Client, install_id: str) -> list[str]:
    folder = f"kv/metadata/{install_secret_path_of(install_id, '')}"
    names = [str(name) for name in listing(client, folder).get("keys", [])]
    if _RENDERS in names:
        names.remove(_RENDERS)
        renders = listing(client, folder + _RENDERS).get("keys", [])
        names += [_RENDERS + str(name) for name in renders]
    return names


def _remove(client: hvac.Client, path: str) -> None:
    with contextlib.suppress(exceptions.InvalidPath):
        client.delete(path)
