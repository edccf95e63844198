"""Installs: copies of packages on clusters."""

# Importing a module adds its commands to the group.
from cli.commands.installs import changes, logs, renders, resources, upkeep
from cli.commands.installs.group import app

__all__ = ["app", "changes", "logs", "renders", "resources", "upkeep"]
