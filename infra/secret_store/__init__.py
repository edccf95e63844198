"""What PostgreSQL and OpenBao do together for a secret, as workers need it."""
