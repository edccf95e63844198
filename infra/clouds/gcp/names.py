"""How what we make in a project is called and told to be ours."""

import re
from collections.abc import Mapping
from typing import Final

from domain.cloud import Tag
from domain.identifiers import opaque_part

# What every name of ours begins with: lists are narrowed by it.
NAME_PREFIX: Final = "bh-"

# An account's id has 30 characters at most: of a stack's id the first 108 of 128 bits remain.
_ACCOUNT_DIGITS: Final = 27


_UBUNTU: Final = re.compile(r"ubuntu-([0-9]{2})\.([0-9]{2})")


def image_path(image: str, architecture: str) -> str:
    """Return the path of an image: given as such, or `ubuntu-24.04`, as Canonical publishes it."""
    ubuntu = _UBUNTU.fullmatch(image)
    if ubuntu is None:
        return image
    return (
        f"projects/ubuntu-os-cloud/global/images/family/ubuntu-{ubuntu[1]}{ubuntu[2]}-lts-"
        f"{architecture}"
    )


def service_account_id(stack_id: str) -> str:
    """Return the id of a stack's service account: a pure function of the stack's."""
    return f"{NAME_PREFIX}{opaque_part(stack_id)[:_ACCOUNT_DIGITS]}"


def description_of(tags: Mapping[str, str]) -> str:
    """Return what stands in for labels where a kind has none: networks, service accounts, ...

    A service account's description has 256 bytes at most; four ids of ours take about 200.
    """
    return " ".join(f"{key}={tags[key]}" for key in Tag if key in tags)


def tags_in(description: str) -> dict[str, str]:
    """Return the tags that a description tells; empty: it is none of ours."""
    pairs = (word.partition("=") for word in description.split(" "))
    return {key: value for key, sign, value in pairs if sign and key in set(Tag)}
