"""How people call what uses a secret: by names, where what is registered are ids."""

from collections.abc import Callable, Mapping, Sequence

from cli.client import JsonObject
from cli.names import names_by_id
from cli.session import COMPUTE_CONFIG, INSTALL, REGISTRY, SECRET, Noun, Session
from cli.text import clean

# What the platform registers by itself, with what each of them is called after.
_NOUNS: Mapping[str, Noun] = {
    "compute_config": COMPUTE_CONFIG,
    "install": INSTALL,
    "registry_connection": REGISTRY,
    # The rotation of the secret with this id.
    "secret_rotation": SECRET,
}


def consumer_names(
    session: Session, references: Sequence[JsonObject]
) -> Callable[[JsonObject], str]:
    """Return what names a consumer: its name, or its id where it has none that can be read.

    Args:
        session: the command's.
        references: all that will be asked about; each kind of them is read once.
    """
    names: dict[str, str] = {}
    for kind in {reference["consumer_type"] for reference in references} & _NOUNS.keys():
        wanted = {one["consumer_id"] for one in references if one["consumer_type"] == kind}
        names |= names_by_id(session, _NOUNS[kind], wanted)

    def name_of(reference: JsonObject) -> str:
        return names.get(reference["consumer_id"]) or clean(reference["consumer_id"])

    return name_of
