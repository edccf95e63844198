"""Values of secrets in OpenBao: one path a version, ids only, written once.

The policies of our logins give `create` and not `update`, so the server itself refuses to write a
path again, also after its value was destroyed. Every field is a string, for OpenBao's audit log
hashes strings and shows everything else.
"""

import base64
import binascii
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

import hvac
from hvac import exceptions

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.names import secret_namespace_of, value_path_of
from domain.secret import SecretValue, ValueEncoding, VersionPlace
from infra.openbao import policies
from infra.openbao.answers import listing, read, write
from infra.openbao.session import OpenBaoSession

_T = TypeVar("_T")

_MOUNT: Final = policies.SECRETS_MOUNT

_WRAPPED: Final = re.compile(rf"{_MOUNT}/data/([0-9a-f]{{32}})/([0-9a-f]{{32}})")

# What takes the place of a value that shall never be: empty, so that it is no `SecretValue`, and
# with a field by which it is told apart without being read.
_SEALED: Final = {"v": "", "sha256": "", "encoding": "", "sealed": ""}


# In the metadata of a failed write: something is there, and comparing it needs an audit line.
STORED_BEFORE: Final = {"dependency": "openbao", "stored_before": "true"}


class Presence(StrEnum):
    """What is at a place, found out without reading it: every read of a value is audited."""

    ABSENT = "absent"
    VALUE = "value"
    GONE = "gone"


