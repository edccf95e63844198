"""Workflows of pools of machines."""
