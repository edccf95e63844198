"""Keeps the registry's certificate new.

The registry reads it at its start only, so it is restarted with each new one, every 20 days.
"""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from domain.errors import BulkheadError
from infra.openbao.platform_leaf import new_platform_leaf
from infra.openbao.signing import ApiOpenBao
from infra.settings import RegistryCertificateSettings, RegistrySettings
from infra.supervisor.files import write_atomically
from infra.supervisor.supervisor import Supervisor

_logger = logging.getLogger(__name__)

# Renewed when a third of its life is left, so that OpenBao may be away for days.
_RENEW_AT: Final = 2 / 3

# A minute is soon enough for what is due for ten days, and costs a read of two small files.
_LOOK_SECONDS: Final = 60.0

# The group and the program that `run` restarts.
REGISTRY: Final = "registry"


@dataclass(frozen=True, slots=True)
class RegistryCertificate:
    """The certificate of one registry.

    Attributes:
        settings: where it is, who reads it, and for which names it is.
        openbao: signs it.
    """

    settings: RegistrySettings
    openbao: ApiOpenBao

    def ensure(self) -> bool:
        """Replace it when it is missing, due, of another authority or for other names.

        Returns whether it was replaced.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao does not answer.
        """
        if not self._is_due():
            return False
        file = self.settings.certificate_file
        write_atomically(file, new_platform_leaf(self.openbao, self.settings.server_names))
        if self.settings.uid is not None:
            os.chown(file, self.settings.uid, self.settings.uid)
        return True

    def _is_due(self) -> bool:
        try:
            certificate = _read(self.settings.certificate_file)
            authority = _read(self.settings.ca_file)
            certificate.verify_directly_issued_by(authority)
        except (OSError, ValueError, TypeError, InvalidSignature):
            return True
        begin = certificate.not_valid_before_utc.timestamp()
        end = certificate.not_valid_after_utc.timestamp()
        is_old = time.time() >= begin + (end - begin) * _RENEW_AT
        return is_old or _names_of(certificate) != set(self.settings.server_names)


def renew(certificate: RegistryCertificate) -> None:
    """Renew it if it is due, and then restart the registry with it.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when OpenBao or supervisord does not answer.
    """
    if certificate.ensure():
        _logger.info("the registry gets a new certificate")
        Supervisor(certificate.settings.supervisor_dir).restart(REGISTRY, REGISTRY)


def run(settings: RegistryCertificateSettings) -> None:
    """Renew it whenever it is due, for ever."""
    certificate = RegistryCertificate(settings.registry, ApiOpenBao(settings.openbao))
    while True:
        try:
            renew(certificate)
        except (BulkheadError, OSError) as error:
            _logger.warning("the registry's certificate could not be renewed: %s", error)
        time.sleep(_LOOK_SECONDS)


def _read(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def _names_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return {*names.get_values_for_type(x509.DNSName), *map(str, addresses)}
