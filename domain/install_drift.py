"""Drift: live objects of an install that are not as they were rendered."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

# What a render that corrects drift says about itself.
CORRECTION_MESSAGE: Final = "drift"

# How old the newest look gets before another one is due.
LOOKED_FOR_EVERY: Final = timedelta(minutes=10)

# Whoever changes an object again and again, such as another controller, wins by patience: a
# correction is a deployment, and must not become a fight.
CORRECTED_AT_MOST_EVERY: Final = timedelta(minutes=30)

# How long a finding is kept once it is over.
KEPT_FOR: Final = timedelta(days=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallDriftRequest:
    """Which install is compared, and on which control-plane host its cluster is."""

    workspace_id: str
    install_id: str
    host: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectDrift:
    """How one live object differs from what was rendered.

    Attributes:
        key: of the object.
        delta: each `{path, before, after}`: as it is, and as it was rendered. A path that is empty
            stands for the object as a whole. Nothing of a Secret's data is in it.
    """

    key: str
    delta: tuple[dict[str, object], ...]
