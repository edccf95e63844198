"""The API servers of hosted clusters: the client, and what the platform keeps in each cluster.

`client.py` asks one API server under a login whose key is in memory only; `objects.py` says what
the platform keeps there. Nothing here needs to be on the control-plane host.
"""
