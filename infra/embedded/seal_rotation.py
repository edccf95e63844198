"""Gives the secret store another seal key, in steps of which each may be the last.

With both keys at hand, a new root key is wrapped with the new one. The next snapshot then names the
new key alone, and the store has to open with it alone, before the old one is removed. The files of
the keys say how far it came: see `infra.openbao.seal`. No recovery key is needed or made.
"""

from dataclasses import dataclass

from domain.errors import BulkheadError, Reason
from infra.embedded.openbao import OpenBao
from infra.embedded.server import Part, PartFailedError, start
from infra.embedded.stack import Report, Stack, report_nothing
from infra.openbao.seal import Stage, ids_in_snapshot

# It opens its store within a second, or not at all.
_OPEN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RotatedSealKey:
    """What a rotation did: the id of the key that was removed, and of the one that remains."""

    previous_id: str
    current_id: str


def rotate_seal_key(stack: Stack, report: Report = report_nothing) -> RotatedSealKey:
    """Replace the seal key, or finish a replacement that was interrupted.

    The secret store restarts twice and is away for about a second each time.

    Raises:
        BulkheadError: FAILED_PRECONDITION when the stack does not run, INTERNAL when the store
            does not take the new key; it then goes on with both, and this may be repeated.
    """
    openbao = OpenBao(stack.home, stack.ports)
    keys = openbao.seal_keys
    with stack.home.locked():
        stack.home.refuse_unfinished_restore()
        if not stack.supervisor.pid:
            raise BulkheadError(
                Reason.FAILED_PRECONDITION,
                "The stack does not run; `make up` starts it, and the rotation goes on after that.",
            )
        if keys.stage is not Stage.PROOF:
            keys.begin()
            with report("restart, both keys"):
                _restart(stack, openbao)
            with report("wrapping anew"):
                _wrap_anew(stack, keys.newest_id())
            keys.prove()
        rotated = RotatedSealKey(previous_id=keys.previous_id(), current_id=keys.newest_id())
        with report("restart, new key alone"):
            try:
                _restart(stack, openbao)
            except PartFailedError:
                keys.retreat()
                _restart(stack, openbao)
                raise _not_taken() from None
        keys.finish()
        return rotated


def _restart(stack: Stack, openbao: OpenBao) -> None:
    openbao.prepare(running=True)
    stack.supervisor.restart(Part.OPENBAO, Part.OPENBAO)
    start(stack.supervisor, openbao, stack.ports, _OPEN_SECONDS)


def _wrap_anew(stack: Stack, key_id: str) -> None:
    with stack.home.emptied_scratch() as scratch, stack.operator() as operator:
        operator.rotate_root_key()
        snapshot = scratch / "snapshot"
        snapshot.touch(mode=0o600)
        operator.save_snapshot(snapshot)
        if ids_in_snapshot(snapshot) != {key_id}:
            raise _not_taken()


def _not_taken() -> BulkheadError:
    return BulkheadError(
        Reason.INTERNAL,
        "OpenBao does not take the new seal key. It goes on with both keys, and nothing is lost; "
        "its log says why. Repeat `make rotate-seal-key`.",
    )
