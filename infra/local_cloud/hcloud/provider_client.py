"""How the provider program speaks to the API: the official client, with its own retries."""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import requests
from hcloud import APIException, Client, HCloudException
from hcloud.actions import ActionException

from infra.local_cloud.provider_programs import Configuration, ProviderError

_PUBLIC_ENDPOINT: Final = "https://api.hetzner.cloud/v1"
_NOT_FOUND: Final = "not_found"
# What the real program tries again: another action works on the same thing.
_BUSY: Final = frozenset({"locked", "conflict", "resource_in_use", "service_error"})
_BUSY_TRIES: Final = 6
_BUSY_SECONDS: Final = 0.3
_FIRST_POLL_SECONDS: Final = 0.05
_LONGEST_POLL_SECONDS: Final = 1.0

T = TypeVar("T")


class ProviderClient:
    """One project, as the resources see it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call the API and return its answer.

        Raises:
            ProviderError: refused, or not answered; `NotFoundError` when there is no such thing.
        """
        try:
            arguments = {} if body is None else {"json": body}
            return self._client.request(method, path, **arguments)
        except APIException as refusal:
            if refusal.code == _NOT_FOUND:
                raise NotFoundError(str(refusal)) from None
            raise RefusedError(str(refusal.code), str(refusal)) from None
        except requests.RequestException as failure:
            message = f"{method} {path}: {failure}"
            raise ProviderError(message) from None

    def find(self, path: str, key: str) -> dict[str, Any] | None:
        """Return what is at a path, or None."""
        try:
            return dict(self.call("GET", path)[key])
        except NotFoundError:
            return None

    def wait(self, answer: dict[str, Any]) -> None:
        """Wait for all actions of an answer; raises `ProviderError` when one fails."""
        single = [answer["action"]] if answer.get("action") else []
        for action in [*single, *answer.get("actions", []), *answer.get("next_actions", [])]:
            try:
                self._client.actions.get_by_id(action["id"]).wait_until_finished()
            except ActionException as failure:
                raise ProviderError(str(failure)) from None
            except (HCloudException, requests.RequestException) as failure:
                message = f"waiting for action {action['id']}: {failure}"
                raise ProviderError(message) from None

    def act(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Start an action, tried again while something else is going on, and wait for its end."""
        answer = patiently(lambda: self.call("POST", path, body or {}))
        self.wait(answer)
        return answer

    def remove(self, path: str) -> None:
        """Delete what is at a path and wait until it is gone; it may be gone already."""
        try:
            self.wait(patiently(lambda: self.call("DELETE", path)))
        except NotFoundError:
            return


class NotFoundError(ProviderError):
    """There is no such thing."""


class RefusedError(ProviderError):
    """The API refused, with one of its codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def connect(configuration: Configuration) -> ProviderClient:
    """Return the client of the project whose token is configured."""
    token = configuration.get("token", "HCLOUD_TOKEN")
    if not token:
        message = "The provider hcloud has no token; set hcloud:token or HCLOUD_TOKEN."
        raise ProviderError(message)
    return ProviderClient(
        Client(
            token=token,
            api_endpoint=configuration.get("endpoint", "HCLOUD_ENDPOINT") or _PUBLIC_ENDPOINT,
            poll_interval=lambda tries: min(
                _FIRST_POLL_SECONDS * 1.5**tries, _LONGEST_POLL_SECONDS
            ),
            application_name="pulumi-resource-hcloud",
        )
    )


def patiently(call: Callable[[], T]) -> T:
    """Return what a call gives, tried again a few times while the thing is busy."""
    for tried in range(1, _BUSY_TRIES + 1):
        try:
            return call()
        except RefusedError as refusal:
            if refusal.code not in _BUSY or tried == _BUSY_TRIES:
                raise
            time.sleep(_BUSY_SECONDS * tried)
    raise AssertionError
