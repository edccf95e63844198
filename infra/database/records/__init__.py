"""Writes that belong together: each function is part of one transaction, and none commits."""
