"""Logins and calls: short-lived tokens, one login anew when refused, and typed failures."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final, NoReturn, TypeVar

import hvac
import requests
from hvac import exceptions
from joserfc import jwt
from joserfc.jwk import ECKey
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from domain.errors import BulkheadError, Reason
from infra.openbao.policies import ROOT_AUDIENCE
from infra.settings import OpenBaoSettings

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# The operation of a failed login, in its error's metadata.
LOG_IN: Final = "log in"

# The metadata of the failure for a workspace that has no namespace here.
MISSING_SPACE: Final = {"dependency": "openbao", "missing": "secret_space"}

# Seconds to connect and to wait for an answer. A healthy server answers in milliseconds; making an
# authority while a hundred others are made took up to two seconds.
_TIMEOUTS: Final = (2.0, 15.0)

# A login's JWT is used at once; a minute covers clocks that differ a little.
_JWT_LIFETIME_SECONDS: Final = 60

# A token is given up this long before its end, so that no request meets the end on its way.
_TOKEN_MARGIN_SECONDS: Final = 30

# Above the number of threads that call at the same time, so that no connection is thrown away.
_CONNECTIONS: Final = 64


class OpenBaoSession:
    """The calls of one process, under its own login. Safe to use from several threads.

    Args:
        settings: where the server is, and the key to log in with.
        principal: whose key that is: the name of the login, its role and its subject.
    """

    def __init__(self, settings: OpenBaoSettings, principal: str) -> None:
        self._address = settings.address
        self._principal = principal
        self._key_file = settings.login_key_file
        self._http = _Connections()
        # Otherwise proxies, .netrc and REQUESTS_CA_BUNDLE of the environment decide whom we talk
        # to and whom we trust.
        self._http.trust_env = False
        self._http.verify = str(settings.ca_file) if settings.ca_file else True
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
        self._tokens: dict[str | None, tuple[str, float]] = {}
        self._lock = Lock()

    def call(
        self,
        operation: str,
        request: Callable[[hvac.Client], _T],
        *,
        namespace: str | None = None,
        login_namespace: str | None = None,
    ) -> _T:
        """Run one request and type its failure.

        Args:
            operation: what is asked, for a person; part of errors and logs, never a value.
            request: does the calls; expected answers that hvac raises are its own to catch.
            namespace: where the request goes; None is the root namespace.
            login_namespace: whose token it carries.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the server is down, sealed or refuses the
                login; INTERNAL when it refuses the request itself.
        """
        token = self._token(login_namespace)
        try:
            try:
                return request(self._client(namespace, token))
            except exceptions.Forbidden:
                # An ended token and a missing right look the same: a fresh token tells them apart.
                self._forget(login_namespace, token)
                return request(self._client(namespace, self._token(login_namespace)))
        except (exceptions.VaultError, requests.RequestException) as error:
            _raise_typed(operation, error)

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def _client(self, namespace: str | None, token: str) -> hvac.Client:
        return hvac.Client(
            url=self._address,
            # Without a token hvac looks for one in the environment and in the home directory.
            token=token,
            verify=self._http.verify,
            session=self._http,
            namespace=namespace,
            timeout=_TIMEOUTS,  # type: ignore[arg-type] # requests takes two, for both phases
            # A redirect would carry the token to wherever it points.
            allow_redirects=False,
        )

    def _token(self, login_namespace: str | None) -> str:
        with self._lock:
            token, end = self._tokens.get(login_namespace, ("", 0.0))
        now = time.monotonic()
        if now < end:
            return token
        try:
            answer = self._client(login_namespace, "").auth.jwt.jwt_login(
                role=self._principal, jwt=self._assertion(login_namespace), path=self._principal
            )
        except exceptions.InvalidPath:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The workspace has no secret space yet; it is being made. Try again in a few "
                "seconds.",
                metadata=MISSING_SPACE,
            ) from None
        except exceptions.InvalidRequest as error:
            # How the login method answers for a JWT that it does not accept.
            _raise_typed(LOG_IN, exceptions.Forbidden(errors=error.errors))
        except (exceptions.VaultError, requests.RequestException) as error:
            _raise_typed(LOG_IN, error)
        token = str(answer["auth"]["client_token"])
        end = now + answer["auth"]["lease_duration"] - _TOKEN_MARGIN_SECONDS
        with self._lock:
            self._tokens = {name: known for name, known in self._tokens.items() if now < known[1]}
            self._tokens[login_namespace] = (token, end)
        return token

    def _forget(self, login_namespace: str | None, token: str) -> None:
        with self._lock:
            if self._tokens.get(login_namespace, ("", 0.0))[0] == token:
                del self._tokens[login_namespace]

    def _assertion(self, login_namespace: str | None) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._principal,
            "sub": self._principal,
            "aud": login_namespace or ROOT_AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + _JWT_LIFETIME_SECONDS,
        }
        # Read anew for each login, so that a replaced key needs no restart.
        key = ECKey.import_key(Path(self._key_file).read_text())
        return jwt.encode({"alg": "ES256"}, claims, key)


class _Connections(requests.Session):
    """Connections that spend little on a request: 0.26 ms less of the processor's time each.

    A session otherwise merges settings, cookies and redirects that an API with tokens has none of.
    """

    def request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        json: Any = None,  # noqa: ANN401 - a JSON document
        timeout: tuple[float, float] | None = None,
        **options: Any,  # noqa: ANN401 - what hvac hands on to any session
    ) -> requests.Response:
        """Send a request; one with a stream or a query goes the long way."""
        if any(options.get(name) for name in ("data", "params", "stream")):
            return super().request(
                method, url, headers=headers, json=json, timeout=timeout, **options
            )
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = method.upper(), url
        prepared.headers = CaseInsensitiveDict(headers)
        prepared.prepare_body(data=None, files=None, json=json)
        answer = self.get_adapter(url).send(
            prepared, timeout=timeout, verify=self.verify, proxies={}
        )
        # Read here, so that the connection goes back to the pool.
        _ = answer.content
        return answer


def _raise_typed(operation: str, error: Exception) -> NoReturn:
    """Raise what the failure means to us; the driver's error stays out of it.

    Its text names the path and may repeat a part of the request.
    """
    facts = {"dependency": "openbao", "operation": operation}
    if isinstance(error, exceptions.InvalidRequest | exceptions.InvalidPath):
        _logger.error("openbao refused: %s (%s)", operation, type(error).__name__)
        raise BulkheadError(
            Reason.INTERNAL,
            f"The secret store refused a request of the platform ({operation}); its audit log has "
            "the request. This is a fault of the platform and not of the request.",
            metadata=facts,
        ) from None
    if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
        facts["denied"] = "true"
        message = (
            f"The secret store denies the platform ({operation}). The login key, the policy or the "
            "clock of this process does not fit; docs/operations.md says how to check each."
        )
    else:
        message = (
            f"The secret store does not answer ({operation}): it is down, sealed or overloaded. "
            "Nothing was lost; the request is tried again when it is back."
        )
    _logger.warning("openbao unavailable: %s (%s)", operation, type(error).__name__)
    raise BulkheadError(Reason.DEPENDENCY_UNAVAILABLE, message, metadata=facts) from None
