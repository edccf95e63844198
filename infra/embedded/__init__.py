"""The whole system on one machine: `python -m infra.embedded up|down|status`.

`Stack` brings PostgreSQL, Temporal and OpenBao from their wheels, the worker and the API up under
one supervisord, and the control planes under another, all in one directory. What it leaves behind
when it ends is what it finds when it starts again.
"""
