"""A count that the store carries: an older state of the store has a lower one."""

from typing import Final

from infra.openbao.answers import read, write
from infra.openbao.policies import STATE_PATH
from infra.openbao.session import OpenBaoSession

_GENERATION: Final = "generation"


class StoreMarker:
    """The generation that OpenBao's own store holds, in the root namespace. Blocking.

    The worker moves it; the API reads it.
    """

    def __init__(self, session: OpenBaoSession) -> None:
        self._session = session

    def read(self) -> int:
        """Return the generation; 0 when it was never written.

        Raises:
            BulkheadError: DEPENDENCY_UNAVAILABLE when the server is down, sealed or denies the
                login.
        """
        answer = self._session.call(
            "read the store's generation", lambda client: read(client, STATE_PATH)
        )
        return 0 if answer is None else int(answer[_GENERATION])

    def write(self, generation: int) -> None:
        """Set the generation; raises like `read`."""
        document: dict[str, object] = {_GENERATION: generation}
        self._session.call(
            "write the store's generation", lambda client: write(client, STATE_PATH, document)
        )
