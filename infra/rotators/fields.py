"""The settings of rotators, which come from a request: checked before anything uses them."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from cryptography import x509
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id


class RotatorSettings(BaseModel):
    """The settings of one rotator: unknown ones are refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


SettingsT = TypeVar("SettingsT", bound=RotatorSettings)


def _check_certificates(pem: str) -> str:
    try:
        x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        message = "this is no PEM certificate"
        raise ValueError(message) from None
    return pem


def _check_secret_id(text: str) -> str:
    if not is_id(Prefix.SECRET, text):
        message = "give the id of a secret, which begins with sec_, and not its name"
        raise ValueError(message)
    return text


SecretId = Annotated[str, AfterValidator(_check_secret_id)]

Certificates = Annotated[
    str, StringConstraints(max_length=64 * 1024), AfterValidator(_check_certificates)
]

# A name or an address; which address a name means is checked when it is used.
Host = Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]*)$")]


def read_settings(model: type[SettingsT], settings: Mapping[str, Any]) -> SettingsT:
    """Return the settings with their defaults.

    Raises:
        BulkheadError: INVALID_ARGUMENT (400), without what was given: people paste secrets.
    """
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        failures = error.errors(include_input=False, include_context=False, include_url=False)
    first = failures[0]
    missing = [str(one["loc"][0]) for one in failures if one["type"] == "missing"]
    if first["type"] == "missing":
        names = ", ".join(f"`{one}`" for one in missing)
        raise invalid_setting(name=missing[0], message=f"The rotator also needs: {names}.")
    name = str(first["loc"][0]) if first["loc"] else ""
    if name in model.model_fields:
        # Pydantic puts this before the sentences of our own checks.
        why = first["msg"].removeprefix("Value error, ")
        raise invalid_setting(name=name, message=f"The rotator's setting `{name}`: {why}.")
    known = ", ".join(model.model_fields) or "none"
    raise invalid_setting(
        name=None, message=f"The rotator has no such setting; it knows these: {known}."
    )


def refuse_own_credential(secret_id: str, used: str | None, name: str) -> None:
    """Raise INVALID_ARGUMENT (400) for a secret that would be rotated with itself."""
    if used == secret_id:
        raise invalid_setting(
            name=name,
            message=f"`{name}` is the secret itself: a credential cannot be used to rotate itself, "
            "for a failure would leave nothing to mend it with. Name another secret.",
        )


def invalid_setting(*, name: str | None, message: str) -> BulkheadError:
    """Return the failure for a setting that cannot work, or for one that does not exist."""
    path = ("body", "settings") if name is None else ("body", "settings", name)
    return BulkheadError(Reason.INVALID_ARGUMENT, message, path=path, status=400)
