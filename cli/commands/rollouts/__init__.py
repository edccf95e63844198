"""Rollouts: one version of a product on many installs, in waves."""

# Importing a module adds its commands to the group.
from cli.commands.rollouts import create, resources, verbs
from cli.commands.rollouts.group import app

__all__ = ["app", "create", "resources", "verbs"]
