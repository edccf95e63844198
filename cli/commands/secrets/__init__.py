"""Secrets: values that are kept in versions, and what is done with them."""

# Importing a module adds its commands to the group.
from cli.commands.secrets import access, history, resources, usage, versions
from cli.commands.secrets.consumers import consumers_app
from cli.commands.secrets.group import app
from cli.commands.secrets.policy import policy_app
from cli.commands.secrets.purge import purge_app
from cli.commands.secrets.rotation import rotation_app

__all__ = [
    "access",
    "app",
    "consumers_app",
    "history",
    "policy_app",
    "purge_app",
    "resources",
    "rotation_app",
    "usage",
    "versions",
]
