"""Workflows of machines."""
