"""Files of a server's disk, written from outside while it is off."""

import os
from contextlib import suppress
from pathlib import Path


def write(file: Path, content: str, mode: int) -> None:
    """Write a file whole or not at all."""
    missing = [parent for parent in file.parents if not parent.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    for parent in missing:
        # Not by the caller's umask: these are directories of the server.
        parent.chmod(0o755)
    new = file.with_name(f".{file.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as output:
        output.write(content)
    new.chmod(mode)
    new.replace(file)


def nameservers() -> str:
    """Return the host's resolver configuration without what only answers on its loopback."""
    for source in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        with suppress(OSError):
            lines = Path(source).read_text().splitlines(keepends=True)
            return "".join(line for line in lines if not line.startswith("nameserver 127."))
    return ""
