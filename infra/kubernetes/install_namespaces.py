"""What keeps an install's namespace at the level of pod security that the platform gave it."""

from typing import Any, Final

from domain.cluster import ADMINISTRATORS_GROUP
from infra.kubernetes.logins import ADMINISTRATOR_USER
from infra.kubernetes.manifest import KeptObject, admission_policy

# On the namespace, and on what of cluster scope is an install's.
INSTALL_LABEL: Final = "bulkhead.io/install"

# How the names of all labels of pod security begin.
POD_SECURITY: Final = "pod-security.kubernetes.io/"

_NAME: Final = "bulkhead-install-namespaces"

_IS_GUARDED: Final = f"(name == '{INSTALL_LABEL}' || name.startsWith('{POD_SECURITY}'))"


def guarded_labels() -> list[KeptObject]:
    """Return what lets only administrators change an install's namespace's level.

    A Role with every right in a namespace has them on the Namespace object of that name too; such
    a role is the deployer's, and so any user's or pod's to whom a chart gives it.
    """
    policy: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["UPDATE"],
                    # A status is written together with labels.
                    "resources": ["namespaces", "namespaces/status", "namespaces/finalize"],
                }
            ]
        },
        "matchConditions": [
            {
                "name": "of-an-install",
                "expression": f"'{INSTALL_LABEL}' in oldObject.metadata.?labels.orValue({{}})",
            },
            {
                "name": "no-administrator",
                "expression": (
                    f"request.userInfo.username != '{ADMINISTRATOR_USER}' && "
                    f"!('{ADMINISTRATORS_GROUP}' in request.userInfo.?groups.orValue([]))"
                ),
            },
        ],
        "variables": [
            {"name": "before", "expression": "oldObject.metadata.?labels.orValue({})"},
            {"name": "after", "expression": "object.metadata.?labels.orValue({})"},
        ],
        "validations": [
            {
                "expression": (
                    f"variables.before.all(name, !{_IS_GUARDED} || "
                    "(name in variables.after && "
                    "variables.after[name] == variables.before[name])) && "
                    f"variables.after.all(name, !{_IS_GUARDED} || name in variables.before)"
                ),
                "message": (
                    "only the cluster's administrators change what an install's pods may ask of "
                    "their nodes"
                ),
            }
        ],
    }
    return admission_policy(_NAME, policy)
