"""Unknown query parameters: refused, for a misspelt filter would silently show everything."""

from fastapi import Request
from fastapi.dependencies.models import Dependant

from domain.errors import BulkheadError, Reason


def refuse_unknown_parameters(request: Request) -> None:
    """Refuse a parameter that the route does not know.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400.
    """
    if not request.scope["query_string"]:
        return
    known = _known_parameters(request.scope["route"].dependant)
    for name in request.query_params:
        if name not in known:
            raise BulkheadError(
                Reason.INVALID_ARGUMENT,
                f"There is no query parameter of this name; there are: {', '.join(known)}."
                if known
                else "This address takes no query parameters.",
                path=("query", name[:64]),
                status=400,
            )


def _known_parameters(dependant: Dependant) -> list[str]:
    known = [field.alias for field in dependant.query_params]
    for needed in dependant.dependencies:
        known += _known_parameters(needed)
    return known
