"""Providers that answer as the real ones do, over real HTTPS."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import parse_qs
from uuid import uuid4

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from domain.secret import SecretKind, SecretValue, ValueEncoding
from infra.providers.validation import ProviderValidation, Validation, ValidationState
from infra.settings import ProviderSettings
from tests.infra.https_server import HttpsServer, Request, Response, https_server

VALID = Validation(ValidationState.VALID)
CANARY = "canary-4f1d9c07"
GCP_KEY = rsa.generate_private_key(65537, 2048)
AWS_ATTRIBUTES = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE"}
# Fixed: it is in the name of a test.
TENANT = "0884779d-5cb1-4ca7-8524-0ed24f95e999"
AZURE = {"tenant_id": TENANT, "client_id": str(uuid4()), "client_secret": CANARY}


def gcp_file(key: rsa.RSAPrivateKey = GCP_KEY) -> dict[str, str]:
    """Return a key file whose own token address is somebody else's."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "client_email": "deployer@project.iam.gserviceaccount.com",
        "private_key_id": "7",
        "private_key": pem.decode(),
        "token_uri": "https://localhost:1/steal",
    }


VALUES: dict[SecretKind, str] = {
    SecretKind.HCLOUD: CANARY,
    SecretKind.AWS: CANARY,
    SecretKind.GCP: json.dumps(gcp_file()),
    SecretKind.AZURE: json.dumps(AZURE),
}
REFUSALS: dict[SecretKind, Response] = {
    SecretKind.HCLOUD: Response(401, b'{"error": {"code": "unauthorized"}}'),
    SecretKind.AWS: Response(
        403, b"<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>"
    ),
    SecretKind.GCP: Response(400, b'{"error": "invalid_grant"}'),
    SecretKind.AZURE: Response(401, b'{"error": "invalid_client"}'),
}
KINDS = pytest.mark.parametrize("kind", VALUES)


@pytest.fixture(scope="module")
def server() -> Iterator[HttpsServer]:
    with https_server() as found:
        yield found


@pytest.fixture
def settings(server: HttpsServer, tmp_path: Path) -> ProviderSettings:
    server.answer = lambda _: Response()
    server.requests.clear()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(server.authority.ca)
    return ProviderSettings(
        hcloud_url=f"{server.url}/v1",
        aws_sts_url=server.url,
        gcp_token_url=f"{server.url}/token",
        azure_login_url=server.url,
        ca_file=ca_file,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def providers(settings: ProviderSettings) -> AsyncIterator[ProviderValidation]:
    found = ProviderValidation(settings)
    yield found
    await found.close()


async def ask(providers: ProviderValidation, kind: SecretKind, value: str) -> Validation:
    found = await providers.validate(kind, SecretValue.of_text(value), AWS_ATTRIBUTES)
    assert found.error is None or not any(
        told in found.error for told in (CANARY, "BEGIN", "AKIA", "AADSTS")
    )
    return found


def asked(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


async def test_hcloud_is_asked_with_the_token(
    server: HttpsServer, providers: ProviderValidation
) -> None:
    assert await ask(providers, SecretKind.HCLOUD, CANARY) == VALID
    assert server.requests[0].path.startswith("/v1/locations")
    assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"


async def test_aws_is_asked_with_a_signature_and_never_with_the_key(
    server: HttpsServer, providers: ProviderValidation
) -> None:
    assert await ask(providers, SecretKind.AWS, CANARY) == VALID
    [request] = server.requests
    assert asked(request)["Action"] == "GetCallerIdentity"
    assert "Credential=AKIAIOSFODNN7EXAMPLE/" in request.headers["authorization"]
    assert request.headers["host"] == f"localhost:{server.port}"
    assert CANARY not in f"{request.path} {request.headers} {request.body!r}"


async def test_aws_takes_a_key_that_is_whole(providers: ProviderValidation) -> None:
    key = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": CANARY}
    for value in (key, {"AccessKey": key}):
        whole = SecretValue.of_text(json.dumps(value))
        assert await providers.validate(SecretKind.AWS, whole, {}) == VALID
    for value in ({"access_key_id": key["access_key_id"]}, {"secret_access_key": CANARY}):
        part = SecretValue.of_text(json.dumps(value))
        assert (await providers.validate(SecretKind.AWS, part, {})).state == "invalid"


async def test_gcp_is_asked_with_an_assertion_at_the_fixed_address(
    server: HttpsServer, providers: ProviderValidation
) -> None:
    assert await ask(providers, SecretKind.GCP, VALUES[SecretKind.GCP]) == VALID
    [request] = server.requests
    claims = jwt.decode(asked(request)["assertion"], RSAKey.import_key(GCP_KEY.public_key())).claims
    assert claims["aud"] == f"{server.url}/token"
    assert claims["iss"] == gcp_file()["client_email"]
    assert claims["exp"] - claims["iat"] <= 3600


@pytest.mark.parametrize(
    "names",
    [
        ("tenant_id", "client_id", "client_secret"),
        ("tenantId", "clientId", "clientSecret"),
        ("tenant", "appId", "password"),
    ],
)
async def test_azure_is_asked_for_a_token_of_the_tenant(
    server: HttpsServer, providers: ProviderValidation, names: tuple[str, ...]
) -> None:
    value = json.dumps(dict(zip(names, AZURE.values(), strict=True)))
    assert await ask(providers, SecretKind.AZURE, value) == VALID
    [request] = server.requests
    assert request.path == f"/{AZURE['tenant_id']}/oauth2/v2.0/token"
    assert asked(request)["client_secret"] == CANARY


@KINDS
async def test_a_value_is_invalid_when_the_provider_says_so(
    server: HttpsServer, providers: ProviderValidation, kind: SecretKind
) -> None:
    server.answer = lambda _: REFUSALS[kind]
    found = await ask(providers, kind, VALUES[kind])
    assert found.state is ValidationState.INVALID
    assert found.error


async def test_an_azure_tenant_that_does_not_exist_is_a_no_as_well(
    server: HttpsServer, providers: ProviderValidation
) -> None:
    body = b'{"error": "invalid_request", "error_codes": [90002]}'
    server.answer = lambda _: Response(400, body)
    found = await ask(providers, SecretKind.AZURE, VALUES[SecretKind.AZURE])
    assert found.state is ValidationState.INVALID


@KINDS
@pytest.mark.parametrize(
    "answer",
    [
        Response(302, b"", {"location": "/elsewhere"}),
        Response(400, b"[" * 60_000),
        Response(403, CANARY.encode()),
        Response(429),
        Response(500),
        Response(503, b"x" * 1_000_000),
    ],
    ids=lambda answer: str(answer.status),
)
async def test_any_other_answer_says_nothing_about_the_value(
    server: HttpsServer, providers: ProviderValidation, kind: SecretKind, answer: Response
) -> None:
    server.answer = lambda _: answer
    found = await ask(providers, kind, VALUES[kind])
    assert found.state is ValidationState.UNSPECIFIED
    assert found.error
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", [SecretKind.AWS, SecretKind.GCP])
async def test_a_clock_that_differs_is_not_the_values_fault(
    server: HttpsServer, providers: ProviderValidation, kind: SecretKind
) -> None:
    refusal = REFUSALS[kind]
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=20), usegmt=True)
    server.answer = lambda _: Response(refusal.status, refusal.body, {"date": date})
    found = await ask(providers, kind, VALUES[kind])
    assert found.state is ValidationState.UNSPECIFIED


