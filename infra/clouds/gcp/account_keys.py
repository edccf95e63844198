"""The keys of the service account whose key this is, changed with the account's own rights."""

import base64
import json
import time
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from googleapiclient.errors import HttpError

from domain.errors import BulkheadError, Reason
from domain.secret import SecretValue
from infra.clouds.deadline import Deadline
from infra.clouds.gcp.account import Client, GcpAccount, Json
from infra.clouds.gcp.errors import typed_errors
from infra.settings import ProviderSettings

# Google's limit for one account.
_MOST_KEYS: Final = 10
_KEY_BITS: Final = 2048
_VALID_FOR: Final = timedelta(days=3650)

# Google says that a key may take a minute to be known everywhere.
_KNOWN_WITHIN_SECONDS: Final = 65.0
_POLL_SECONDS: Final = 2.0

# What changes something ends within a minute, so that whoever gave it up finds nothing of it still
# at work. The library asks twice when a connection breaks.
_CALLS_BEGIN_WITHIN_SECONDS: Final = 30.0
_ANSWERS_WITHIN_SECONDS: Final = 10.0

_BAD_REQUEST: Final = 400
_GONE: Final = 404
_CONFLICT: Final = 409


class AccountKeys:
    """The keys of one account, for one call: its time begins when this is made. `calls` counts.

    A key of ours is made here and only its public half uploaded, in a certificate that is valid
    from the moment on at which its rotation began: Google tells that again, so that a key whose
    private half was lost is found. Nobody else uploads a key of the same second.

    Args:
        value: the key file whose account this is.
        settings: where Google is.
    """

    def __init__(self, value: SecretValue, settings: ProviderSettings) -> None:
        self._account = GcpAccount(value, settings, answers_within_seconds=_ANSWERS_WITHIN_SECONDS)
        self.calls = self._account.calls
        self._deadline = Deadline(_CALLS_BEGIN_WITHIN_SECONDS)
        self._file: Json = json.loads(value.data)
        self._name = f"projects/{self._account.project}/serviceAccounts/{self._account.key.email}"
        self._keys = self._account.iam.projects().serviceAccounts().keys()

    def check_room(self, began: datetime) -> None:
        """Use the key, and look whether its account has room for another.

        Raises:
            BulkheadError: FAILED_PRECONDITION when it has not.
        """
        with typed_errors():
            others = [key for key in self._list() if not _is_of(key, began)]
        if len(others) >= _MOST_KEYS:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                f"The service account has {_MOST_KEYS} keys already, which is Google's limit. "
                "Delete one that nobody uses, and rotate again.",
            )

    def create(self, began: datetime) -> SecretValue:
        """Make another key, which Google accepts from then on, and return its key file.

        One that an earlier attempt made is of no use, since its private half is lost: it goes.
        """
        self.remove_unkept(began)
        private = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
        body = {"publicKeyData": base64.b64encode(_certificate(private, began)).decode()}
        with typed_errors():
            try:
                made = self._call(self._keys.upload(name=self._name, body=body))
            except HttpError as error:
                if error.resp.status == _BAD_REQUEST:
                    raise _refused() from None
                if error.resp.status != _CONFLICT:
                    raise
                # The library sent it again when its connection broke: the key is there.
                made = next(key for key in self._list() if _is_of(key, began))
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        found = {"private_key_id": _id_of(made), "private_key": pem.decode()}
        return SecretValue.of_text(json.dumps(self._file | found, indent=2))

    def has(self, key_id: str) -> bool:
        """Tell whether the account has a key."""
        with typed_errors():
            return any(_id_of(key) == key_id for key in self._list())

    def check_accepted(self) -> None:
        """Get a token with this key, until all of Google knows it."""
        deadline = time.monotonic() + _KNOWN_WITHIN_SECONDS
        while True:
            try:
                self._account.token()
            except BulkheadError as error:
                if error.reason is not Reason.CREDENTIAL_REJECTED or time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(_POLL_SECONDS)

    def remove(self, key_id: str) -> None:
        """Remove another key; one that is gone is no failure."""
        with typed_errors():
            self._remove(key_id)

    def remove_unkept(self, began: datetime) -> None:
        """Remove the key of a rotation."""
        with typed_errors():
            for key in self._list():
                if _is_of(key, began) and _id_of(key) != self._account.key.key_id:
                    self._remove(_id_of(key))

    def retire(self, key_id: str) -> None:
        """Turn another key off, and remove it."""
        with typed_errors():
            self._unless_gone(self._keys.disable(name=f"{self._name}/keys/{key_id}"))
            self._remove(key_id)

    def _remove(self, key_id: str) -> None:
        self._unless_gone(self._keys.delete(name=f"{self._name}/keys/{key_id}"))

    def _unless_gone(self, request: Client) -> None:
        try:
            self._call(request)
        except HttpError as error:
            if error.resp.status != _GONE:
                raise

    def _call(self, request: Client) -> Json:
        self._deadline.check()
        return self._account.call(request)

    def _list(self) -> list[Json]:
        answer = self._call(self._keys.list(name=self._name, keyTypes="USER_MANAGED"))
        return list(answer.get("keys", []))


def _certificate(private: rsa.RSAPrivateKey, began: datetime) -> bytes:
    """Return the certificate in which Google takes a public key; it expires with it."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bulkhead")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + _VALID_FOR)
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _is_of(key: Json, began: datetime) -> bool:
    uploaded = key.get("keyOrigin") == "USER_PROVIDED"
    return uploaded and datetime.fromisoformat(key["validAfterTime"]) == began


def _id_of(key: Json) -> str:
    return str(key["name"]).rpartition("/")[2]


def _refused() -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        "Google takes no other key for the service account: it has ten already, or a policy of the "
        "organization (iam.disableServiceAccountKeyUpload) forbids it.",
    )
