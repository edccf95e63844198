"""One module a noun: its request and response shapes, then its routes."""
