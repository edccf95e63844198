"""What an install is on its cluster: identities, plans, applies, and how it is looked at."""
