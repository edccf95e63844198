"""Workflows of installs."""
