"""What docker-compose.yml needs beside stock images: its secrets, its database, its first owner.

Two one-shot services run `python -m infra.compose`: `secrets` before everything, `platform` once
PostgreSQL and OpenBao answer. Both may be repeated; every start of the whole repeats them. Each
process finds in its own volume the few secrets that it needs, as files that only it can read.
"""
