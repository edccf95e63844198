"""The connections that one API process holds."""

from dataclasses import dataclass

from infra.database.engine import Database
from infra.database.operation_changes import OperationChanges
from infra.kubernetes.node_tokens import NodeTokenIssuer
from infra.openbao.signing import ApiOpenBao
from infra.providers.validation import ProviderValidation
from infra.secret_store.serving import ServingGate
from infra.temporal.client import TemporalConnection


@dataclass(frozen=True, kw_only=True, slots=True)
class Clients:
    """One of each, made where the process is composed."""

    database: Database
    changes: OperationChanges
    temporal: TemporalConnection
    openbao: ApiOpenBao
    node_tokens: NodeTokenIssuer
    providers: ProviderValidation
    serving: ServingGate
