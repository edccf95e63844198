"""Composes the API process: settings, clients, the application, its listeners, and its end."""

import asyncio
import gc
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from starlette.types import ASGIApp

from api.app import create_app
from api.certificates import CertificateFiles, PlatformCertificate, keep_current, new_context
from api.clients import Clients
from api.request_threads import RequestThreads
from api.server import Listener, serve_until
from infra.core_dumps import forbid_core_dumps
from infra.database.engine import Database, DatabaseRole
from infra.database.operation_changes import OperationChanges
from infra.kubernetes.node_tokens import NodeTokenIssuer
from infra.openbao.policies import API
from infra.openbao.signing import ApiOpenBao
from infra.providers.validation import ProviderValidation
from infra.secret_store.serving import ServingGate
from infra.settings import ApiProcessSettings, ApiSettings
from infra.telemetry import configure_logging
from infra.temporal.client import TemporalConnection


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    forbid_core_dumps()
    settings = ApiProcessSettings()  # read from the environment
    check(settings.api)
    configure_logging(settings.log.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings))


def check(settings: ApiSettings) -> None:
    """Refuse settings that would do something else than they seem to.

    Raises:
        SystemExit: it says what to set.
    """
    if settings.http_address is None and settings.https_address is None:
        message = "Set API__HTTP_ADDRESS, API__HTTPS_ADDRESS or both: nothing is listened on."
        raise SystemExit(message)
    if (settings.certificate_file is None) != (settings.certificate_key_file is None):
        message = "Set both API__CERTIFICATE_FILE and API__CERTIFICATE_KEY_FILE, or neither."
        raise SystemExit(message)


async def run(settings: ApiProcessSettings) -> None:
    """Serve until a signal asks to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(RequestThreads(loop))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_clients(settings) as clients, clients.changes.listening():
        app = create_app(clients, settings.api, temporal_namespace=settings.temporal.namespace)
        # What is loaded by now stays: the collector need not look through it again and again.
        gc.freeze()
        async with asyncio.TaskGroup() as group:
            if settings.api.http_address is not None:
                listener = Listener(app, settings.api.http_address)
                group.create_task(_serve(stop, listener))
            if settings.api.https_address is not None:
                group.create_task(_serve_https(stop, app, clients.openbao, settings.api))
            await stop.wait()
            # Long polls answer with what they know, instead of keeping their listeners open.
            clients.changes.release_all()


@asynccontextmanager
async def open_clients(settings: ApiProcessSettings) -> AsyncIterator[Clients]:
    """Make the process's connections; each connects when it is first used."""
    openbao = ApiOpenBao(settings.openbao)
    clients = Clients(
        database=Database(settings.database, DatabaseRole.API),
        changes=OperationChanges(settings.database, DatabaseRole.API),
        temporal=TemporalConnection(settings.temporal, settings.openbao, API),
        openbao=openbao,
        node_tokens=NodeTokenIssuer(openbao),
        providers=ProviderValidation(settings.providers),
        serving=ServingGate(openbao.marker, settings.openbao.restored_at_file),
    )
    try:
        yield clients
    finally:
        await clients.database.close()
        clients.node_tokens.close()
        clients.openbao.close()
        clients.temporal.close()
        await clients.providers.close()


async def _serve_https(
    stop: asyncio.Event, app: ASGIApp, openbao: ApiOpenBao, settings: ApiSettings
) -> None:
    """Open the listener once there is a certificate, and keep that current."""
    assert settings.https_address is not None  # noqa: S101 - the caller has checked
    context = new_context()
    loaded = asyncio.Event()
    renewal = asyncio.create_task(
        keep_current(_certificate(context, openbao, settings).load, loaded)
    )
    stopping = asyncio.create_task(stop.wait())
    ready = asyncio.create_task(loaded.wait())
    try:
        await asyncio.wait({ready, stopping, renewal}, return_when=asyncio.FIRST_COMPLETED)
        if loaded.is_set():
            await _serve(stop, Listener(app, settings.https_address, context))
    finally:
        for task in (renewal, stopping, ready):
            task.cancel()


def _certificate(
    context: ssl.SSLContext, openbao: ApiOpenBao, settings: ApiSettings
) -> CertificateFiles | PlatformCertificate:
    if settings.certificate_file is None or settings.certificate_key_file is None:
        return PlatformCertificate(context, openbao, settings.server_names)
    return CertificateFiles(context, settings.certificate_file, settings.certificate_key_file)


async def _serve(stop: asyncio.Event, listener: Listener) -> None:
    # A listener that ends, ends the process: half an API would look like a whole one.
    try:
        await serve_until(stop, listener)
    finally:
        stop.set()
