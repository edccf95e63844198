"""OpenBao: every secret value and every certificate authority's key.

`server.py` writes what an embedded server starts with; a server of the operator's own is set up
with the same policies and roles. `session.py` logs in and types the errors; `client.py` is what
the rest of the code asks. There is no standing administrator's token anywhere: each process signs
a JWT with its own key, once for each namespace and every few minutes.

Each workspace has a namespace. It holds the `kv` mount, one `pki/<cluster>` mount for each hosted
cluster, and the login of the API process, which may sign kubeconfig certificates there and read
authorities, and nothing else. The worker administers these namespaces from the root namespace,
where it can do nothing but create and remove them.
"""
