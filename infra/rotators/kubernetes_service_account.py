"""A token of a ServiceAccount in a hosted cluster, bound to a Secret that is its off switch.

A token of the TokenRequest API is valid until its end, unless the object that it is bound to goes.
Each rotation therefore makes an empty Secret, named from the operation, and binds its token to it.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from domain.errors import BulkheadError, Reason
from domain.identifiers import opaque_part
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.rotators.fields import RotatorSettings, read_settings
from infra.rotators.hosted_clusters import ClusterApi, HostedClusters

_PREFIX: Final = "bulkhead-rotation-"
_AUTHENTICATION: Final = "authentication.k8s.io/v1"

# An API server remembers a token that it accepted for ten seconds.
_REFUSED_WITHIN_SECONDS: Final = 20.0
_ASK_AGAIN_SECONDS: Final = 0.5

_DAY_SECONDS: Final = 24 * 60 * 60

_OK: Final = 200
_CREATED: Final = 201
_UNAUTHENTICATED: Final = 401
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409

Label = Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Subdomain = Annotated[
    str,
    StringConstraints(
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]
Audience = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[!-~]+$")]


class ServiceAccountSettings(RotatorSettings):
    """Whose token it is.

    Attributes:
        cluster_id: a hosted cluster of the workspace.
        namespace: where the ServiceAccount is.
        service_account: its name.
        audience: whom the token is for; without it the cluster's own API server.
        expiration_seconds: how long a token is valid at most; longer than the time between two
            rotations.
    """

    cluster_id: Annotated[str, StringConstraints(pattern=r"^clu_[0-9a-f]{32}$")]
    namespace: Label
    service_account: Subdomain
    audience: Audience | None = None
    expiration_seconds: int = Field(default=30 * _DAY_SECONDS, ge=600, le=366 * _DAY_SECONDS)

    @property
    def user(self) -> str:
        """The name under which the API server knows the ServiceAccount."""
        return f"system:serviceaccount:{self.namespace}:{self.service_account}"

    @property
    def account_path(self) -> str:
        """The path of the ServiceAccount."""
        return f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{self.service_account}"

    @property
    def secrets_path(self) -> str:
        """The path of the Secrets that tokens are bound to."""
        return f"/api/v1/namespaces/{self.namespace}/secrets"


@dataclass(frozen=True, slots=True)
class _BoundSecret:
    name: str
    uid: str


class KubernetesServiceAccount:
    """Replaces tokens of one ServiceAccount. The value is the token's text."""

    def __init__(self, clusters: HostedClusters) -> None:
        self._clusters = clusters

    @staticmethod
    def check_settings(secret_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with their defaults."""
        del secret_id
        return read_settings(ServiceAccountSettings, settings).model_dump(mode="json")

    async def reach(self, rotation: Rotation, current: SecretValue) -> None:
        """Look the ServiceAccount up."""
        del current
        settings = _settings_of(rotation)
        async with self._clusters.api_of(rotation.workspace_id, settings.cluster_id) as api:
            await _find_account(api, settings)

    async def create(self, rotation: Rotation, current: SecretValue) -> SecretValue:
        """Have the cluster make a token. A repetition makes another, with the same off switch."""
        del current
        settings = _settings_of(rotation)
        async with self._clusters.api_of(rotation.workspace_id, settings.cluster_id) as api:
            await _find_account(api, settings)
            bound = await _ensure_secret(api, settings, rotation)
            answer = await api.ask(
                "POST", f"{settings.account_path}/token", _token_request(settings, bound)
            )
        if answer.status != _CREATED:
            raise _refused(answer.status, "make a token")
        return SecretValue.of_text(str(answer.body["status"]["token"]))

    async def set(self, rotation: Rotation, pending: SecretValue, current: SecretValue) -> None:
        """Do nothing: a token is accepted from its making on, beside others."""

    async def test(self, rotation: Rotation, pending: SecretValue) -> None:
        """Use the token, or have it reviewed when it is for another audience."""
        settings = _settings_of(rotation)
        async with self._clusters.api_of(rotation.workspace_id, settings.cluster_id) as api:
            user = await _user_of(api, settings, pending)
        if user != settings.user:
            raise BulkheadError(
                Reason.CREDENTIAL_REJECTED,
                "The cluster does not accept the new token as the ServiceAccount's. Start the "
                "rotation again.",
            )

    async def unset(
        self, rotation: Rotation, pending: SecretValue | None, current: SecretValue
    ) -> None:
        """Remove the Secret that the new token is bound to, and see the token refused."""
        del current
        settings = _settings_of(rotation)
        with _cluster_may_be_gone():
            await self._unset(rotation, settings, pending)

    async def retire(
        self, rotation: Rotation, retired: SecretValue, replacement: SecretValue
    ) -> None:
        """Remove the Secret that the old token is bound to, and see the token refused.

        Raises:
            BulkheadError: FAILED_PRECONDITION when the old token was not made by a rotation and
                is still accepted: nothing but its end, or the ServiceAccount's, revokes it.
        """
        del replacement
        settings = _settings_of(rotation)
        with _cluster_may_be_gone():
            await self._retire(rotation, settings, retired)

    async def _unset(
        self, rotation: Rotation, settings: ServiceAccountSettings, pending: SecretValue | None
    ) -> None:
        async with self._clusters.api_of(rotation.workspace_id, settings.cluster_id) as api:
            answer = await api.ask("DELETE", f"{settings.secrets_path}/{_secret_name(rotation)}")
            if answer.status not in {_OK, _NOT_FOUND}:
                raise _refused(answer.status, "remove a Secret")
            if pending is not None:
                await _wait_until_refused(api, settings, pending)

    async def _retire(
        self, rotation: Rotation, settings: ServiceAccountSettings, retired: SecretValue
    ) -> None:
        async with self._clusters.api_of(rotation.workspace_id, settings.cluster_id) as api:
            bound = _bound_secret_of(settings, retired)
            if bound is None:
                if await _review(api, settings, retired) is not None:
                    raise _not_revocable()
                return
            answer = await api.ask(
                "DELETE",
                f"{settings.secrets_path}/{bound.name}",
                {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": bound.uid}},
            )
            # A conflict: a Secret of that name exists again, and is not the one.
            if answer.status not in {_OK, _NOT_FOUND, _CONFLICT}:
                raise _refused(answer.status, "remove a Secret")
            await _wait_until_refused(api, settings, retired)


def _settings_of(rotation: Rotation) -> ServiceAccountSettings:
    return read_settings(ServiceAccountSettings, rotation.settings)


@contextmanager
def _cluster_may_be_gone() -> Iterator[None]:
    """Have nothing to revoke where nobody is left that would accept the token."""
    try:
        yield
    except BulkheadError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise


def _secret_name(rotation: Rotation) -> str:
    return _PREFIX + opaque_part(rotation.operation_id)


async def _ensure_secret(
    api: ClusterApi, settings: ServiceAccountSettings, rotation: Rotation
) -> _BoundSecret:
    name = _secret_name(rotation)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "bulkhead"},
            "annotations": {"bulkhead/secret": rotation.secret_id},
        },
        "type": "Opaque",
        "immutable": True,
    }
    answer = await api.ask("POST", settings.secrets_path, secret)
    if answer.status == _CONFLICT:
        answer = await api.ask("GET", f"{settings.secrets_path}/{name}")
    if answer.status not in {_OK, _CREATED}:
        raise _refused(answer.status, "make a Secret")
    return _BoundSecret(name, str(answer.body["metadata"]["uid"]))


def _token_request(settings: ServiceAccountSettings, bound: _BoundSecret) -> dict[str, Any]:
    return {
        "apiVersion": _AUTHENTICATION,
        "kind": "TokenRequest",
        "spec": {
            "audiences": [] if settings.audience is None else [settings.audience],
            "expirationSeconds": settings.expiration_seconds,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Secret",
                "name": bound.name,
                "uid": bound.uid,
            },
        },
    }


async def _user_of(
    api: ClusterApi, settings: ServiceAccountSettings, token: SecretValue
) -> str | None:
    """Return as whom the cluster knows the holder of a token, None when it refuses it."""
    if settings.audience is not None:
        return await _review(api, settings, token)
    answer = await api.ask_with_token(
        _text_of(token),
        f"/apis/{_AUTHENTICATION}/selfsubjectreviews",
        {"apiVersion": _AUTHENTICATION, "kind": "SelfSubjectReview"},
    )
    if answer.status == _UNAUTHENTICATED:
        return None
    if answer.status != _CREATED:
        raise _refused(answer.status, "review a token")
    return str(answer.body["status"]["userInfo"]["username"])


async def _review(
    api: ClusterApi, settings: ServiceAccountSettings, token: SecretValue
) -> str | None:
    # The cluster's administrators can see what is reviewed, so it is shown nothing but a token that
    # it made itself.
    if _claims_of(token).get("sub") != settings.user:
        return None
    answer = await api.ask(
        "POST",
        f"/apis/{_AUTHENTICATION}/tokenreviews",
        {
            "apiVersion": _AUTHENTICATION,
            "kind": "TokenReview",
            "spec": {
                "token": _text_of(token),
                "audiences": [] if settings.audience is None else [settings.audience],
            },
        },
    )
    if answer.status != _CREATED:
        raise _refused(answer.status, "review a token")
    status = answer.body["status"]
    return str(status["user"]["username"]) if status.get("authenticated") else None


async def _wait_until_refused(
    api: ClusterApi, settings: ServiceAccountSettings, token: SecretValue
) -> None:
    try:
        async with asyncio.timeout(_REFUSED_WITHIN_SECONDS):
            while True:
                if await _review(api, settings, token) is None:
                    return
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
    except TimeoutError:
        raise BulkheadError(
            Reason.DEPENDENCY_UNAVAILABLE,
            "The cluster still accepts a token whose Secret was removed; it is looked at again.",
            metadata={"dependency": "kubernetes"},
        ) from None


def _bound_secret_of(settings: ServiceAccountSettings, token: SecretValue) -> _BoundSecret | None:
    """Return the Secret of ours that a token names as its own, None when it names none.

    The claims are not verified: all that they can name is a Secret of a rotation, in the namespace
    of the settings.
    """
    claims = _claims_of(token)
    kubernetes = claims.get("kubernetes.io")
    if claims.get("sub") != settings.user or not isinstance(kubernetes, dict):
        return None
    secret = kubernetes.get("secret")
    if not isinstance(secret, dict):
        return None
    name, uid = str(secret.get("name")), str(secret.get("uid"))
    hexadecimal = name.removeprefix(_PREFIX)
    if not name.startswith(_PREFIX) or not set(hexadecimal) <= set("0123456789abcdef"):
        return None
    return _BoundSecret(name, uid)


def _text_of(token: SecretValue) -> str:
    return token.data.decode(errors="replace")


def _claims_of(token: SecretValue) -> dict[str, Any]:
    parts = token.data.split(b".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    except (IndexError, binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


async def _find_account(api: ClusterApi, settings: ServiceAccountSettings) -> None:
    if (await api.ask("GET", settings.account_path)).status != _OK:
        raise _no_such_account()


def _no_such_account() -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        "The cluster has no such ServiceAccount. Create it, or correct the rotation's settings.",
    )


def _not_revocable() -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        "The replaced token was not made by a rotation: it is accepted until its own end. Remove "
        "what it is bound to by hand, and give the secret's policy another retirement until then.",
    )


def _refused(status: int, action: str) -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The cluster refused to {action} (HTTP {status}). Look for a policy or an admission "
        "webhook in the namespace of the ServiceAccount.",
        metadata={"status": str(status)},
    )
