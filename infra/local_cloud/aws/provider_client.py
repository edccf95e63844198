"""How the provider program speaks to the API: boto3, and errors as the real program says them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import Reason
from infra.clouds.aws.clients import Client, Clients
from infra.clouds.aws.errors import code_of, reason_of
from infra.clouds.aws.kinds import KINDS, Found, tags_of
from infra.local_cloud.provider_programs import Configuration, Properties, ProviderError
from infra.providers.signing import AccessKey
from infra.settings import ProviderSettings

# The real program waits 5 to 20 minutes for what is in use, and 2 for IAM to spread.
_BUSY_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.3

T = TypeVar("T")


class RefusedError(ProviderError):
    """AWS refused, with one of its codes."""

    def __init__(self, doing: str, service: str, error: ClientError) -> None:
        told = error.response.get("Error", {})
        answer = error.response.get("ResponseMetadata", {})
        self.code = code_of(error)
        super().__init__(
            f"{doing}: operation error {service}: {error.operation_name}, https response error "
            f"StatusCode: {answer.get('HTTPStatusCode')}, RequestID: {answer.get('RequestId')}, "
            f"api error {self.code}: {told.get('Message')}"
        )


class AwsClient:
    """One account in one region, as the resources see it."""

    def __init__(self, clients: Clients, region: str, account: str) -> None:
        self.ec2: Client = clients("ec2", region)
        self.iam: Client = clients("iam", region)
        self.ssm: Client = clients("ssm", region)
        self.region = region
        self.account = account

    def arn(self, resource: str, service: str = "ec2") -> str:
        """Return a resource's name among all of AWS."""
        region = "" if service == "iam" else self.region
        return f"arn:aws:{service}:{region}:{self.account}:{resource}"

    def find(self, kind: str, resource_id: str) -> Found | None:
        """Return what EC2 tells of one thing; None: it is gone."""
        with says(f"reading {kind} ({resource_id})", "EC2"):
            found = KINDS[kind].find(self.ec2, {KINDS[kind].by_id: [resource_id]})
        return found[0] if found else None

    def set_tags(self, resource_id: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Change the tags of a thing of EC2."""
        gone = [{"Key": key} for key in old.keys() - new.keys()]
        with says(f"updating tags ({resource_id})", "EC2"):
            if gone:
                self.ec2.delete_tags(Resources=[resource_id], Tags=gone)
            if new and old != new:
                self.ec2.create_tags(Resources=[resource_id], Tags=pairs(new))


def connect(configuration: Configuration) -> AwsClient:
    """Return the client of the account whose access key is configured."""
    key_id = configuration.get("accessKey", "AWS_ACCESS_KEY_ID")
    secret = configuration.get("secretKey", "AWS_SECRET_ACCESS_KEY")
    if not key_id or not secret:
        message = "No valid credential sources found."
        raise ProviderError(message)
    region = configuration.get("region", "AWS_REGION", "AWS_DEFAULT_REGION")
    if not region:
        message = "Missing region configuration: set aws:region or AWS_REGION."
        raise ProviderError(message)
    # All services of the local AWS are at one address.
    endpoints = configuration.get("endpoints") or [{}]
    endpoint = endpoints[0].get("ec2") or configuration.get("endpoint", "AWS_ENDPOINT_URL")
    settings = ProviderSettings(aws_endpoint_url=endpoint, aws_sts_region=region)
    clients = Clients(AccessKey(key_id=key_id, secret=secret), settings)
    doing = "validating provider credentials: retrieving caller identity from STS"
    with says(doing, "STS"):
        identity = clients("sts").get_caller_identity()
    return AwsClient(clients, region, identity["Account"])


@contextmanager
def says(doing: str, service: str) -> Iterator[None]:
    """Turn what boto3 raises into what the real program prints."""
    try:
        yield
    except ClientError as error:
        raise RefusedError(doing, service, error) from None
    except BotoCoreError as error:
        message = f"{doing}: request send failed: {error}"
        raise ProviderError(message) from None


def patiently(call: Callable[[], T], codes: frozenset[str], containing: str = "") -> T:
    """Return what a call gives, tried again for a while when it is refused with such a code."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return call()
        except ClientError as error:
            told = str(error.response.get("Error", {}).get("Message", ""))
            if code_of(error) not in codes or containing not in told:
                raise
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def remove(call: Callable[[], object]) -> None:
    """Remove something that may be gone, and wait while something else uses it."""
    try:
        patiently(call, frozenset({"DependencyViolation", "DeleteConflict"}))
    except ClientError as error:
        if reason_of(code_of(error)) is not Reason.NOT_FOUND:
            raise


def pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as AWS takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def specification(kind: str, inputs: Properties) -> dict[str, object]:
    """Return the argument that tags what a call makes; nothing without tags."""
    tags = inputs.get("tags")
    if not tags:
        return {}
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": pairs(tags)}]}


def told_tags(item: Found) -> Properties:
    """Return the outputs for a thing's tags."""
    tags = tags_of(item)
    return {"tags": tags, "tagsAll": tags}
