from domain.errors import Reason
from domain.secret import SecretValue
from infra.rotators.webhook_signing_key import KEY_BYTES, WebhookSigningKey, key_of
from tests.infra.rotators.rotations import fails, new_rotation


async def test_each_rotation_makes_another_key_that_signs() -> None:
    rotator, rotation = WebhookSigningKey(), new_rotation({})
    current = SecretValue.of_text("whatever a person put there")
    first, second = [await rotator.create(rotation, current) for _ in range(2)]
    assert len({first.data, second.data, current.data}) == 3
    for pending in (first, second):
        await rotator.set(rotation, pending, current)
        await rotator.test(rotation, pending)
        await rotator.unset(rotation, pending, current)
        assert len(key_of(pending)) == KEY_BYTES
    await rotator.retire(rotation, current, second)


async def test_a_value_that_is_no_key_is_rejected_without_being_told() -> None:
    for text in ("whsec_", "whsec_c2hvcnQ=", "whsec_not base64", "x" * 50):
        with fails(Reason.CREDENTIAL_REJECTED, text.removeprefix("whsec_") or "?"):
            await WebhookSigningKey().test(new_rotation({}), SecretValue.of_text(text))
