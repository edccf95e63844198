"""Rotators: how the credential of one kind of target is replaced. One module a target."""
