"""What the host offers its control planes: a directory, programs, and user ids of their own."""

import logging
import os
from functools import cached_property

from domain.cluster import Component, HostedControlPlane
from domain.errors import BulkheadError, Reason
from infra.control_planes.layout import Layout, is_passable_for_others, layout_of
from infra.settings import ControlPlaneSettings

_logger = logging.getLogger(__name__)

# Others may pass through to their own cluster's directory, and not look around.
_PASSABLE = 0o711


class HostPlacement:
    """Where control planes go on this host, and as whom their processes run."""

    def __init__(self, settings: ControlPlaneSettings) -> None:
        self._settings = settings
        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            settings.directory.chmod(_PASSABLE)
        if self.warning:
            _logger.warning(self.warning)

    @property
    def own_uids(self) -> bool:
        """Whether each control plane gets a user id of its own."""
        return not self.warning

    @cached_property
    def warning(self) -> str:
        """What keeps control planes from having user ids of their own, empty when they do."""
        if os.geteuid() != 0:
            return (
                "Control planes share this user's id: only root can give each its own. Their "
                "files are separate, but a process that breaks out of one can read the others."
            )
        for directory in (self._settings.directory, self._settings.programs_dir):
            if not is_passable_for_others(directory):
                return (
                    f"Control planes run as root: no other user can reach {directory}. Move "
                    "BULKHEAD_HOME below directories that everybody may pass (chmod o+x), such "
                    "as /var/lib/bulkhead."
                )
        return ""

    def layout_of(self, cluster: HostedControlPlane) -> Layout:
        """Return where a cluster's control plane is."""
        return layout_of(self._settings, cluster, own_uid=self.own_uids)

    def check_programs(self) -> None:
        """Raise FAILED_PRECONDITION when a program is missing."""
        for component in Component:
            if not (self._settings.programs_dir / component).exists():
                raise BulkheadError(
                    Reason.FAILED_PRECONDITION,
                    f"The program {component} is missing on the control-plane host; `make up` "
                    "gets it, and docs/operations.md says how a host without it does.",
                )
