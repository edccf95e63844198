"""The policy that the manual tells customers to attach: what the tests' users may do as well."""

import json
import re
from pathlib import Path
from typing import Any

_MANUAL = Path(__file__).parents[2] / "docs" / "clouds.md"


def documented_policy() -> dict[str, Any]:
    """Return the policy in the manual, the one JSON text with statements."""
    found = re.findall(r"```json\n(\{.*?\n\})\n```", _MANUAL.read_text(), re.DOTALL)
    policies = [json.loads(text) for text in found if '"Statement"' in text]
    assert len(policies) == 1
    policy: dict[str, Any] = policies[0]
    return policy
