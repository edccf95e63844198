"""Workflows of a workspace as a whole."""
