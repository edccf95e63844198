"""Where control planes run. Belongs to the operator: no workspace can read it.

Our roles reach both tables only through the functions `register_host`,
`reserve_slot`, `claim_slot_memory`, `release_slot` and `api_endpoint_of`.
"""

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel


class ControlPlaneHostRow(SQLModel, table=True):
    """A machine of the operator on which hosted control planes run.

    `address` and `first_port` say where clients reach the API servers of its clusters.
    """

    __tablename__ = "control_plane_hosts"

    name: str = Field(primary_key=True)
    memory_bytes: int = Field(sa_type=BigInteger)
    slots: int
    address: str
    first_port: int
    enabled: bool = True


class ControlPlaneSlotRow(SQLModel, table=True):
    """A cluster's place on a host; ports and uid are functions of the slot.

    A suspended cluster keeps its slot and sets aside no memory.
    """

    __tablename__ = "control_plane_slots"

    host: str = Field(primary_key=True, foreign_key="control_plane_hosts.name")
    slot: int = Field(primary_key=True)
    workspace_id: str = Field(foreign_key="workspaces.id")
    cluster_id: str = Field(unique=True)
    memory_bytes: int = Field(sa_type=BigInteger)
