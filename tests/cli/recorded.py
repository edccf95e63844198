"""An API of prepared answers, for what takes a real one minutes to come to."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from cli.client import ApiClient
from cli.configuration import Connection, Wishes
from cli.invocation import Invocation
from cli.output import Output
from cli.session import Session

Answer = Mapping[str, Any] | list[Any] | httpx.Response | Callable[[httpx.Request], httpx.Response]


@dataclass
class Recorded:
    """Answers each request by its method and path, and keeps what was sent.

    Attributes:
        answers: `GET /installs/inst_1` to what is answered; a list is one page. Whatever is not
            here is not found.
        sent: the requests.
    """

    answers: Mapping[str, Answer]
    sent: list[httpx.Request] = field(default_factory=list)
    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)

    def session(self, *, as_json: bool = False) -> Session:
        """Return a command's session with this API."""
        invocation = Invocation(program="bulkhead")
        output = Output(as_json=as_json, out=self.out, err=self.err, invocation=invocation)
        session = Session(output=output, wishes=Wishes())
        connection = Connection(url="https://api.example", token="t")
        transport = httpx.MockTransport(self._answer)
        # In the place of the one that it would make from the environment.
        session.__dict__["client"] = ApiClient(connection, transport=transport)
        return session

    @property
    def shown(self) -> str:
        """What a person sees, in whatever stream."""
        return self.out.getvalue() + self.err.getvalue()

    def next_commands(self) -> list[str]:
        """Return what was proposed to be typed next."""
        lines = [line.strip() for line in self.shown.splitlines()]
        return [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        path = request.url.path.removeprefix("/v1")
        answer = self.answers.get(f"{request.method} {path}", refusal(404, "NOT_FOUND"))
        if isinstance(answer, list):
            answer = {"data": answer, "has_more": False, "next_cursor": None}
        if isinstance(answer, Mapping):
            return httpx.Response(200, json=dict(answer))
        return answer if isinstance(answer, httpx.Response) else answer(request)


def refusal(status: int, reason: str, path: str = "", **metadata: str) -> httpx.Response:
    """Return an error as the API gives it."""
    item = {
        "code": 7000,
        "message": "No.",
        "path": [part for part in path.split(".") if part],
        "metadata": {"reason": reason, **metadata},
    }
    return httpx.Response(status, json={"success": False, "errors": [item], "result": {}})
