"""Cloud providers, asked whether they accept a credential (`validation.py`)."""
