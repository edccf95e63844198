"""What workflows rely on: names, one argument, and no driver behind an import."""

import subprocess
import sys

import pytest
from temporalio import activity

from activities.control_planes import ControlPlaneActivities
from activities.openbao import OpenBaoActivities
from domain.cluster import HostedControlPlane


@pytest.mark.parametrize("holder", [ControlPlaneActivities, OpenBaoActivities])
def test_each_activity_is_named_like_its_method_and_takes_a_control_plane_or_an_id(
    holder: type,
) -> None:
    methods = [name for name in vars(holder) if not name.startswith("_")]
    assert methods
    for name in methods:
        definition = activity._Definition.must_from_callable(getattr(holder, name))  # noqa: SLF001 - the SDK shows a definition nowhere else
        assert definition.name == name
        assert definition.arg_types in ([HostedControlPlane], [str])
        assert definition.no_thread_cancel_exception
        assert not definition.is_async


def test_importing_the_signatures_loads_no_driver() -> None:
    look = (
        "import sys, activities.control_planes, activities.openbao, "
        "activities.secret_rotation; "
        "drivers = ('hvac', 'requests', 'httpx', 'psycopg', 'supervisor'); "
        "print([m for m in drivers if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", look], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"
