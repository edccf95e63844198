"""The certificate of the HTTPS listener: the platform's, renewed by itself, or given files.

Both put their certificate into one live `SSLContext`: new connections get the newest one, and open
connections stay as they are.
"""

import asyncio
import logging
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from domain.errors import BulkheadError
from infra.openbao.platform_leaf import new_platform_leaf
from infra.openbao.signing import ApiOpenBao

_logger = logging.getLogger(__name__)

# Renewed when a third of its life is left, so that OpenBao may be away for days.
_RENEW_AT: Final = 2 / 3

_RETRY_SECONDS: Final = 5.0
_FILES_CHECK_SECONDS: Final = 10.0


def new_context() -> ssl.SSLContext:
    """Return a server's context for TLS 1.2 and newer, without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


class PlatformCertificate:
    """A certificate of the platform's authority, with a new key each time.

    Args:
        context: where it is put.
        openbao: signs it.
        names: host names and addresses for which it is valid.
    """

    def __init__(self, context: ssl.SSLContext, openbao: ApiOpenBao, names: list[str]) -> None:
        self._context = context
        self._openbao = openbao
        self._names = names

    async def load(self) -> float:
        """Put a fresh certificate in place; return the seconds after which to renew it.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
        """
        certificate = await asyncio.to_thread(self._sign_and_load)
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        renewal = certificate.not_valid_before_utc + life * _RENEW_AT
        return max((renewal - datetime.now(UTC)).total_seconds(), _RETRY_SECONDS)

    def _sign_and_load(self) -> x509.Certificate:
        leaf = new_platform_leaf(self._openbao, self._names)
        # The ssl module reads keys from files only. This one is ours alone, and gone at once.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(leaf)
            file.flush()
            self._context.load_cert_chain(file.name)
        return x509.load_pem_x509_certificate(leaf)


@dataclass(slots=True)
class CertificateFiles:
    """A certificate that somebody else renews: read again whenever its files change."""

    context: ssl.SSLContext
    certificate_file: Path
    key_file: Path
    _loaded: tuple[int, int] | None = None

    async def load(self) -> float:
        """Put the files' certificate in place if it changed; return when to look again.

        Raises:
            OSError: a file cannot be read, or the two do not fit (`ssl.SSLError`).
        """
        found = (self.certificate_file.stat().st_mtime_ns, self.key_file.stat().st_mtime_ns)
        if found != self._loaded:
            self.context.load_cert_chain(self.certificate_file, self.key_file)
            self._loaded = found
        return _FILES_CHECK_SECONDS


async def keep_current(load: Callable[[], Awaitable[float]], loaded: asyncio.Event) -> None:
    """Load a certificate again and again, for ever; set the event after the first time.

    A failure is logged and tried again: what is in place stays, and a listener that has none yet
    opens when it can.
    """
    while True:
        try:
            seconds = await load()
        except (BulkheadError, OSError) as error:
            _logger.warning("the HTTPS certificate could not be loaded: %s", error)
            seconds = _RETRY_SECONDS
        else:
            loaded.set()
        await asyncio.sleep(seconds)
