"""Hosted control planes: what runs, where its files are, and what makes it ready.

`backend.py` says what a backend can do; `processes.py` does it with plain processes under a
supervisord of the control-plane host, which is apart from the stack's own, so that a control plane
outlives the worker. `python -m infra.control_planes.host` starts that supervisord.

One directory a cluster (`layout.py`) holds everything and goes with the cluster; ports and the
user id are functions of its slot. `credentials.py` keeps the files that processes need: leaves
whose keys are made here and signed in OpenBao, and the keys that OpenBao keeps. `commands.py` has
the flags, `readiness.py` looks with a client's eyes, `diagnosis.py` says why something does not
run, `first_start.py` mends the one start that hangs, and `remains.py` finds what is left of a
removed cluster.

Waits take a function that is called at least twice a second: it reports that we live, and raises
when the wait shall end.
"""
