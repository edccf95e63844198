import base64
import http.server
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from domain.errors import BulkheadError, Reason
from domain.package import RegistryAuthentication
from infra.helm.charts import Charts, parse_source
from infra.helm.logins import (
    BasicLogin,
    OAuthLogin,
    RegistryLogin,
    TokenLogin,
    login_of,
    login_of_secret,
    secret_text_of,
)
from infra.helm.registry_http import RegistryHttp
from infra.outbound import Outbound
from infra.settings import HelmSettings, OutboundSettings
from infra.tools import ensure
from tests.charts import LOGIN, archive, running_registry

_LOOPBACK = OutboundSettings.model_validate({"allowed_networks": ["127.0.0.0/8"]})
_BASIC = base64.b64encode(":".join(LOGIN).encode()).decode()


@dataclass
class TokenServer:
    """Gives tokens that a registry takes, to whoever has the login."""

    key: ECKey
    url: str = ""
    scopes: list[str] = field(default_factory=list)

    def token(self) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": "tokens",
            "sub": LOGIN[0],
            "aud": "charts",
            "jti": uuid4().hex,
            "iat": now,
            "nbf": now - 10,
            "exp": now + 60,
            "access": [{"type": "repository", "name": "charts/web", "actions": ["pull"]}],
        }
        return jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.key)


@contextmanager
def running_token_server() -> Iterator[TokenServer]:
    found = TokenServer(ECKey.generate_key("P-256", auto_kid=True))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.scopes += parse_qs(urlsplit(self.path).query).get("scope", [])
            self._answer("token")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert body == b"grant_type=client_credentials"
            self._answer("access_token")

        def _answer(self, name: str) -> None:
            is_right = self.headers["authorization"] == f"Basic {_BASIC}"
            self.send_response(200 if is_right else 401)
            self.end_headers()
            self.wfile.write(json.dumps({name: found.token()} if is_right else {}).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/token"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


async def test_a_registry_that_wants_tokens_gets_one_by_each_kind_of_login(tmp_path: Path) -> None:
    with running_token_server() as tokens:
        keys = {"keys": [tokens.key.as_dict(private=False)]}
        (tmp_path / "keys.json").write_text(json.dumps(keys))
        auth = {
            "token": {
                "realm": tokens.url,
                "service": "charts",
                "issuer": "tokens",
                "jwks": os.fspath(tmp_path / "keys.json"),
                "signingalgorithms": ["ES256"],
            }
        }
        with running_registry(storage=tmp_path / "data") as open_registry:
            open_registry.push(archive("web"))
        with running_registry(storage=tmp_path / "data", auth=auth) as registry:
            settings = HelmSettings(
                program=ensure(("helm",))["helm"],
                cache_dir=tmp_path / "cache",
                plain_http_registries=[registry.address],
            )
            charts = Charts(settings, Outbound(_LOOPBACK))
            source = parse_source(registry.url_of("web"))
            accepted: list[RegistryLogin] = [
                BasicLogin(*LOGIN),
                TokenLogin(tokens.token()),
                OAuthLogin(*LOGIN, tokens.url),
            ]
            for login in accepted:
                assert (await charts.resolve(source, "1.0.0", login)).semver == "1.0.0"
            assert set(tokens.scopes) == {"repository:charts/web:pull"}
            rejected: list[RegistryLogin | None] = [
                None,
                BasicLogin(LOGIN[0], "other"),
                TokenLogin("other"),
                OAuthLogin(LOGIN[0], "other", tokens.url),
            ]
            for wrong in rejected:
                with pytest.raises(BulkheadError) as refused:
                    await charts.resolve(source, "1.0.0", wrong)
                assert refused.value.reason is Reason.CREDENTIAL_REJECTED


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Run a server on loopback; yields `host:port`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def test_whoever_a_registry_redirects_to_gets_no_login_even_when_it_asks(
    tmp_path: Path,
) -> None:
    seen: list[str | None] = []

    def ask_for_a_login(request: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["authorization"])
        request.send_response(401)
        realm = f"http://{request.headers['host']}/token"
        request.send_header("www-authenticate", f'Bearer realm="{realm}",service="other"')

    def redirect(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(307)
        request.send_header("location", f"http://{other}/blob")

    with answering(ask_for_a_login) as other, answering(redirect) as registry:
        settings = HelmSettings(
            program=tmp_path, cache_dir=tmp_path, plain_http_registries=[registry, other]
        )
        origin = f"http://{registry}"
        asked = RegistryHttp(settings, Outbound(_LOOPBACK), origin, BasicLogin(*LOGIN))
        with pytest.raises(BulkheadError) as refused:
            await asked.get(f"{origin}/blob", maximum_bytes=1000)
    assert refused.value.reason is Reason.CREDENTIAL_REJECTED
    assert seen == [None]


@pytest.mark.parametrize(
    ("kind", "credentials"),
    [
        (RegistryAuthentication.BASIC, {"username": "a", "password": "b"}),
        (RegistryAuthentication.TOKEN, {"token": "a"}),
        (
            RegistryAuthentication.OAUTH,
            {"client_id": "a", "client_secret": "b", "token_url": "https://c.test"},
        ),
    ],
)
def test_a_login_is_what_its_secret_says_and_shows_nothing_of_it(
    kind: RegistryAuthentication, credentials: dict[str, str]
) -> None:
    login = login_of(kind, credentials)
    assert login_of_secret(kind, secret_text_of(login)) == login
    assert "'b'" not in repr(login)
    for name in credentials:
        with pytest.raises(BulkheadError) as refused:
            login_of(kind, {**credentials, name: ""})
        assert refused.value.path == ("credentials", name)
        with pytest.raises(BulkheadError):
            login_of(kind, {**credentials, name: "a\r\nb"})
    with pytest.raises(BulkheadError):
        login_of(kind, {**credentials, "other": "x"})
    with pytest.raises(BulkheadError) as refused:
        login_of_secret(kind, "something else")
    assert refused.value.reason is Reason.CREDENTIAL_REJECTED
