"""A Google Cloud project, seen through a service account's key: the clients of its APIs."""

import json
import time
import uuid
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import google_auth_httplib2
import httplib2
from google.oauth2.service_account import Credentials
from googleapiclient.discovery import build

from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.clouds.cloud import CallCount
from infra.clouds.gcp.errors import of_operation, typed_errors
from infra.settings import ProviderSettings

Json = dict[str, Any]
# The library makes its classes when it reads an API's description.
Client = Any

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_COMPUTE_URL: Final = "https://compute.googleapis.com"
_IAM_URL: Final = "https://iam.googleapis.com"
_RESOURCE_MANAGER_URL: Final = "https://cloudresourcemanager.googleapis.com"
_BILLING_URL: Final = "https://cloudbilling.googleapis.com"
# `wait` answers within two minutes.
_ANSWERS_WITHIN_SECONDS: Final = 150.0
# Shorter than what servers and proxies wait for another request.
_IDLE_SECONDS: Final = 3.0
# The longest that an operation of ours takes is an image of a large disk.
_OPERATION_WAITS: Final = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFile:
    """What is used of a service account's key file: who it is for, and the key.

    Its addresses are not: a file does not choose who is asked.
    """

    project: str
    email: str
    private_key: str = field(repr=False)
    key_id: str | None


def key_file_of(value: SecretValue) -> KeyFile:
    """Read a service account's key file.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when it is none.
    """
    try:
        found = json.loads(value.data)
    except (ValueError, RecursionError):
        found = None
    names = ("type", "project_id", "client_email", "private_key")
    texts = [found.get(name) if isinstance(found, dict) else None for name in names]
    if texts[0] != "service_account" or not all(isinstance(t, str) and t for t in texts):
        raise _no_key_file()
    key_id = found.get("private_key_id")
    return KeyFile(
        project=str(texts[1]),
        email=str(texts[2]),
        private_key=str(texts[3]),
        key_id=key_id if isinstance(key_id, str) else None,
    )


