import json

import boto3
import requests

from domain.cloud import Place, Provider
from domain.secret import SecretValue
from infra.settings import ProviderSettings
from tests.clouds.aws_policy import documented_policy


class AwsCase:
    provider = Provider.AWS
    place = Place(name="eu-central-1a", region="eu-central-1")
    instance_type = "t3.small"
    image = "ubuntu-24.04"
    creates_server = "POST / RunInstances$"
    creates_network = "POST / CreateVpc$"
    # What the provider's program asks about a server that runs, before it says that it is made.
    finishes_server = "POST / DescribeInstanceAttribute$"

    def settings(self, url: str) -> ProviderSettings:
        return ProviderSettings(aws_endpoint_url=url)

    def credential(self, url: str) -> SecretValue:
        return new_key(url, policy=documented_policy())

    def weak_credential(self, url: str) -> SecretValue:
        looking = {"Effect": "Allow", "Action": ["ec2:Describe*", "iam:List*"], "Resource": "*"}
        return new_key(url, policy={"Version": "2012-10-17", "Statement": [looking]})

    def revoke(self, url: str, credential: SecretValue) -> None:
        key = json.loads(credential.data)
        account = {"account_id": key["account_id"], "user_name": "administrator"}
        administrator = json.loads(new_key(url, **account).data)
        client = boto3.client(
            "iam",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=administrator["access_key_id"],
            aws_secret_access_key=administrator["secret_access_key"],
        )
        client.delete_access_key(UserName=key["user_name"], AccessKeyId=key["access_key_id"])

    def secrets_of(self, credential: SecretValue) -> list[str]:
        return [json.loads(credential.data)["secret_access_key"]]


def new_key(url: str, **asked: object) -> SecretValue:
    """Make an account, or a user in one, and return an access key with what it belongs to."""
    answer = requests.post(f"{url}/_accounts", data=json.dumps(asked), timeout=30)
    answer.raise_for_status()
    return SecretValue(answer.content)


CASE = AwsCase()
