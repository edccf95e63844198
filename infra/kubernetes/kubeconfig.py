"""Kubeconfigs for programs, in memory only: the program inherits a descriptor."""

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator

from infra.kubernetes.logins import Login


def kubeconfig(url: str, login: Login) -> bytes:
    """Return a kubeconfig with one cluster and one user; it has the login's key."""

    def encoded(pem: str | bytes) -> str:
        return base64.b64encode(pem.encode() if isinstance(pem, str) else pem).decode()

    cluster = {"server": url, "certificate-authority-data": encoded(login.authority)}
    user = {
        "client-certificate-data": encoded(login.certificate),
        "client-key-data": encoded(login.key),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
        "current-context": "context",
    }
    return json.dumps(config).encode()


@contextlib.contextmanager
def in_memory(name: str, content: bytes) -> Iterator[int]:
    """Hold content that a child reads as `/proc/self/fd/N`, as often as it likes; no disk has it.

    Args:
        name: shown in /proc alone.
        content: what it reads; nobody can change it.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(descriptor, 0o600)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield descriptor
    finally:
        os.close(descriptor)
