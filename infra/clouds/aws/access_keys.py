"""The access keys of the IAM user that asks: it makes and removes its own.

Keys have no name and no tag, and a key's secret part is told once. A key that was made since a
given moment and never used is taken for one that an earlier attempt made and nobody kept; one that
a person made meanwhile and did not use yet would be taken for it too, for AWS tells no difference.
"""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from botocore.config import Config
from botocore.exceptions import ClientError

from domain.errors import BulkheadError, Reason
from infra.clouds.aws.clients import DEFAULT_CONFIG, Client, Clients
from infra.clouds.aws.errors import code_of, reason_of, typed_errors, unless_gone
from infra.clouds.deadline import Deadline
from infra.providers.signing import AccessKey
from infra.settings import ProviderSettings

_MOST_KEYS: Final = 2

# A new key is known to all of AWS after some seconds. Shorter than what follows, or a key that is
# not accepted would be one about which there was no time to ask.
_KNOWN_WITHIN_SECONDS: Final = 25.0
_POLL_SECONDS: Final = 0.5

# Each method ends within a minute, so that whoever gave it up finds nothing of it still at work.
_CALLS_BEGIN_WITHIN_SECONDS: Final = 30.0
_CONFIG: Final = DEFAULT_CONFIG.merge(
    Config(
        connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2}
    )
)


class UserKeys:
    """The keys of one key's user. Methods raise `BulkheadError`, as those of a `Cloud`.

    Made for one call: its time begins with it. `calls` counts what it asks.

    Args:
        key: who asks.
        settings: where AWS is.
    """

    def __init__(self, key: AccessKey, settings: ProviderSettings) -> None:
        self._key = key
        self._clients = Clients(key, settings, _CONFIG)
        self.calls = self._clients.calls
        self._deadline = Deadline(_CALLS_BEGIN_WITHIN_SECONDS)
        self._iam = self._client("iam")

    def _client(self, service: str) -> Client:
        client = self._clients(service)
        client.meta.events.register(
            "before-parameter-build", self._deadline.check, unique_id="deadline"
        )
        return client

    def check_room(self, since: datetime) -> None:
        """Raise FAILED_PRECONDITION unless the user can have a new key.

        Args:
            since: a key that was made since then, and never used, is no hindrance.
        """
        with typed_errors():
            identity = self._client("sts").get_caller_identity()
            if ":user/" not in identity["Arn"]:
                raise BulkheadError(
                    Reason.FAILED_PRECONDITION,
                    "The access key belongs to no IAM user, and only theirs can be rotated. Make "
                    "a user for the platform.",
                )
            others = self._others()
            if len(others) >= _MOST_KEYS - 1 and not self._unkept(others, since):
                raise _no_room()

    def create(self, since: datetime) -> AccessKey:
        """Make a key; one that was made since then, and never used, is removed before."""
        with typed_errors():
            self._remove(self._unkept(self._others(), since))
            try:
                made = self._iam.create_access_key()["AccessKey"]
            except ClientError as error:
                if reason_of(code_of(error)) is not Reason.QUOTA_EXCEEDED:
                    raise
                # A key of somebody else's, or ours whose answer was lost on its way.
                lost = self._unkept(self._others(), since)
                if not lost:
                    raise _no_room() from None
                self._remove(lost)
                made = self._iam.create_access_key()["AccessKey"]
        return AccessKey(key_id=made["AccessKeyId"], secret=made["SecretAccessKey"])

    def has(self, key_id: str) -> bool:
        """Tell whether another key is the same user's."""
        with typed_errors():
            return key_id in self._others()

    def check_accepted(self) -> None:
        """Ask AWS who this key is, until all of AWS knows it."""
        deadline = time.monotonic() + _KNOWN_WITHIN_SECONDS
        while True:
            try:
                with typed_errors():
                    self._client("sts").get_caller_identity()
                    return
            except BulkheadError as error:
                if error.reason is not Reason.CREDENTIAL_REJECTED or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def remove(self, key_id: str) -> None:
        """Remove another key; one that is gone is no failure."""
        with typed_errors():
            self._remove([key_id])

    def remove_unkept(self, since: datetime) -> None:
        """Remove a key that was made since then and never used."""
        with typed_errors():
            self._remove(self._unkept(self._others(), since))

    def retire(self, key_id: str) -> None:
        """Turn another key off, and remove it."""
        with typed_errors():
            unless_gone(self._iam.update_access_key, AccessKeyId=key_id, Status="Inactive")
            self._remove([key_id])

    def _others(self) -> dict[str, datetime]:
        """Return the user's other keys, and when each was made."""
        keys = self._iam.list_access_keys()["AccessKeyMetadata"]
        made_at = {key["AccessKeyId"]: key["CreateDate"] for key in keys}
        made_at.pop(self._key.key_id, None)
        return made_at

    def _unkept(self, keys: Mapping[str, datetime], since: datetime) -> list[str]:
        # AWS tells whole seconds.
        return [
            key_id
            for key_id, made_at in keys.items()
            if made_at >= since.replace(microsecond=0) and not self._was_used(key_id)
        ]

    def _was_used(self, key_id: str) -> bool:
        answer = self._iam.get_access_key_last_used(AccessKeyId=key_id)
        return "LastUsedDate" in answer.get("AccessKeyLastUsed", {})

    def _remove(self, key_ids: list[str]) -> None:
        for key_id in key_ids:
            arguments = {"AccessKeyId": key_id}
            unless_gone(self._iam.delete_access_key, **arguments)


def _no_room() -> BulkheadError:
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        "The user has two access keys already, as many as AWS allows. Remove the one that nobody "
        "uses; rotations that retire the old key leave none behind.",
    )