class ValueStore:
    """Reads and writes values under logins of the workspaces' namespaces. Blocking; thread-safe.

    Every method raises `BulkheadError` DEPENDENCY_UNAVAILABLE when the server is down, sealed or
    denies the login. After that the outcome of a write is unknown: it may be repeated.
    """

    def __init__(self, session: OpenBaoSession) -> None:
        self._session = session

    def write(
        self, place: VersionPlace, value: SecretValue, *, audit_id: str | None = None
    ) -> None:
        """Store a value; the same value at the same place again is fine.

        Args:
            place: the version.
            value: what to store.
            audit_id: the id of an audit line that was committed for this attempt, which one that
                may not be the first needs: where a value is, it is read and compared.

        Raises:
            BulkheadError: CONFLICT when another value is there, or the place was sealed;
                DEPENDENCY_UNAVAILABLE also when a value is there and none may be read.
        """
        document = {
            "v": base64.b64encode(value.data).decode(),
            "sha256": value.sha256,
            "encoding": value.encoding.value,
        }
        if self._create(place, document, "store a value"):
            return
        if self.look(place) is not Presence.VALUE:
            raise _is_given_up()
        if audit_id is None:
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "Another attempt stored the value of this version just now; the next one finds it.",
                metadata=dict(STORED_BEFORE),
            )
        stored = self._call(
            place, "compare a value", lambda client: _stored(client, place, audit_id)
        )
        if stored is None or stored["sha256"] != value.sha256:
            raise _is_given_up()

    def seal(self, place: VersionPlace) -> bool:
        """Make sure that nothing is ever written to a place where nothing was written yet.

        Returns:
            True when the place is sealed; False when a value is there.
        """
        if self._create(place, dict(_SEALED), "give a version up"):
            self.destroy(place)
            return True
        return self.look(place) is not Presence.VALUE

    def look(self, place: VersionPlace) -> Presence:
        """Tell what is at a place; a sealed one is `GONE`."""
        return self._call(place, "look at a version", lambda client: _presence(client, place))

    def read(self, place: VersionPlace, audit_id: str) -> SecretValue:
        """Return a value.

        Args:
            place: the version.
            audit_id: the id of the audit line that was committed for this read.

        Raises:
            BulkheadError: NOT_FOUND when there is no value; INTERNAL when what is stored does not
                fit its checksum.
        """
        stored = self._call(place, "read a value", lambda client: _stored(client, place, audit_id))
        if stored is None or not stored["v"]:
            raise _no_value()
        return _value_in(stored)

    def wrap(self, place: VersionPlace, audit_id: str, ttl_seconds: int) -> str:
        """Return a token that yields a value once, within a time, instead of the value.

        Raises:
            BulkheadError: NOT_FOUND when there is no value.
        """
        answer = self._call(
            place,
            "wrap a value",
            lambda client: _read(client, place, audit_id, wrap_ttl=f"{ttl_seconds}s"),
        )
        if answer is None:
            raise _no_value()
        return str(answer["wrap_info"]["token"])

    def place_of_wrapped(self, workspace_id: str, token: str) -> VersionPlace:
        """Return which version a token of `wrap` stands for, without using the token up.

        OpenBao unwraps a token in whatever namespace it is asked, so the caller must check that
        the workspace has this secret.

        Raises:
            BulkheadError: NOT_FOUND when the token is unknown, used up or has ended.
        """
        facts = self._wrapping("look at a wrapped value", workspace_id, "lookup", token)
        # Anything can be wrapped: only a read of a value was made by `wrap`.
        match = _WRAPPED.fullmatch(str((facts or {}).get("creation_path", "")))
        if match is None:
            raise _no_wrapped_value()
        return VersionPlace(
            workspace_id=workspace_id,
            secret_id=f"{Prefix.SECRET}_{match[1]}",
            version_id=f"{Prefix.SECRET_VERSION}_{match[2]}",
        )

    def unwrap(self, workspace_id: str, token: str, audit_id: str) -> SecretValue:
        """Return the value that a token of `wrap` stands for; the token is used up.

        Args:
            workspace_id: in whose namespace the login is.
            token: of `wrap`.
            audit_id: the id of the audit line that was committed for this.

        Raises:
            BulkheadError: NOT_FOUND when the token is unknown, used up or has ended.
        """
        answer = self._wrapping("unwrap a value", workspace_id, "unwrap", token, audit_id)
        if not answer or not (answer.get("data") or {}).get("v"):
            raise _no_wrapped_value()
        return _value_in(answer["data"])

    def destroy(self, place: VersionPlace) -> None:
        """Destroy a value and read back that it is gone. The place stays taken.

        Raises:
            BulkheadError: INTERNAL when the value is still readable afterwards.
        """

        def request(client: hvac.Client) -> bool:
            write(client, f"{_MOUNT}/destroy/{value_path_of(place)}", {"versions": [1]})
            return _presence(client, place) is not Presence.VALUE

        if not self._call(place, "destroy a value", request):
            raise BulkheadError(
                Reason.INTERNAL, "A destroyed value can still be read; it is tried again."
            )

    def purge(self, place: VersionPlace) -> None:
        """Remove a value and everything OpenBao knows of it, and read back that nothing is there.

        Raises:
            BulkheadError: INTERNAL when something is still there afterwards.
        """

        def request(client: hvac.Client) -> bool:
            path = f"{_MOUNT}/metadata/{value_path_of(place)}"
            client.delete(path)
            # A delete of what was never there answers the same: only reading tells.
            return read(client, path) is None and _presence(client, place) is Presence.ABSENT

        if not self._call(place, "purge a value", request):
            raise BulkheadError(
                Reason.INTERNAL, "A purged value is still there; it is tried again."
            )

    def names(self, workspace_id: str) -> list[tuple[str, str]]:
        """Return the opaque parts of secret and version of every place that is taken."""

        def request(client: hvac.Client) -> list[tuple[str, str]]:
            found: list[tuple[str, str]] = []
            for folder in listing(client, f"{_MOUNT}/metadata").get("keys", []):
                secret = str(folder).rstrip("/")
                below = listing(client, f"{_MOUNT}/metadata/{secret}").get("keys", [])
                found += [(secret, str(version)) for version in below]
            return found

        namespace = secret_namespace_of(workspace_id)
        return self._session.call(
            "list values", request, namespace=namespace, login_namespace=namespace
        )

    def _create(self, place: VersionPlace, document: dict[str, str], operation: str) -> bool:
        """Write to a fresh path; False when it is taken."""

        def request(client: hvac.Client) -> bool:
            path = f"{_MOUNT}/data/{value_path_of(place)}"
            try:
                write(client, path, {"data": document, "options": {"cas": 0}})
            except exceptions.InvalidRequest:
                return False
            except exceptions.Forbidden:
                # A taken path asks for `update`, which nobody has; so does an ended token, for
                # everything.
                if _presence(client, place) is Presence.ABSENT:
                    raise
                return False
            return True

        return self._call(place, operation, request)

    def _wrapping(
        self,
        operation: str,
        workspace_id: str,
        verb: str,
        token: str,
        audit_id: str | None = None,
    ) -> dict[str, Any] | None:
        def request(client: hvac.Client) -> dict[str, Any] | None:
            try:
                path = f"sys/wrapping/{verb}"
                return write(client, path, {"token": token}, _audited_by(audit_id))
            except exceptions.InvalidRequest:
                return None

        namespace = secret_namespace_of(workspace_id)
        return self._session.call(
            operation, request, namespace=namespace, login_namespace=namespace
        )

    def _call(
        self,
        place: VersionPlace,
        operation: str,
        request: Callable[[hvac.Client], _T],
    ) -> _T:
        namespace = secret_namespace_of(place.workspace_id)
        return self._session.call(
            operation, request, namespace=namespace, login_namespace=namespace
        )


