"""The credentials of registries: what a connection's secret holds, in memory alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from domain.errors import BulkheadError, Reason
from domain.package import RegistryAuthentication


@dataclass(frozen=True, slots=True)
class BasicLogin:
    """A name and a password."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """A token that the registry takes as it is."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OAuthLogin:
    """A client of an OAuth server at `token_url`, which gives a token for an hour or so."""

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str


RegistryLogin = BasicLogin | TokenLogin | OAuthLogin

_FIELDS: Final[Mapping[RegistryAuthentication, tuple[str, ...]]] = {
    RegistryAuthentication.BASIC: ("username", "password"),
    RegistryAuthentication.TOKEN: ("token",),
    RegistryAuthentication.OAUTH: ("client_id", "client_secret", "token_url"),
}


def login_of(kind: RegistryAuthentication, credentials: Mapping[str, str | None]) -> RegistryLogin:
    """Return the login that a connection's `credentials` describe.

    Raises:
        BulkheadError: INVALID_ARGUMENT, with its path, for a field that the type needs and that is
            missing, that it does not have, or that no header can carry.
    """
    wanted = _FIELDS[kind]
    given = {name: value for name, value in credentials.items() if value is not None}
    for name in wanted:
        if not given.get(name):
            raise _wrong(name=name, why=f"A registry connection of type {kind} needs `{name}`.")
        if any(not character.isprintable() for character in given[name]):
            raise _wrong(name=name, why=f"`{name}` has characters that no request can carry.")
    for name in given:
        if name not in wanted:
            raise _wrong(name=name, why=f"A registry connection of type {kind} has no `{name}`.")
    match kind:
        case RegistryAuthentication.BASIC:
            if ":" in given["username"]:
                raise _wrong(name="username", why="`username` must have no colon.")
            return BasicLogin(given["username"], given["password"])
        case RegistryAuthentication.TOKEN:
            return TokenLogin(given["token"])
        case RegistryAuthentication.OAUTH:
            return OAuthLogin(given["client_id"], given["client_secret"], given["token_url"])


def secret_text_of(login: RegistryLogin) -> str:
    """Return what a connection's secret holds."""
    return json.dumps(asdict(login))


def login_of_secret(kind: RegistryAuthentication, text: str) -> RegistryLogin:
    """Read what `secret_text_of` made.

    Raises:
        BulkheadError: CREDENTIAL_REJECTED when it is something else.
    """
    try:
        return login_of(kind, json.loads(text))
    except (ValueError, AttributeError, TypeError, BulkheadError):
        raise BulkheadError(
            Reason.CREDENTIAL_REJECTED,
            "The secret of the registry connection does not hold what its type needs. Replace the "
            "connection.",
        ) from None


def _wrong(*, name: str, why: str) -> BulkheadError:
    return BulkheadError(Reason.INVALID_ARGUMENT, why, path=("credentials", name))
