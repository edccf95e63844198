"""The process of a provider program: a port for the engine, and an end when the engine is gone."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from pulumi.runtime.proto import provider_pb2_grpc

from infra.local_cloud.provider_programs.resource import ClientT
from infra.local_cloud.provider_programs.servicer import ProviderProgram, ProviderServicer

# What the real provider programs take: a checkpoint's properties in one message.
_LARGEST_MESSAGE: Final = 400 * 1024 * 1024
_THREADS: Final = 16
_PARENT_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 1.0


def serve(program: ProviderProgram[ClientT]) -> None:
    """Serve a provider to the engine that started this process, until it ends us or is gone."""
    parent = os.getppid()
    server = grpc.server(
        ThreadPoolExecutor(max_workers=_THREADS),
        options=[
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
            ("grpc.max_send_message_length", _LARGEST_MESSAGE),
        ],
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(ProviderServicer(program), server)
    port = server.add_insecure_port("127.0.0.1:0")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    server.start()
    # The engine reads one line and keeps the pipe; nothing else is ever written there.
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


def _end_with_parent(parent: int) -> None:
    """End this process when the engine was killed: nobody else tells it."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    # Calls that are at the provider now may still have their effect, as with the real programs.
    time.sleep(_GRACE_SECONDS)
    os._exit(1)