@KINDS
async def test_a_provider_that_cannot_be_reached_or_is_not_the_one_says_nothing(
    server: HttpsServer, settings: ProviderSettings, kind: SecretKind
) -> None:
    nowhere = "https://localhost:1"
    down = settings.model_copy(
        update={
            "hcloud_url": nowhere,
            "aws_sts_url": nowhere,
            "gcp_token_url": nowhere,
            "azure_login_url": nowhere,
        }
    )
    for changed in (down, settings.model_copy(update={"ca_file": None})):
        providers = ProviderValidation(changed)
        found = await ask(providers, kind, VALUES[kind])
        await providers.close()
        assert found.state is ValidationState.UNSPECIFIED
    assert server.requests == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (SecretKind.HCLOUD, f"{CANARY}\r\nx: y"),
        (SecretKind.HCLOUD, f"{CANARY}\u00e9"),
        (SecretKind.AWS, f"{CANARY}\n"),
        (SecretKind.GCP, CANARY),
        (SecretKind.GCP, json.dumps({**gcp_file(), "private_key": CANARY})),
        (SecretKind.GCP, json.dumps({**gcp_file(), "type": "authorized_user"})),
        (SecretKind.AZURE, "[]"),
        (SecretKind.AZURE, json.dumps({**AZURE, "client_secret": f"{CANARY}\ud800"})),
        (SecretKind.AZURE, json.dumps({**AZURE, "tenant_id": f"../{CANARY}"})),
        (SecretKind.AZURE, json.dumps({"tenant_id": AZURE["tenant_id"]})),
    ],
)
async def test_what_cannot_be_a_credential_of_the_kind_is_sent_nowhere(
    server: HttpsServer, providers: ProviderValidation, kind: SecretKind, value: str
) -> None:
    assert (await ask(providers, kind, value)).state is ValidationState.INVALID
    assert server.requests == []


async def test_kinds_without_a_provider_and_keys_without_an_id_are_not_judged(
    server: HttpsServer, providers: ProviderValidation
) -> None:
    for kind in (SecretKind.GENERIC, SecretKind.CLOUDFLARE_API):
        assert (await ask(providers, kind, CANARY)).state is ValidationState.UNSPECIFIED
    value = SecretValue(b"\0\xff", ValueEncoding.BASE64)
    found = await providers.validate(SecretKind.AWS, value, {})
    assert found.state is ValidationState.UNSPECIFIED
    assert server.requests == []