class GcpAccount:
    """The APIs of one project, for one thread at a time."""

    def __init__(
        self,
        value: SecretValue,
        settings: ProviderSettings,
        *,
        answers_within_seconds: float = _ANSWERS_WITHIN_SECONDS,
    ) -> None:
        self.key = key_file_of(value)
        self.calls = CallCount()
        self._settings = settings
        self._credentials = _credentials_of(self.key, settings)
        ca_file = None if settings.ca_file is None else str(settings.ca_file)
        plain = httplib2.Http(timeout=answers_within_seconds, ca_certs=ca_file, proxy_info=None)
        # A redirect would carry the token to wherever it points.
        plain.follow_redirects = False
        # Who opens an account does not close it.
        weakref.finalize(self, plain.close)
        self._plain = plain
        self._used = time.monotonic()
        self._token_request = google_auth_httplib2.Request(plain)
        self._http = google_auth_httplib2.AuthorizedHttp(self._credentials, http=plain)

    @property
    def project(self) -> str:
        """The id of the project."""
        return self.key.project

    @property
    def compute(self) -> Client:
        """Compute Engine."""
        return _service(
            "compute", f"{self._url(self._settings.gcp_compute_url, _COMPUTE_URL)}/compute/v1/"
        )

    @property
    def iam(self) -> Client:
        """Service accounts."""
        return _service("iam", f"{self._url(self._settings.gcp_iam_url, _IAM_URL)}/")

    @property
    def resource_manager(self) -> Client:
        """Projects and who may do what in them."""
        url = self._url(self._settings.gcp_resource_manager_url, _RESOURCE_MANAGER_URL)
        return _service("cloudresourcemanager", f"{url}/")

    @property
    def billing(self) -> Client:
        """The public price list."""
        return _service("cloudbilling", f"{self.billing_url}/")

    @property
    def billing_url(self) -> str:
        """Where the price list is."""
        return self._url(self._settings.gcp_billing_url, _BILLING_URL)

    def environment(self) -> Mapping[str, str]:
        """Return what the provider program reads: a token of an hour, and not the key.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED when Google gives none for the key.
        """
        found = {
            "GOOGLE_PROJECT": self.project,
            "GOOGLE_OAUTH_ACCESS_TOKEN": self.token(),
        }
        if self._settings.gcp_compute_url is not None:
            url = self._url(self._settings.gcp_compute_url, _COMPUTE_URL)
            found["GOOGLE_COMPUTE_CUSTOM_ENDPOINT"] = f"{url}/compute/v1/"
        if self._settings.gcp_iam_url is not None:
            url = self._url(self._settings.gcp_iam_url, _IAM_URL)
            found["GOOGLE_IAM_CUSTOM_ENDPOINT"] = f"{url}/v1/"
        return found

    def token(self) -> str:
        """Return a fresh access token.

        Raises:
            BulkheadError: CREDENTIAL_REJECTED when Google gives none for the key.
        """
        self._drop_idle()
        self.calls()
        with typed_errors():
            self._credentials.refresh(self._token_request)  # type: ignore[no-untyped-call]
        return str(self._credentials.token)

    def call(self, request: Client) -> Json:
        """Make one call; raises what `typed_errors` knows."""
        self._drop_idle()
        self.calls()
        answer: Json = request.execute(http=self._http)
        return answer

    def begin(self, method: Client, **arguments: object) -> Json:
        """Make a call that begins an operation, and return that.

        The library sends a call again when its connection breaks: Google knows it by its id then.
        """
        request_id = str(uuid.uuid4())
        return self.call(method(project=self.project, requestId=request_id, **arguments))

    def change(self, method: Client, **arguments: object) -> None:
        """Make a call that begins an operation, and wait until that is over."""
        self.wait(self.begin(method, **arguments))

    def pages(self, collection: Client, **arguments: object) -> list[Json]:
        """Return all pages of a list."""
        found: list[Json] = []
        method = "aggregatedList" if arguments.pop("aggregated", False) else "list"
        request = getattr(collection, method)(**arguments)
        while request is not None:
            page = self.call(request)
            found.append(page)
            request = getattr(collection, f"{method}_next")(request, page)
        return found

    def wait(self, operation: Json) -> None:
        """Wait until an operation is over.

        Raises:
            BulkheadError: why it failed; DEPENDENCY_UNAVAILABLE when it takes too long.
        """
        collection, arguments = _operations_of(self.compute, operation)
        for _ in range(_OPERATION_WAITS):
            if operation["status"] == "DONE":
                break
            arguments["operation"] = operation["name"]
            operation = self.call(collection.wait(project=self.project, **arguments))
        else:
            raise BulkheadError(
                Reason.DEPENDENCY_UNAVAILABLE,
                "An operation of Google Cloud takes longer than half an hour. Try again later.",
                metadata={"dependency": "gcp"},
            )
        errors = operation.get("error", {}).get("errors", [])
        if errors:
            raise of_operation(errors)

    def _drop_idle(self) -> None:
        """Drop connections that the other side may have closed: the library trips over them."""
        if time.monotonic() - self._used > _IDLE_SECONDS:
            self._plain.close()
        self._used = time.monotonic()

    @staticmethod
    def _url(given: str | None, public: str) -> str:
        return (given or public).rstrip("/")


def _operations_of(compute: Client, operation: Json) -> tuple[Client, dict[str, str]]:
    if "zone" in operation:
        return compute.zoneOperations(), {"zone": operation["zone"].rpartition("/")[2]}
    if "region" in operation:
        return compute.regionOperations(), {"region": operation["region"].rpartition("/")[2]}
    return compute.globalOperations(), {}


def _credentials_of(key: KeyFile, settings: ProviderSettings) -> Credentials:
    info = {
        "type": "service_account",
        "project_id": key.project,
        "client_email": key.email,
        "private_key": key.private_key,
        "private_key_id": key.key_id,
        "token_uri": settings.gcp_token_url,
    }
    try:
        return Credentials.from_service_account_info(info, scopes=[_SCOPE])  # type: ignore[no-any-return,no-untyped-call]
    except ValueError:
        raise _no_key_file() from None


@cache
def _service(name: str, url: str) -> Client:
    """Return a client that carries no credential; those are given with each call."""
    version = "v1"
    return build(
        name,
        version,
        http=httplib2.Http(),
        static_discovery=True,
        cache_discovery=False,
        client_options={"api_endpoint": url},
    )


def _no_key_file() -> BulkheadError:
    return BulkheadError(
        Reason.CREDENTIAL_REJECTED,
        "The value is no key file (JSON) of a Google service account: `type`, `project_id`, "
        "`client_email` and `private_key` are needed.",
    )
