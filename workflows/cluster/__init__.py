"""The life of a hosted cluster."""
