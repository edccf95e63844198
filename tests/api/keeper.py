"""A person whose workspace has its place in the secret store, and what they do with secrets."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx

from infra.openbao.client import OpenBao
from tests.api.gate import JSON, Gate, Person

VALUE = "the first value"


@dataclass(frozen=True)
class Keeper:
    """What a test asks of the routes of secrets."""

    gate: Gate
    person: Person

    async def create(self, name: str = "database", **body: Any) -> JSON:  # noqa: ANN401 - a body
        wanted = {"name": name, "kind": "generic", "value": VALUE, **body}
        return ok(await self.person.post("/v1/secrets", wanted), 201)

    async def add(self, secret: JSON, value: str = "another value", **options: Any) -> JSON:  # noqa: ANN401 - options of httpx
        path = f"/v1/secrets/{secret['id']}/versions"
        return ok(await self.person.post(path, {"value": value}, **options), 201)

    async def get(self, secret: JSON) -> JSON:
        return ok(await self.person.get(f"/v1/secrets/{secret['id']}"))

    async def versions(self, secret: JSON) -> list[JSON]:
        """Return the versions, newest first."""
        listed: list[JSON] = ok(await self.person.get(f"/v1/secrets/{secret['id']}/versions"))[
            "data"
        ]
        return listed

    async def patch(self, secret: JSON, changes: JSON) -> httpx.Response:
        """Send changes with the etag that the secret has now."""
        etag = (await self.get(secret))["etag"]
        return await self.person.call(
            "PATCH", f"/v1/secrets/{secret['id']}", json=changes, headers={"if-match": etag}
        )

    async def delete(self, secret: JSON, query: str = "") -> httpx.Response:
        etag = (await self.get(secret))["etag"]
        return await self.person.call(
            "DELETE", f"/v1/secrets/{secret['id']}{query}", headers={"if-match": etag}
        )

    async def undelete(self, secret: JSON) -> httpx.Response:
        etag = (await self.get(secret))["etag"]
        return await self.person.post(
            f"/v1/secrets/{secret['id']}:undelete", headers={"if-match": etag}
        )

    async def switch(self, version: JSON, verb: str, query: str = "") -> httpx.Response:
        """Enable, disable or destroy a version as it is now."""
        path = f"/v1/secrets/{version['secret_id']}/versions/{version['id']}"
        etag = ok(await self.person.get(path))["etag"]
        return await self.person.post(f"{path}:{verb}{query}", headers={"if-match": etag})

    async def access(
        self, secret: JSON, selector: str = "current", body: JSON | None = None
    ) -> httpx.Response:
        path = f"/v1/secrets/{secret['id']}/versions/{selector}:access"
        return await self.person.call("POST", path, **({} if body is None else {"json": body}))

    async def value(self, secret: JSON, selector: str = "current") -> str:
        value: str = ok(await self.access(secret, selector))["value"]
        return value

    async def set_policy(self, **policy: Any) -> None:  # noqa: ANN401 - fields of a body
        path = f"/v1/workspaces/{self.person.workspace}/secret_policy"
        etag = ok(await self.person.get(path))["etag"]
        ok(await self.person.call("PATCH", path, json=policy, headers={"if-match": etag}))

    async def token(self, *scopes: str) -> Person:
        """Return a workspace's token with these scopes."""
        made = ok(
            await self.person.post("/v1/api_tokens", {"name": "t", "scopes": list(scopes)}), 201
        )
        return Person(made["id"], self.person.workspace, made["token"], self.gate.client)


async def new_keeper(gate: Gate, person: Person | None = None) -> Keeper:
    """Make a person's workspace its place in OpenBao, as a worker would."""
    person = person or gate.new_person()
    openbao = OpenBao(gate.servers.openbao("worker"))
    await asyncio.to_thread(openbao.ensure_secret_space, person.workspace)
    openbao.close()
    return Keeper(gate, person)


def ok(answer: httpx.Response, status: int = 200) -> JSON:
    """Return the body of an answer that has to have this status."""
    assert answer.status_code == status, answer.text
    body: JSON = answer.json()
    return body


def error_of(answer: httpx.Response, status: int, reason: str | None = None) -> JSON:
    """Return the first error of an answer that has to have this status and reason."""
    assert answer.status_code == status, answer.text
    error: JSON = answer.json()["errors"][0]
    assert reason in {None, error["metadata"]["reason"]}, error
    return error
