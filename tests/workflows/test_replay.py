"""Histories of workflows that may run somewhere replay against today's code."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from workflows.registry import WORKFLOWS, sandbox

HISTORIES = {
    path: path.read_text() for path in sorted((Path(__file__).parent / "histories").glob("*.json"))
}

# Far below Temporal's limits, and a replay of this many takes less than a tenth of a second.
MOST_EVENTS = 150


def test_there_are_histories_of_every_operation_and_of_purges() -> None:
    verbs = {path.stem.split("-", 1)[1].rsplit("-", 1)[0] for path in HISTORIES}
    assert verbs == {
        "create",
        "delete",
        "suspend",
        "resume",
        "renew-certificates",
        "rotate",
        "purge",
        "machine-bootstrap",
        "machine-delete",
        "machine-cordon",
        "machine-uncordon",
        "machine-repair",
        "machine-create",
        "machine-delete-cloud",
        "machine-suspend",
        "machine-resume",
        "machine-replace",
        "machine-pool-create",
        "revoke-worker-bootstrap",
        "install-create",
        "install-update",
        "install-restore",
        "install-delete",
        "install-sync-secrets",
        "package-create",
        "rollout-run",
        "rollout-plan-target",
        "rollout-move-target",
        "rollout-check-target",
        "rollout-roll-back-target",
    }


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_committed_history_replays(path: Path) -> None:
    recorded = HISTORIES[path]
    history = WorkflowHistory.from_json(path.stem, recorded)
    replayer = Replayer(workflows=WORKFLOWS, workflow_runner=sandbox())
    await replayer.replay_workflow(history)
    assert len(json.loads(recorded)["events"]) <= MOST_EVENTS
