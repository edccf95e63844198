"""Google Cloud on loopback: Compute Engine, service accounts, permissions and tokens."""
