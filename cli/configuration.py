"""Where the API is and who asks: options, environment, the stored login, the embedded stack.

The address and the token are looked for in that order. A token goes only to the address that it
was stored with: an address given by hand never receives the token of another one.
"""

import ipaddress
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli.errors import CliError, ExitCode
from cli.private_files import read_private, write_private

URL_VARIABLE = "BULKHEAD_API_URL"
TOKEN_VARIABLE = "BULKHEAD_API_TOKEN"  # noqa: S105 - the name of a variable, not a credential
CA_FILE_VARIABLE = "BULKHEAD_CA_FILE"
WORKSPACE_VARIABLE = "BULKHEAD_WORKSPACE"
HOME_VARIABLE = "BULKHEAD_HOME"

STATE_DIRECTORY = ".bulkhead"
OWNER_FILE = "owner.env"

_LOGIN_COMMAND = "bulkhead login --url URL"


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """An address, the token that belongs to it, and how its certificate is checked.

    Attributes:
        url: scheme, host and port; no path.
        token: sent as the bearer token; None only while logging in.
        ca_certificates: PEM text of the only authorities that are trusted; None for the usual.
        source: where the token was found, for a person.
    """

    url: str
    token: str | None = field(repr=False)
    ca_certificates: str | None = field(default=None, repr=False)
    source: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether requests stay on this machine."""
        return _is_loopback(urlsplit(self.url).hostname or "")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkspaceChoice:
    """The workspace that a command shall act in.

    Attributes:
        name: id, name or slug.
        is_remembered: chosen by an earlier command, not by an option or the environment.
    """

    name: str
    is_remembered: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What the options of one command say about the connection; None where not given."""

    url: str | None = None
    ca_file: Path | None = None
    workspace: str | None = None


def normalise_url(text: str) -> str:
    """Return the address without a path.

    Raises:
        CliError: it is no http(s) address, or would carry the token in clear text over a network.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _not_an_address(text) from error
    path = parts.path.rstrip("/")
    if parts.scheme not in {"http", "https"} or not host or path not in {"", "/v1"}:
        raise _not_an_address(text)
    if parts.username is not None or parts.query or parts.fragment:
        raise _not_an_address(text)
    if parts.scheme == "http" and not _is_loopback(host):
        message = f"http://{host} would carry the token in clear text over the network; use https."
        raise CliError(message, ExitCode.USAGE)
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")


def _not_an_address(text: str) -> CliError:
    # Whatever stands before an @ could be a password: it is not repeated.
    shown = text.rsplit("@", 1)[-1]
    message = f"{shown!r} is not an address of the API; write it as https://HOST[:PORT]."
    return CliError(message, ExitCode.USAGE)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Configuration:
    """Reads and writes what the client remembers, and resolves the connection of a command."""

    def __init__(
        self, environment: Mapping[str, str] | None = None, working_directory: Path | None = None
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self._working_directory = working_directory

    @property
    def directory(self) -> Path:
        """The folder of the client's own files, by the XDG rule."""
        base = self._environment.get("XDG_CONFIG_HOME", "")
        if base and Path(base).is_absolute():
            return Path(base) / "bulkhead"
        home = self._environment.get("HOME")
        return (Path(home) if home else Path.home()) / ".config" / "bulkhead"

    @property
    def login_file(self) -> Path:
        """The stored login."""
        return self.directory / "login.json"

    @property
    def _workspaces_file(self) -> Path:
        return self.directory / "workspaces.json"

    def resolve(self, wishes: Wishes) -> Connection:
        """Find the address and the token for a command.

        Raises:
            CliError: there is none, or the token that was found belongs to another address.
        """
        wanted = self._wanted_url(wishes)
        ca_certificates = self._wanted_authorities(wishes)
        token = self._environment.get(TOKEN_VARIABLE, "").strip() or None
        if wanted is not None and token is not None:
            return Connection(
                url=wanted, token=token, ca_certificates=ca_certificates, source=TOKEN_VARIABLE
            )
        for candidate in self._known_connections():
            if wanted is None or candidate.url == wanted:
                return Connection(
                    url=candidate.url,
                    token=token or candidate.token,
                    ca_certificates=ca_certificates or candidate.ca_certificates,
                    source=TOKEN_VARIABLE if token else candidate.source,
                )
        raise _nothing_known(wanted, has_token=token is not None)

    def resolve_url(self, wishes: Wishes) -> Connection:
        """Find the address to log in to, without any token.

        Raises:
            CliError: no address is given or known.
        """
        wanted = self._wanted_url(wishes)
        known = self._known_connections()
        if wanted is None:
            if not known:
                message = "Which API? Give its address."
                raise CliError(message, ExitCode.USAGE, next_commands=(_LOGIN_COMMAND,))
            wanted = known[0].url
        authorities = self._wanted_authorities(wishes) or _authorities_of(known, wanted)
        return Connection(url=wanted, token=None, ca_certificates=authorities)

    def store_login(self, connection: Connection) -> None:
        """Remember the address, the token and the authorities; 0600."""
        content = {
            "url": connection.url,
            "token": connection.token,
            "ca_certificates": connection.ca_certificates,
        }
        write_private(self.login_file, json.dumps(content, indent=2) + "\n")

    def forget_login(self) -> bool:
        """Remove the stored login. False: there was none."""
        try:
            self.login_file.unlink()
        except FileNotFoundError:
            return False
        return True

    def workspace_for(self, connection: Connection, wishes: Wishes) -> WorkspaceChoice | None:
        """Return the workspace that a command shall act in, if any is chosen."""
        chosen = wishes.workspace or self._environment.get(WORKSPACE_VARIABLE, "").strip()
        if chosen:
            return WorkspaceChoice(name=chosen, is_remembered=False)
        remembered = self._remembered_workspaces().get(connection.url)
        return WorkspaceChoice(name=remembered, is_remembered=True) if remembered else None

    def remember_workspace(self, url: str, workspace_id: str | None) -> None:
        """Use this workspace for the address from now on; None forgets it."""
        remembered = self._remembered_workspaces()
        if workspace_id is None:
            remembered.pop(url, None)
        else:
            remembered[url] = workspace_id
        write_private(self._workspaces_file, json.dumps(remembered, indent=2) + "\n")

    def _remembered_workspaces(self) -> dict[str, str]:
        return {str(url): str(name) for url, name in _json_object(self._workspaces_file).items()}

    def _wanted_url(self, wishes: Wishes) -> str | None:
        text = wishes.url or self._environment.get(URL_VARIABLE, "").strip()
        return normalise_url(text) if text else None

    def _wanted_authorities(self, wishes: Wishes) -> str | None:
        named = wishes.ca_file or self._environment.get(CA_FILE_VARIABLE, "").strip()
        return read_authorities(Path(named)) if named else None

    def _known_connections(self) -> list[Connection]:
        found = (self._stored_login(), self.embedded_owner())
        return [connection for connection in found if connection is not None]

    def _stored_login(self) -> Connection | None:
        stored = _json_object(self.login_file)
        if not isinstance(stored.get("url"), str) or not isinstance(stored.get("token"), str):
            return None
        authorities = stored.get("ca_certificates")
        return Connection(
            url=normalise_url(stored["url"]),
            token=stored["token"],
            ca_certificates=authorities if isinstance(authorities, str) else None,
            source=str(self.login_file),
        )

    def embedded_owner(self) -> Connection | None:
        """Return the embedded stack's address and first owner, if there is such a stack.

        Raises:
            CliError: its file cannot be believed.
        """
        path = self.owner_file
        content = None if path is None else read_private(path)
        if path is None or content is None:
            return None
        variables = parse_environment_file(content)
        url, token = variables.get(URL_VARIABLE), variables.get(TOKEN_VARIABLE)
        if not url or not token:
            return None
        url = normalise_url(url)
        named = variables.get(CA_FILE_VARIABLE) if url.startswith("https:") else None
        return Connection(
            url=url,
            token=token,
            ca_certificates=read_authorities(path.parent / named) if named else None,
            source=str(path),
        )

    @property
    def owner_file(self) -> Path | None:
        """Find the owner file of the embedded stack: where it was told to live, else upward."""
        home = self._environment.get(HOME_VARIABLE, "").strip()
        if home:
            return Path(home) / OWNER_FILE
        start = self._working_directory or Path.cwd()
        for folder in (start, *start.parents):
            candidate = folder / STATE_DIRECTORY / OWNER_FILE
            try:
                if candidate.is_file():
                    return candidate
            except PermissionError:
                return None
        return None


