"""Keeps the registry's certificate new: `python -m infra.registry`."""

from infra.core_dumps import forbid_core_dumps
from infra.registry.certificate import run
from infra.settings import RegistryCertificateSettings
from infra.telemetry import configure_logging

if __name__ == "__main__":
    # Its memory holds the registry's key for a moment, and a login of the secret store.
    forbid_core_dumps()
    settings = RegistryCertificateSettings()
    configure_logging(settings.log.level)
    run(settings)
