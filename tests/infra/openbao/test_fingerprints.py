"""Requests with values are told apart by hashes that tell nobody the values."""

import hashlib

import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from infra.openbao.client import OpenBao
from infra.openbao.fingerprints import RequestFingerprints
from infra.openbao.session import OpenBaoSession

_REQUEST = b"POST /v1/secrets\n" + b'{"value":"v"}'


@pytest.fixture
def workspace_id(openbao: OpenBao) -> str:
    workspace_id = new_id(Prefix.WORKSPACE)
    openbao.ensure_secret_space(workspace_id)
    return workspace_id


def _learned(session: OpenBaoSession, workspace_id: str) -> RequestFingerprints:
    fingerprints = RequestFingerprints(session)
    fingerprints.learn(workspace_id)
    return fingerprints


def test_every_process_gives_a_request_the_same_fingerprint(
    session: OpenBaoSession, workspace_id: str
) -> None:
    one = _learned(session, workspace_id).of(workspace_id, _REQUEST)
    assert one is not None
    assert one == _learned(session, workspace_id).of(workspace_id, _REQUEST)
    assert one != _learned(session, workspace_id).of(workspace_id, _REQUEST + b" ")


def test_who_reads_a_fingerprint_cannot_try_values(
    openbao: OpenBao, session: OpenBaoSession, workspace_id: str
) -> None:
    found = _learned(session, workspace_id).of(workspace_id, _REQUEST)
    assert found != hashlib.sha256(_REQUEST).digest()
    other = new_id(Prefix.WORKSPACE)
    openbao.ensure_secret_space(other)
    assert found != _learned(session, other).of(other, _REQUEST)


def test_a_workspace_whose_key_was_not_learned_has_no_fingerprints(
    session: OpenBaoSession, workspace_id: str
) -> None:
    fingerprints = RequestFingerprints(session)
    assert fingerprints.of(workspace_id, _REQUEST) is None
    with pytest.raises(BulkheadError) as failure:
        fingerprints.learn(new_id(Prefix.WORKSPACE))
    assert failure.value.reason is Reason.FAILED_PRECONDITION
