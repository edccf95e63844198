"""A customer's project at Hetzner Cloud."""
