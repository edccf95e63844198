"""What comes out of the roles for nodes, whatever the API process's request says."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError
from domain.identifiers import Prefix, new_id
from domain.machine import NODE_TOKEN_ISSUER_USER
from domain.names import (
    authority_mount_of,
    install_reader_of,
    node_name_of,
    secret_namespace_of,
)
from infra.openbao.authorities import (
    INSTALL_READER_ROLE,
    NODE_ROLE,
    NODE_TOKEN_ISSUER_ROLE,
)
from infra.openbao.client import OpenBao
from infra.openbao.signing import ApiOpenBao


def greedy_request() -> str:
    """Ask for everything that a certificate could say."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "system:kube-controller-manager"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
        ]
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("kubernetes")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def subject_of(certificate: x509.Certificate) -> list[str]:
    return [str(attribute.value) for attribute in certificate.subject]


@pytest.fixture
def ready(openbao: OpenBao, cluster: HostedControlPlane) -> HostedControlPlane:
    openbao.ensure_secret_space(cluster.workspace_id)
    openbao.ensure_authorities(cluster)
    return cluster


def test_a_node_gets_a_client_certificate_of_its_own_name_and_nothing_else(
    api: ApiOpenBao, ready: HostedControlPlane
) -> None:
    machine = new_id(Prefix.MACHINE)
    workspace, cluster = ready.workspace_id, ready.cluster_id
    leaf = x509.load_pem_x509_certificate(
        api.sign_node_certificate(workspace, cluster, greedy_request(), machine).encode()
    )
    assert subject_of(leaf) == ["system:nodes", f"system:node:{node_name_of(machine)}"]
    assert_client_only(leaf)
    assert leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=1)
    issuer = x509.load_pem_x509_certificate(
        api.sign_node_token_issuer(workspace, cluster, greedy_request()).encode()
    )
    assert subject_of(issuer) == [NODE_TOKEN_ISSUER_USER]
    assert_client_only(issuer)
    install = new_id(Prefix.INSTALL)
    reader = x509.load_pem_x509_certificate(
        api.sign_install_reader(workspace, cluster, greedy_request(), install).encode()
    )
    assert subject_of(reader) == [install_reader_of(install)]
    assert_client_only(reader)
    assert reader.not_valid_after_utc - datetime.now(UTC) <= timedelta(minutes=15)
    authority = x509.load_pem_x509_certificate(api.authority_of(workspace, cluster).encode())
    for certificate in (leaf, issuer, reader):
        certificate.verify_directly_issued_by(authority)


def assert_client_only(certificate: x509.Certificate) -> None:
    extensions = certificate.extensions
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.SubjectAlternativeName)
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            assert not extension.value.ca


@pytest.mark.parametrize(
    ("role", "common_name", "more"),
    [
        (NODE_ROLE, "system:kube-controller-manager", {}),
        (NODE_ROLE, "system:node:kubernetes", {}),
        (NODE_ROLE, "admin", {}),
        (NODE_ROLE, "", {}),
        (NODE_ROLE, f"system:node:mch-{'0' * 32}", {"alt_names": "kubernetes.default"}),
        (NODE_ROLE, f"system:node:mch-{'0' * 32}", {"ip_sans": "10.0.0.1"}),
        (NODE_TOKEN_ISSUER_ROLE, "bulkhead:somebody-else", {}),
        (NODE_TOKEN_ISSUER_ROLE, f"system:node:mch-{'0' * 32}", {}),
        (INSTALL_READER_ROLE, f"bulkhead:install:{'0' * 32}", {}),
        (INSTALL_READER_ROLE, "bulkhead:control-planes", {}),
        (INSTALL_READER_ROLE, f"bulkhead:install-reader:{'0' * 32}", {"alt_names": "kubernetes"}),
    ],
)
def test_the_api_process_cannot_name_anybody_else(
    api: ApiOpenBao,
    ready: HostedControlPlane,
    role: str,
    common_name: str,
    more: dict[str, str],
) -> None:
    namespace = secret_namespace_of(ready.workspace_id)
    path = f"{authority_mount_of(ready.cluster_id)}/sign/{role}"
    data = {"csr": greedy_request(), "common_name": common_name, **more}
    with pytest.raises(BulkheadError):
        api._session.call(  # noqa: SLF001 - as an attacker would who holds the login
            "sign",
            lambda client: client.write_data(path, data=data),
            namespace=namespace,
            login_namespace=namespace,
        )
