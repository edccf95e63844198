"""Names that a shell offers while a command is typed."""

from collections.abc import Callable

from cli.client import NO_RETRY
from cli.configuration import Wishes
from cli.errors import CliError
from cli.output import Output
from cli.session import Noun, Session
from cli.text import name_in

_MOST = 100


def names_of(noun: Noun) -> Callable[[str], list[str]]:
    """Return the function with which Typer completes the name of such a resource."""

    def names(session: Session) -> list[str]:
        entries = session.client.read_list(noun.path, limit=_MOST)
        return [name for entry in entries if (name := name_in(entry))]

    return finished(names)


def finished(names: Callable[[Session], list[str]]) -> Callable[[str], list[str]]:
    """Return the function with which Typer completes what `names` returns."""

    def complete(incomplete: str) -> list[str]:
        # Options of the line that is being typed are not known here; without an answer nothing is
        # offered, and nothing may be printed into the line.
        session = Session(output=Output(), wishes=Wishes(), retry=NO_RETRY)
        try:
            known = names(session)
        except CliError:
            return []
        finally:
            session.close()
        return [name for name in known if name.startswith(incomplete)]

    return complete
