"""Hetzner Cloud's API on loopback, and the Pulumi provider program that speaks to it."""
