"""What must happen, in which order, and how it is undone.

Rules of this package, which Temporal's sandbox loads anew for every run:
- `run` reads as the list of steps. A step with an effect names its undo beside it; the undo is
  registered before the step runs, so that a half-made effect is taken back too.
- No clock, no random number, no setting, no driver: everything that touches the world is an
  activity, and activity classes are imported for their signatures alone.
- Inputs hold ids and the caller. A value that is secret travels as a path in OpenBao.
- The rows of an operation are written by activities; a workflow keeps no state of its own that
  must outlive it.
"""
