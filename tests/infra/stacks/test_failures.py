"""What of a run that failed is told, and what is not."""

from domain.cloud import Provider
from domain.errors import Reason
from domain.stack import NetworkShape, StackAction, StackKind, StackProgram
from domain.tokens import TokenKind, new_token
from infra.stacks.failures import failure_of
from infra.stacks.request import StackRequest, StackSecrets

REQUEST = StackRequest(
    action=StackAction.UP,
    program=StackProgram(
        workspace_id="ws_1",
        stack_id="stk_1",
        kind=StackKind.NETWORK,
        provider=Provider.HCLOUD,
        shape=NetworkShape(place="fsn1", region="eu-central", cidr="10.100.0.0/20"),
        tags={},
    ),
    operation_id="op_1",
    fence=1,
)


def told(secrets: StackSecrets, failure: str, *errors: str) -> str:
    """Return all that a failure says."""
    document = {
        "failure": failure,
        "errors": [("server", text) for text in errors],
        "cancelled": False,
    }
    error = failure_of(REQUEST, document, secrets)
    return f"{error.message} {error.metadata}"


def test_a_part_of_the_user_data_that_a_provider_quotes_shows_no_token() -> None:
    token = new_token(TokenKind.WORKER_BOOTSTRAP)
    secrets = StackSecrets(
        passphrase="p" * 40, credential={}, user_data=f"#cloud-config\n{token}\n" + "x" * 20_000
    )
    said = told(secrets, "", f"user data too long: '#cloud-config\n{token}\nxxxx...'")
    assert token not in said
    assert "too long" in said


def test_what_a_person_must_change_is_told_in_the_provider_s_own_words() -> None:
    credential = "0123456789abcdef" * 4
    secrets = StackSecrets(passphrase="p" * 40, credential={"HCLOUD_TOKEN": credential})
    refusal = f"1 error occurred:\n\t* server deletion is protected (protected, 5f1c), {credential}"
    document = {"failure": "", "errors": [("server", refusal)], "cancelled": False}
    error = failure_of(REQUEST, document, secrets)
    assert error.reason is Reason.CONFLICT
    assert error.message.endswith(
        " Hetzner says: 1 error occurred: * server deletion is protected (protected, 5f1c),"
        " [secret]"
    )


def test_a_credential_that_stands_where_a_long_message_is_cut_is_not_told_in_part() -> None:
    credential = "0123456789abcdef" * 8
    secrets = StackSecrets(passphrase="p" * 40, credential={"HCLOUD_TOKEN": credential})
    for rest in range(1936, 2000, 8):
        said = told(secrets, f"{'x' * 9000}{credential}{'y' * rest}")
        assert credential[-16:] not in said
