"""Machines: the servers of clusters, of one's own and in clouds."""

# Importing a module adds its commands to the group.
from cli.commands.machines import create, inventories, power, resources
from cli.commands.machines.group import app

__all__ = ["app", "create", "inventories", "power", "resources"]
