"""Secrets of a whole stack: what needs a worker and an API at the same time."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from tests.end_to_end.stack import Bulkhead


def test_the_first_secrets_of_a_workspace_are_made_at_the_same_time(bulkhead: Bulkhead) -> None:
    name = f"fresh-{uuid4().hex[:8]}"
    workspace = bulkhead.persist("POST", "/workspaces", json={"name": name, "slug": name})
    headers = {"akua-context": workspace["id"]}

    def create(number: int) -> int:
        body = {"name": f"s{number}", "kind": "generic", "value": "x"}
        answer = bulkhead.http.post("/secrets", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.status_code

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(create, range(20))) == {201}