def _is_given_up() -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        "This version was written with another value, or given up; add a new one.",
    )


def _presence(client: hvac.Client, place: VersionPlace) -> Presence:
    try:
        answer = client.adapter.get(f"/v1/{_MOUNT}/subkeys/{value_path_of(place)}")
    except exceptions.InvalidPath as error:
        # The answer for a destroyed version carries its metadata; for an empty path it does not.
        return Presence.GONE if "destroyed" in (error.text or "") else Presence.ABSENT
    names = answer["data"]["subkeys"] if isinstance(answer, dict) else {}
    return Presence.GONE if "sealed" in names else Presence.VALUE


def _stored(
    client: hvac.Client, place: VersionPlace, audit_id: str | None = None
) -> dict[str, str] | None:
    answer = _read(client, place, audit_id)
    return None if answer is None else answer["data"]["data"]


def _read(
    client: hvac.Client,
    place: VersionPlace,
    audit_id: str | None = None,
    *,
    wrap_ttl: str | None = None,
) -> dict[str, Any] | None:
    try:
        return _answer(client, place, audit_id, wrap_ttl=wrap_ttl)
    except exceptions.InvalidPath:
        return None


def _answer(
    client: hvac.Client,
    place: VersionPlace,
    audit_id: str | None = None,
    *,
    wrap_ttl: str | None = None,
) -> dict[str, Any] | None:
    answer = client.adapter.get(
        f"/v1/{_MOUNT}/data/{value_path_of(place)}",
        headers=_audited_by(audit_id),
        wrap_ttl=wrap_ttl,
    )
    return answer if isinstance(answer, dict) else None


def _audited_by(audit_id: str | None) -> dict[str, str]:
    return {} if audit_id is None else {policies.AUDIT_ID_HEADER: audit_id}


def _value_in(stored: dict[str, str]) -> SecretValue:
    try:
        value = SecretValue(
            base64.b64decode(stored["v"], validate=True), ValueEncoding(stored["encoding"])
        )
    except (binascii.Error, KeyError, ValueError):
        value = None
    if value is None or value.sha256 != stored.get("sha256"):
        raise BulkheadError(
            Reason.INTERNAL,
            "What is stored of this version does not fit its checksum. It is not shown; restore "
            "the secret store from a backup, or add a new version.",
            retryable=False,
        )
    return value


def _no_value() -> BulkheadError:
    return BulkheadError(Reason.NOT_FOUND, "This version has no value in the secret store.")


def _no_wrapped_value() -> BulkheadError:
    return BulkheadError(
        Reason.NOT_FOUND,
        "This wrapping token is unknown, was used, or has ended. If you did not use it yourself, "
        "somebody else may have: rotate the secret.",
        path=("body", "token"),
    )
