"""Processes that outlive us: one supervisord a directory, driven over its unix socket.

`Supervisor` keeps groups of `Program`s running. A kill of supervisord itself takes its children
with it (the kernel ends them) and a new one, brought up by the `keeper`, starts each again once.
"""
