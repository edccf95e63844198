"""How the provider program speaks to the APIs: as the real one, with its retries."""

import time
from typing import Any, Final

import httpx

from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.provider_programs import Configuration, ProviderError

_COMPUTE: Final = "https://compute.googleapis.com/compute/v1/"
_IAM: Final = "https://iam.googleapis.com/v1/"
_SECONDS: Final = 60.0

# What the real program tries again, at growing intervals; it has more patience.
_RETRIED: Final = frozenset({429, 500, 502, 503})
_RETRIED_WORDS: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_PATIENCE_SECONDS: Final = 8.0
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 4.0

_NOT_FOUND: Final = 404
_OPERATION_SECONDS: Final = 1200.0
_FIRST_LOOK_SECONDS: Final = 0.05
_LONGEST_LOOK_SECONDS: Final = 1.0


class NotFoundError(ProviderError):
    """There is no such thing."""


class NotReadyError(ProviderError):
    """An operation works on what is needed."""


class ProviderClient:
    """One project, as the resources see it."""

    def __init__(self, project: str, token: str, compute_url: str, iam_url: str) -> None:
        self.project = project
        self._compute_url = compute_url.rstrip("/")
        self._iam_url = iam_url.rstrip("/")
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {token}"}, timeout=_SECONDS, trust_env=False
        )

    def compute(self, verb: str, path: str, body: Json | None = None) -> Json:
        """Call Compute Engine; see `_call`."""
        return self._call(verb, f"{self._compute_url}/{path}", body)

    def iam(self, verb: str, path: str, body: Json | None = None) -> Json:
        """Call IAM; see `_call`."""
        return self._call(verb, f"{self._iam_url}/{path}", body)

    def change(self, what: str, verb: str, path: str, body: Json | None = None) -> None:
        """Change something and wait until that is done.

        Args:
            what: is done, as the real program says it: `Creating Network`.
            verb: of HTTP.
            path: `projects/...`.
            body: what to send.

        Raises:
            ProviderError: it was refused or failed.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                operation = self.compute(verb, path, body)
                break
            except NotReadyError:
                if time.monotonic() > until:
                    raise
                time.sleep(_LONGEST_LOOK_SECONDS)
        self._wait(what, operation)

    def remove(self, what: str, path: str) -> None:
        """Delete something and wait until it is gone; it may be gone already."""
        try:
            self.change(what, "DELETE", path)
        except NotFoundError:
            return

    def find(self, path: str) -> Json | None:
        """Return a resource of Compute Engine, or None."""
        try:
            return self.compute("GET", path)
        except NotFoundError:
            return None

    def _wait(self, what: str, operation: Json) -> None:
        path = operation["selfLink"].partition("/compute/v1/")[2]
        pause, until = _FIRST_LOOK_SECONDS, time.monotonic() + _OPERATION_SECONDS
        while operation["status"] != "DONE" and time.monotonic() < until:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_LOOK_SECONDS)
            operation = self.compute("GET", path)
        errors = operation.get("error", {}).get("errors", [])
        if errors or operation["status"] != "DONE":
            told = "\n".join(error["message"] for error in errors) or "timeout"
            message = f"Error waiting for {what}: {told}"
            raise ProviderError(message)

    def _call(self, verb: str, url: str, body: Json | None) -> Json:
        """Call an API and return its answer.

        Raises:
            ProviderError: refused or not answered; the text is the real program's.
        """
        pause, until = _FIRST_PAUSE_SECONDS, time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                answer = self._http.request(verb, url, json=body)
            except httpx.TransportError as failure:
                message = f'{verb.capitalize()} "{url}": {_in_gos_words(failure)}'
                refusal, again = ProviderError(message), True
            else:
                if answer.is_success:
                    return dict(answer.json()) if answer.content else {}
                refusal, again = _refusal(answer)
            if not again or time.monotonic() + pause > until:
                raise refusal
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _in_gos_words(failure: httpx.TransportError) -> str:
    match failure:
        case httpx.TimeoutException():
            return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        case httpx.ConnectError():
            return "dial tcp: connect: connection refused"
        case httpx.RemoteProtocolError():
            return "EOF"
        case _:
            return "read: connection reset by peer"


def _refusal(answer: httpx.Response) -> tuple[ProviderError, bool]:
    """Return a refusal in the real program's words, and whether it is tried again."""
    try:
        error: dict[str, Any] = answer.json()["error"]
    except (ValueError, KeyError):
        error = {}
    words = [one.get("reason", "") for one in error.get("errors", [])]
    status = answer.status_code
    told = ", ".join([str(error.get("message", answer.reason_phrase)), *words[:1]])
    message = f"googleapi: Error {status}: {told}"
    kind: type[ProviderError] = ProviderError
    if status == _NOT_FOUND:
        kind = NotFoundError
    elif "resourceNotReady" in words:
        kind = NotReadyError
    again = status in _RETRIED or not _RETRIED_WORDS.isdisjoint(words)
    return kind(message), again


def connect(configuration: Configuration) -> ProviderClient:
    """Return the client of the configured project."""
    project = configuration.get(
        "project",
        "GOOGLE_PROJECT",
        "GOOGLE_CLOUD_PROJECT",
        "GCLOUD_PROJECT",
        "CLOUDSDK_CORE_PROJECT",
    )
    token = configuration.get("accessToken", "GOOGLE_OAUTH_ACCESS_TOKEN")
    if not token:
        message = (
            "Attempted to load application default credentials since neither `credentials` nor "
            "`access_token` was set in the provider block. No credentials loaded."
        )
        raise ProviderError(message)
    if not project:
        message = "project: required field is not set"
        raise ProviderError(message)
    return ProviderClient(
        project,
        token,
        configuration.get("computeCustomEndpoint", "GOOGLE_COMPUTE_CUSTOM_ENDPOINT") or _COMPUTE,
        configuration.get("iamCustomEndpoint", "GOOGLE_IAM_CUSTOM_ENDPOINT") or _IAM,
    )
