"""Workflows of worker bootstraps."""
