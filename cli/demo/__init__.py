"""`python -m cli.demo`: from nothing to a working cluster, through the public API alone.

It brings the embedded stack up by running its command, as a person would, and then does what any
client can do. Every run finds what the run before left: it re-uses the workspace, the region and
the cluster, resumes a suspended one, and waits for what is still going on.
"""
