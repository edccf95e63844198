"""boto3's clients of one access key, and nothing of this host's own configuration."""

import functools
import threading
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config

from infra.clouds.cloud import CallCount
from infra.providers.signing import AccessKey
from infra.settings import ProviderSettings

# boto3 makes its clients' methods while it runs: they have no types.
Client = Any

# AWS's own profile files and endpoints from the environment are somebody else's.
_NO_CONFIGURATION: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, "/dev/null", None),
    "credentials_file": (None, None, "/dev/null", None),
}
DEFAULT_CONFIG: Final = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 4},
    ignore_configured_endpoint_urls=True,
    user_agent_extra="bulkhead",
    # As many as `inventory` asks at once.
    max_pool_connections=16,
)


# Making clients is not safe for threads, using them is.
_MAKING: Final = threading.Lock()


@functools.cache
def _session() -> boto3.session.Session:
    """Return the process's one session, which keeps AWS's descriptions of its services (30 MB)."""
    return boto3.session.Session(
        botocore_session=botocore.session.Session(session_vars=_NO_CONFIGURATION)
    )


class Clients:
    """Makes each client once; safe for threads.

    Args:
        key: who asks.
        settings: where AWS is.
        config: of each client.
    """

    def __init__(
        self, key: AccessKey, settings: ProviderSettings, config: Config = DEFAULT_CONFIG
    ) -> None:
        self._config = config
        self.home_region = settings.aws_sts_region
        self.calls = CallCount()
        self._settings = settings
        self._key = key
        self._clients: dict[tuple[str, str], Client] = {}

    def __call__(self, service: str, region: str = "") -> Client:
        """Return the client of a service in a region; without one, at home."""
        where = (service, region or self.home_region)
        with _MAKING:
            if where not in self._clients:
                client = _session().client(
                    service_name=service,
                    region_name=where[1],
                    aws_access_key_id=self._key.key_id,
                    aws_secret_access_key=self._key.secret,
                    endpoint_url=self._settings.aws_endpoint_url,
                    verify=None if self._settings.ca_file is None else str(self._settings.ca_file),
                    config=self._config,
                )
                client.meta.events.register("before-send", self.calls)
                self._clients[where] = client
            return self._clients[where]
