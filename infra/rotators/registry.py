"""All rotators, by what they rotate."""

from collections.abc import Mapping
from typing import Any

from domain.identifiers import Prefix, is_id
from domain.secret import RotatorKind
from infra.clouds.rate_budget import RateBudgets
from infra.database.engine import Database
from infra.openbao.client import OpenBao
from infra.outbound import Outbound
from infra.rotators.aws_access_key import AwsAccessKey
from infra.rotators.gcp_service_account_key import GcpServiceAccountKey
from infra.rotators.hetzner_cloud_token import HetznerCloudToken
from infra.rotators.hosted_clusters import HostedClusters
from infra.rotators.https import Https
from infra.rotators.kubernetes_service_account import KubernetesServiceAccount
from infra.rotators.postgresql_login import PostgresqlLogin
from infra.rotators.rotator import Rotator, Values
from infra.rotators.webhook_signing_key import WebhookSigningKey
from infra.rotators.workspace_api_token import WorkspaceApiToken
from infra.settings import OutboundSettings, ProviderSettings


def rotators(
    database: Database,
    openbao: OpenBao,
    values: Values,
    outbound: OutboundSettings,
    providers: ProviderSettings,
    budgets: RateBudgets,
) -> dict[RotatorKind, Rotator]:
    """Return one rotator of each kind.

    Args:
        database: of the worker.
        openbao: of the worker; signs the certificate with which a hosted cluster is reached.
        values: reads the secrets that settings name.
        outbound: which addresses of the operator's own network may be reached.
        providers: where the clouds are whose credentials rotate.
        budgets: of calls of these clouds' accounts.
    """
    way_out = Outbound(outbound)
    return {
        RotatorKind.POSTGRESQL_LOGIN: PostgresqlLogin(way_out, values),
        RotatorKind.WORKSPACE_API_TOKEN: WorkspaceApiToken(database),
        RotatorKind.WEBHOOK_SIGNING_KEY: WebhookSigningKey(),
        RotatorKind.KUBERNETES_SERVICE_ACCOUNT: KubernetesServiceAccount(
            HostedClusters(database, openbao)
        ),
        RotatorKind.HTTPS: Https(way_out, values),
        RotatorKind.AWS_ACCESS_KEY: AwsAccessKey(providers, budgets),
        RotatorKind.GCP_SERVICE_ACCOUNT_KEY: GcpServiceAccountKey(providers, budgets),
        RotatorKind.HETZNER_CLOUD_TOKEN: HetznerCloudToken(providers, values, budgets),
    }


_CHECKS = {
    RotatorKind.POSTGRESQL_LOGIN: PostgresqlLogin.check_settings,
    RotatorKind.WORKSPACE_API_TOKEN: WorkspaceApiToken.check_settings,
    RotatorKind.WEBHOOK_SIGNING_KEY: WebhookSigningKey.check_settings,
    RotatorKind.KUBERNETES_SERVICE_ACCOUNT: KubernetesServiceAccount.check_settings,
    RotatorKind.HTTPS: Https.check_settings,
    RotatorKind.AWS_ACCESS_KEY: AwsAccessKey.check_settings,
    RotatorKind.GCP_SERVICE_ACCOUNT_KEY: GcpServiceAccountKey.check_settings,
    RotatorKind.HETZNER_CLOUD_TOKEN: HetznerCloudToken.check_settings,
}


def credentials_in(settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the other secrets that a rotator's settings name."""
    return frozenset(
        value
        for name, value in settings.items()
        if name.endswith("_secret_id") and isinstance(value, str) and is_id(Prefix.SECRET, value)
    )


def check_settings(
    kind: RotatorKind, secret_id: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a rotator's settings with their defaults; needs no connection to anything.

    Raises:
        BulkheadError: INVALID_ARGUMENT (400), as `Rotator.check_settings`.
    """
    return _CHECKS[kind](secret_id, settings)
