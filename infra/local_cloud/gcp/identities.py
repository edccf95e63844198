"""Projects, their service accounts with keys, who may do what, and tokens."""

import base64
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from infra.local_cloud.gcp import answers
from infra.local_cloud.gcp.catalogue import PROJECT_QUOTAS, REGION_QUOTAS
from infra.local_cloud.gcp.discovery import Json

TOKEN_SECONDS: Final = 3600
KEYS_PER_ACCOUNT: Final = 10
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

_PUBLIC_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_ACCOUNT_ID: Final = re.compile(r"[a-z]([-a-z0-9]{4,28}[a-z0-9])")
_LONGEST_DESCRIPTION: Final = 256
_CLOCK_TOLERANCE_SECONDS: Final = 300


class TokenRefusedError(Exception):
    """The token endpoint's refusal; the text is its `error_description`."""


@dataclass(slots=True)
class Key:
    """A key of a service account, of which the private part is its holder's alone."""

    id: str
    public_pem: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    origin: str
    valid_after: datetime
    valid_before: datetime
    disabled: bool = False


@dataclass(slots=True)
class Account:
    """A service account.

    Attributes:
        made: when, by the monotonic clock: Compute Engine knows it a little later.
    """

    project: str
    account_id: str
    unique_id: str
    display_name: str = ""
    description: str = ""
    disabled: bool = False
    keys: dict[str, Key] = field(default_factory=dict)
    made: float = field(default_factory=time.monotonic)

    @property
    def email(self) -> str:
        """What it is called everywhere."""
        return f"{self.account_id}@{self.project}.iam.gserviceaccount.com"

    @property
    def path(self) -> str:
        """Its resource name."""
        return f"projects/{self.project}/serviceAccounts/{self.email}"