def read_authorities(path: Path) -> str:
    """Read the certificates of the authorities that an API's certificate is checked against.

    Raises:
        CliError: the file cannot be read.
    """
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"Cannot read the certificate authorities in {path}: {error}."
        raise CliError(message, ExitCode.USAGE) from error


def parse_environment_file(content: str) -> dict[str, str]:
    """Read `KEY=VALUE` lines as a shell would, `export` and comments included."""
    variables: dict[str, str] = {}
    for line in content.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        for word in words:
            name, separator, value = word.partition("=")
            if separator:
                variables[name] = value
    return variables


def _json_object(path: Path) -> dict[str, Any]:
    content = read_private(path)
    if content is None:
        return {}
    try:
        value = json.loads(content)
    except ValueError as error:
        message = f"{path} is damaged; remove it and log in again."
        raise CliError(message, next_commands=(f"rm {path}", _LOGIN_COMMAND)) from error
    return value if isinstance(value, dict) else {}


def _authorities_of(known: list[Connection], url: str) -> str | None:
    return next((entry.ca_certificates for entry in known if entry.url == url), None)


def _nothing_known(wanted: str | None, *, has_token: bool) -> CliError:
    if wanted is not None:
        message = f"There is no token for {wanted}: log in, or set {TOKEN_VARIABLE}."
        command = f"bulkhead login --url {wanted}"
        return CliError(message, ExitCode.NOT_AUTHORISED, next_commands=(command,))
    if has_token:
        message = f"{TOKEN_VARIABLE} is set, but no address: set {URL_VARIABLE} or give --url."
        return CliError(message, ExitCode.USAGE)
    message = "Not logged in, and no embedded stack is found from here upward."
    next_commands = (_LOGIN_COMMAND, "make up   (in the checkout: starts the embedded stack)")
    return CliError(message, ExitCode.NOT_AUTHORISED, next_commands=next_commands)
