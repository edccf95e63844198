"""What the platform knows of each provider: one folder each, one protocol for all."""
