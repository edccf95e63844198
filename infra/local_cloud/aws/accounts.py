"""The accounts of the local AWS, and what each may have.

moto keeps its state in the process, by account; so do we. Accounts are made over HTTP at
`POST /_accounts`, which takes no credential: the local clouds listen on loopback alone.
"""

import json
import random
import string
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from moto.iam.models import IAMBackend, iam_backends

from infra.local_cloud.faults import Faults
from infra.local_cloud.serving import ApiOptions

CONTROL_PATH: Final = "/_accounts"
PARTITION: Final = "aws"

# Regions that an account uses; a real one starts with seventeen.
REGIONS: Final = ("eu-central-1", "eu-west-1", "us-east-1")

_ALL: Final = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}

# moto is made for one thread, and all of its accounts are in one process.
MOTO_LOCK: Final = threading.RLock()


@dataclass(kw_only=True)
class Account:
    """One account.

    Attributes:
        vcpus: the quota of standard instances, in virtual CPUs, for each region.
        vpcs: the quota of VPCs for each region.
        boot_images: by an image's id, the key of the snapshot that its servers boot.
        spread_at: when something new is known everywhere, by what it is.
    """

    id: str
    options: ApiOptions
    faults: Faults
    vcpus: int = 64
    vpcs: int = 20
    boot_images: dict[str, str] = field(default_factory=dict)
    spread_at: dict[str, float] = field(default_factory=dict)

    @property
    def iam(self) -> IAMBackend:
        """The account's IAM."""
        return iam_backends[self.id][PARTITION]

    def spreads(self, thing: str) -> None:
        """Begin to let something new be known; IAM takes a while for that, in AWS some seconds."""
        self.spread_at[thing] = time.monotonic() + 2 * self.options.action_seconds

    def is_known(self, thing: str) -> bool:
        """Tell whether something is known everywhere."""
        return time.monotonic() >= self.spread_at.get(thing, 0.0)


ACCOUNTS: Final[dict[str, Account]] = {}


def control(options: ApiOptions, faults: Faults, body: bytes) -> tuple[int, bytes]:
    """Make an account with one user, or one more user in it, and answer with an access key.

    Args:
        options: of the API.
        faults: of the API.
        body: JSON, all of it optional: `account_id`, `user_name`, `policy` (of the user; the one
            that allows everything if there is none), `vcpus`, `vpcs`.
    """
    asked: dict[str, Any] = json.loads(body or b"{}")
    with MOTO_LOCK:
        account_id = asked.get("account_id") or "".join(random.choices(string.digits, k=12))  # noqa: S311
        account = ACCOUNTS.get(account_id)
        if account is None:
            account = Account(id=account_id, options=options, faults=faults)
            ACCOUNTS[account_id] = account
        for quota in ("vcpus", "vpcs"):
            setattr(account, quota, asked.get(quota, getattr(account, quota)))
        user = str(asked.get("user_name", "bulkhead"))
        if user not in account.iam.users:
            account.iam.create_user(REGIONS[-1], user)
        policy = json.dumps(asked.get("policy", _ALL)).replace("${aws:username}", user)
        account.iam.put_user_policy(user, "bulkhead", policy)
        key = account.iam.create_access_key(user)
    answer = {
        "account_id": account_id,
        "user_name": user,
        "access_key_id": key.access_key_id,
        "secret_access_key": key.secret_access_key,
    }
    return 200, json.dumps(answer).encode()
