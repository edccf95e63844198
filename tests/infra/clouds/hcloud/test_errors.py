"""What Hetzner says when it refuses, as the Pulumi program prints it."""

import pytest

from domain.errors import Reason
from infra.clouds.hcloud.errors import reason_of_message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "1 error occurred:\n\t* error during placement (resource_unavailable, 3a1b5c7d9e)\n",
            Reason.CAPACITY_UNAVAILABLE,
        ),
        ("error during placement (placement_error)", Reason.CAPACITY_UNAVAILABLE),
        ("server limit exceeded (resource_limit_exceeded, 77af)", Reason.QUOTA_EXCEEDED),
        ("limit of 3600 requests per hour (rate_limit_exceeded)", Reason.RATE_LIMITED),
        ("unable to authenticate (unauthorized, 0badc0de)", Reason.CREDENTIAL_REJECTED),
        ("the token is read-only (token_readonly)", Reason.CREDENTIAL_REJECTED),
        ("server name is already used (uniqueness_error)", Reason.CONFLICT),
        ("server is locked (locked, abcd)", Reason.CONFLICT),
        ("invalid input in field 'location' (invalid_input)", Reason.INVALID_ARGUMENT),
        ("network not found (not_found, ab)", Reason.NOT_FOUND),
        ("The pending action failed: no host (server_error, 17)", Reason.DEPENDENCY_UNAVAILABLE),
        (
            "hcloud: server responded with status code 503 (unavailable)",
            Reason.DEPENDENCY_UNAVAILABLE,
        ),
        ('Post "https://api.hetzner.cloud/v1/servers": EOF', Reason.DEPENDENCY_UNAVAILABLE),
        ("dial tcp 1.2.3.4:443: i/o timeout", Reason.DEPENDENCY_UNAVAILABLE),
        ("something new (some_new_code)", Reason.INTERNAL),
    ],
)
def test_a_message_tells_its_reason(text: str, reason: Reason) -> None:
    found, sentence = reason_of_message(text)
    assert found is reason
    assert sentence.endswith(".")
