from datetime import UTC, datetime

from infra.providers.signing import AccessKey, signed_headers

# "post-x-www-form-urlencoded" of the test suite that AWS publishes for Signature Version 4.
KEY = AccessKey(key_id="AKIDEXAMPLE", secret="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
EXPECTED = (
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date, "
    "Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
)


def test_a_signature_is_the_one_that_aws_publishes_for_the_same_request() -> None:
    headers = signed_headers(
        KEY,
        host="example.amazonaws.com",
        region="us-east-1",
        service="service",
        form=b"Param1=value1",
        now=datetime(2015, 8, 30, 12, 36, tzinfo=UTC),
    )
    assert headers["authorization"] == EXPECTED
    assert KEY.secret not in f"{KEY} {headers}"
