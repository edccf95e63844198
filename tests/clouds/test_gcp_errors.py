from pathlib import Path

import pytest

from domain.cloud import Tag, resource_name
from domain.errors import Reason
from domain.identifiers import Prefix, new_id
from infra.clouds.gcp.errors import reason_of_message
from infra.clouds.gcp.names import description_of, service_account_id, tags_in
from infra.clouds.gcp.permissions import PERMISSIONS
from infra.local_cloud.gcp.discovery import load_api


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            (
                "Error waiting for instance to create: The zone "
                "'projects/p/zones/europe-west3-a' does not have enough resources available to "
                "fulfill the request.  Try a different zone, or try again later."
            ),
            Reason.CAPACITY_UNAVAILABLE,
        ),
        (
            (
                "Error creating instance: googleapi: Error 403: Quota 'CPUS' exceeded.  Limit: "
                "8.0 in region europe-west3., quotaExceeded"
            ),
            Reason.QUOTA_EXCEEDED,
        ),
        (
            "Error waiting for instance to create: Quota 'CPUS' exceeded.  Limit: 8.0 in region x.",
            Reason.QUOTA_EXCEEDED,
        ),
        (
            (
                "Error creating Network: googleapi: Error 409: The resource "
                "'projects/p/global/networks/bh-1' already exists, alreadyExists"
            ),
            Reason.CONFLICT,
        ),
        (
            (
                "Error waiting for Deleting Network: The network resource 'n' is already being "
                "used by 'projects/p/global/firewalls/f'"
            ),
            Reason.CONFLICT,
        ),
        (
            (
                "googleapi: Error 403: Quota exceeded for quota metric 'Queries' and limit "
                "'Queries per minute' of service 'compute.googleapis.com', rateLimitExceeded"
            ),
            Reason.RATE_LIMITED,
        ),
        (
            (
                "Error creating Firewall: googleapi: Error 403: Required "
                "'compute.firewalls.create' permission for 'projects/p/global/firewalls/f', "
                "forbidden"
            ),
            Reason.CREDENTIAL_REJECTED,
        ),
        (
            "googleapi: Error 401: Request had invalid authentication credentials., authError",
            Reason.CREDENTIAL_REJECTED,
        ),
        (
            'oauth2: "invalid_grant" "Invalid JWT Signature."',
            Reason.CREDENTIAL_REJECTED,
        ),
        (
            (
                "Error creating instance: googleapi: Error 400: Invalid value for field "
                "'resource.machineType': 'x'. The referenced machine type does not exist., "
                "invalid"
            ),
            Reason.INVALID_ARGUMENT,
        ),
        ("googleapi: Error 503: Service unavailable, backendError", Reason.DEPENDENCY_UNAVAILABLE),
        ('Post "https://compute.googleapis.com/x": EOF', Reason.DEPENDENCY_UNAVAILABLE),
        ("something else altogether", Reason.INTERNAL),
    ],
)
def test_what_the_provider_prints_has_a_reason(message: str, reason: Reason) -> None:
    found, sentence = reason_of_message(message)
    assert found is reason
    assert sentence


def test_names_and_descriptions_fit_googles_rules_and_tell_the_tags_again() -> None:
    stack = new_id(Prefix.STACK)
    tags = {
        Tag.WORKSPACE.value: new_id(Prefix.WORKSPACE),
        Tag.CLUSTER.value: new_id(Prefix.CLUSTER),
        Tag.STACK.value: stack,
        Tag.RESOURCE.value: "subnetwork",
    }
    description = description_of(tags)
    assert len(description.encode()) <= 256
    assert tags_in(description) == tags
    assert tags_in("Default network for the project, a=b") == {}
    assert 6 <= len(service_account_id(stack)) <= 30
    schema = load_api("compute", "v1").check("Network", {"name": resource_name(stack, "n")}, "it")
    assert schema


def test_the_manuals_role_has_exactly_the_permissions_that_are_checked() -> None:
    manual = (Path(__file__).parents[2] / "docs/clouds.md").read_text()
    role = manual.partition("includedPermissions:\n")[2].partition("```")[0]
    assert tuple(line.removeprefix("- ") for line in role.splitlines()) == PERMISSIONS
