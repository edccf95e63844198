import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from domain.errors import BulkheadError, Reason
from infra.clouds.aws.errors import reason_of_message, typed_errors

CODES = [
    ("InsufficientInstanceCapacity", 500, Reason.CAPACITY_UNAVAILABLE),
    ("Unsupported", 400, Reason.CAPACITY_UNAVAILABLE),
    ("VcpuLimitExceeded", 400, Reason.QUOTA_EXCEEDED),
    ("VpcLimitExceeded", 400, Reason.QUOTA_EXCEEDED),
    ("LimitExceeded", 409, Reason.QUOTA_EXCEEDED),
    ("RequestLimitExceeded", 503, Reason.RATE_LIMITED),
    ("Throttling", 400, Reason.RATE_LIMITED),
    ("AuthFailure", 401, Reason.CREDENTIAL_REJECTED),
    ("InvalidClientTokenId", 403, Reason.CREDENTIAL_REJECTED),
    ("ExpiredToken", 403, Reason.CREDENTIAL_REJECTED),
    ("UnauthorizedOperation", 403, Reason.CREDENTIAL_REJECTED),
    ("DependencyViolation", 400, Reason.CONFLICT),
    ("EntityAlreadyExists", 409, Reason.CONFLICT),
    ("InvalidSnapshot.InUse", 400, Reason.CONFLICT),
    ("IdempotentParameterMismatch", 400, Reason.CONFLICT),
    ("InvalidInstanceID.NotFound", 400, Reason.NOT_FOUND),
    ("NoSuchEntity", 404, Reason.NOT_FOUND),
    ("InvalidParameterValue", 400, Reason.INVALID_ARGUMENT),
    ("MissingParameter", 400, Reason.INVALID_ARGUMENT),
    ("InternalError", 500, Reason.DEPENDENCY_UNAVAILABLE),
    ("SomethingNew", 502, Reason.DEPENDENCY_UNAVAILABLE),
    ("SomethingNew", 400, Reason.INTERNAL),
]


def _answered(code: str, status: int, message: str = "canary") -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        "RunInstances",
    )


@pytest.mark.parametrize(("code", "status", "reason"), CODES)
def test_what_aws_answers_has_a_reason_and_its_words_are_not_repeated(
    code: str, status: int, reason: Reason
) -> None:
    with pytest.raises(BulkheadError) as caught, typed_errors():
        raise _answered(code, status)
    error = caught.value
    assert error.reason is reason
    assert error.metadata["provider_code"] == code
    assert "canary" not in f"{error.message} {error.metadata}"


def test_what_a_key_may_not_do_is_told() -> None:
    refused = _answered(
        "UnauthorizedOperation",
        403,
        "You are not authorized to perform this operation. User: arn:aws:iam::1:user/x is not "
        "authorized to perform: ec2:RunInstances on resource: * because no policy allows it",
    )
    with pytest.raises(BulkheadError) as caught, typed_errors():
        raise refused
    assert caught.value.metadata["missing"] == "ec2:RunInstances"


def test_a_clock_that_differs_is_no_bad_key() -> None:
    late = _answered("SignatureDoesNotMatch", 403, "Signature expired: it is too old")
    with pytest.raises(BulkheadError) as caught, typed_errors():
        raise late
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


def test_no_answer_is_tried_again() -> None:
    with pytest.raises(BulkheadError) as caught, typed_errors():
        raise ConnectTimeoutError(endpoint_url="https://ec2.eu-central-1.amazonaws.com/")
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            (
                "creating EC2 Instance: operation error EC2: RunInstances, https response error "
                "StatusCode: 500, RequestID: 0a1b2c-3d, api error InsufficientInstanceCapacity: We "
                "currently do not have sufficient t3.small capacity: try another"
            ),
            Reason.CAPACITY_UNAVAILABLE,
        ),
        (
            (
                "creating IAM Role (bh-x): operation error IAM: CreateRole, https response error "
                "StatusCode: 409, RequestID: 0a1b2c-3d, EntityAlreadyExists: Role with name bh-x "
                "already exists."
            ),
            Reason.CONFLICT,
        ),
        (
            (
                "configuring Terraform AWS Provider: validating provider credentials: retrieving "
                "caller identity from STS: operation error STS: GetCallerIdentity, https response "
                "error StatusCode: 403, RequestID: 0a1b2c-3d, api error InvalidClientTokenId: The "
                "security token included in the request is invalid."
            ),
            Reason.CREDENTIAL_REJECTED,
        ),
        (
            (
                "creating EC2 VPC: operation error EC2: CreateVpc, exceeded maximum number of "
                "attempts, 25, https response error StatusCode: 0, RequestID: , request send "
                "failed, "
                'Post "https://ec2.eu-central-1.amazonaws.com/": dial tcp: connection refused'
            ),
            Reason.DEPENDENCY_UNAVAILABLE,
        ),
        ("No valid credential sources found", Reason.CREDENTIAL_REJECTED),
        ("something that nobody has seen", Reason.INTERNAL),
    ],
)
def test_what_the_pulumi_program_prints_has_a_reason(said: str, reason: Reason) -> None:
    found, sentence = reason_of_message(said)
    assert found is reason
    assert sentence