@dataclass(slots=True)
class Project:
    """A project.

    Attributes:
        permissions: what an account may do, by its email; None: everything.
        apis_off: hosts of the APIs that are not switched on.
    """

    id: str
    number: int
    region_quotas: dict[str, float] = field(default_factory=lambda: dict(REGION_QUOTAS))
    quotas: dict[str, float] = field(default_factory=lambda: dict(PROJECT_QUOTAS))
    permissions: dict[str, frozenset[str] | None] = field(default_factory=dict)
    apis_off: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; it outlives the key that it was got with, as the real ones do."""

    email: str
    project: str
    expires: float


class Identities:
    """All projects' accounts and tokens."""

    def __init__(self) -> None:
        self.projects: dict[str, Project] = {}
        self.accounts: dict[str, Account] = {}
        self._tokens: dict[str, Token] = {}

    def project(self, project_id: str) -> Project:
        """Return a project; raises `ApiError` 403 as for one that the caller may not see."""
        found = self.projects.get(project_id)
        if found is None:
            raise answers.forbidden(
                permission="resourcemanager.projects.get", path=f"projects/{project_id}"
            )
        return found

    def account(self, name: str) -> Account:
        """Return an account by its email or its unique id; raises `ApiError` 404."""
        for account in self.accounts.values():
            if name in {account.email, account.unique_id}:
                return account
        raise answers.ApiError(404, "notFound", f"Unknown service account: {name}")

    def add_account(self, project: str, body: Mapping[str, Any]) -> Account:
        """Make an account; raises `ApiError` 400 or 409."""
        account_id, given = str(body.get("accountId", "")), body.get("serviceAccount", {})
        description = given.get("description", "")
        if not _ACCOUNT_ID.fullmatch(account_id):
            raise answers.invalid(
                message=f'The account ID "{account_id}" is not of 6 to 30, or '
                "contains characters other than lower-case letters, digits and hyphens."
            )
        if len(description.encode()) > _LONGEST_DESCRIPTION:
            raise answers.invalid(message="The description is longer than 256 bytes.")
        account = Account(
            project,
            account_id,
            str(secrets.randbelow(9 * 10**20) + 10**20),
            given.get("displayName", ""),
            description,
        )
        if account.email in self.accounts:
            raise answers.ApiError(
                409,
                "alreadyExists",
                f"Service account {account_id} already exists within project projects/{project}.",
            )
        self.accounts[account.email] = account
        return account

    def add_key(self, account: Account, certificate: x509.Certificate, origin: str) -> Key:
        """Let an account be proved with the key of a certificate; raises `ApiError`."""
        if len(account.keys) >= KEYS_PER_ACCOUNT:
            raise answers.ApiError(
                400, "failedPrecondition", "Maximum number of keys on account reached."
            )
        public = certificate.public_key()
        if not isinstance(public, rsa.RSAPublicKey):
            raise answers.invalid(message="The key is not an RSA key.")
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if any(key.public_pem == pem for key in account.keys.values()):
            raise answers.ApiError(409, "alreadyExists", "The key is already uploaded.")
        key = Key(
            id=secrets.token_hex(20),
            public_pem=pem,
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            origin=origin,
            valid_after=certificate.not_valid_before_utc,
            valid_before=certificate.not_valid_after_utc,
        )
        account.keys[key.id] = key
        return key

    def new_token(self, form: Mapping[str, str], token_url: str) -> Json:
        """Answer the token endpoint.

        Raises:
            TokenRefusedError: the assertion proves nothing.
        """
        if form.get("grant_type") != GRANT:
            message = f"Invalid grant_type: {form.get('grant_type', '')}"
            raise TokenRefusedError(message)
        account = self._proved(form.get("assertion", ""), {token_url, _PUBLIC_TOKEN_URL})
        token = f"ya29.c.{secrets.token_urlsafe(96)}"
        expires = time.monotonic() + TOKEN_SECONDS
        self._tokens[token] = Token(account.email, account.project, expires)
        return {"access_token": token, "expires_in": TOKEN_SECONDS - 1, "token_type": "Bearer"}

    def bearer(self, authorization: str) -> Token:
        """Return who shows a token; raises `ApiError` 401."""
        token = self._tokens.get(authorization.removeprefix("Bearer "))
        if token is None or token.expires < time.monotonic() or token.email not in self.accounts:
            raise answers.unauthenticated()
        return token

    def may(self, token: Token, permission: str) -> bool:
        """Tell whether an account has a permission on its own project."""
        granted = self.projects[token.project].permissions.get(token.email, frozenset())
        return granted is None or permission in granted

    def _proved(self, assertion: str, audiences: set[str]) -> Account:
        account, keys = self._claimed(assertion)
        for key in keys:
            if key.disabled or not key.valid_after <= datetime.now(UTC) <= key.valid_before:
                continue
            try:
                claims = jwt.decode(assertion, RSAKey.import_key(key.public_pem), ["RS256"]).claims
            except JoseError:
                continue
            _check_claims(claims, audiences)
            return account
        message = "Invalid JWT Signature."
        raise TokenRefusedError(message)

    def _claimed(self, assertion: str) -> tuple[Account, list[Key]]:
        """Return whose an assertion claims to be, and the keys that may prove it."""
        try:
            header, claims = (
                json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
                for part in assertion.split(".")[:2]
            )
            account = self.accounts.get(claims["iss"])
        except (ValueError, KeyError, TypeError):
            message = "Bad Request"
            raise TokenRefusedError(message) from None
        if account is None or account.disabled:
            message = "Invalid grant: account not found"
            raise TokenRefusedError(message)
        named = header.get("kid")
        return account, [key for key in account.keys.values() if named in {None, key.id}]


def new_key_file(
    identities: Identities, account: Account, token_url: str, private: rsa.RSAPrivateKey
) -> tuple[Key, Json]:
    """Make a key of Google's own making; returns the file that its holder gets, once."""
    key = identities.add_key(account, certificate_of(private, account), "GOOGLE_PROVIDED")
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key, {
        "type": "service_account",
        "project_id": account.project,
        "private_key_id": key.id,
        "private_key": pem.decode(),
        "client_email": account.email,
        "client_id": account.unique_id,
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_url,
        "universe_domain": "googleapis.com",
    }


def new_private_key() -> rsa.RSAPrivateKey:
    """Make a key pair; takes a good part of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate_of(private: rsa.RSAPrivateKey, account: Account) -> x509.Certificate:
    """Return the certificate under which Google shows a key of its own making."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, account.unique_id)])
    start = datetime.now(UTC) - timedelta(seconds=60)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        .sign(private, hashes.SHA256())
    )


def _check_claims(claims: Mapping[str, Any], audiences: set[str]) -> None:
    now = time.time()
    begins, ends = claims.get("iat", 0), claims.get("exp", 0)
    if claims.get("aud") not in audiences:
        message = "Invalid JWT: Failed audience check."
        raise TokenRefusedError(message)
    if (
        begins > now + _CLOCK_TOLERANCE_SECONDS
        or ends < now - _CLOCK_TOLERANCE_SECONDS
        or ends - begins > TOKEN_SECONDS
    ):
        message = (
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
            "timeframe. Check your iat and exp values in the JWT claim."
        )
        raise TokenRefusedError(message)
    if not claims.get("scope"):
        message = "Empty or missing scope not allowed."
        raise TokenRefusedError(message)
