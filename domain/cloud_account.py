"""Whose account something in a cloud is in, and which one it proved to be."""

from dataclasses import dataclass

from domain.cloud import Provider
from domain.secret import CURRENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Whose account something is in, and with which credential it is reached.

    Attributes:
        version: of the secret, as its reader takes it: an id, or `current`.
        image: what servers boot; empty: the provider's default.
    """

    workspace_id: str
    compute_config_id: str
    provider: Provider
    secret_id: str
    version: str = CURRENT
    image: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedAs:
    """Which account it is that was opened, as far as can be told.

    Attributes:
        version_id: of the secret, with which it was.
        account_id: the provider's own name of the account; None: it tells none.
    """

    version_id: str
    account_id: str | None = None
