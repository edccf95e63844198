"""Rotators: how the credential of one kind of target is replaced. One module a target.

`rotator.py` says what a rotation asks; `registry.py` knows all of them. `outbound.py` decides
which addresses may be reached for a workspace, and every rotator that goes where a workspace says
asks it first.
"""
