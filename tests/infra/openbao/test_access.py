"""Who may do what: each process only its part, and each workspace only its own."""

from collections.abc import Callable

import hvac
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from domain.cluster import ADMINISTRATORS_GROUP, HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.names import authority_mount_of, cluster_secret_path_of, secret_namespace_of
from infra.openbao.authorities import Authority
from infra.openbao.client import OpenBao
from infra.openbao.policies import API, WORKER
from infra.openbao.session import OpenBaoSession
from infra.openbao.signing import ApiOpenBao
from tests.servers import Servers

Call = Callable[[hvac.Client], object]


def test_a_kubeconfigs_certificate_says_what_the_role_says_whatever_is_asked_for(
    openbao: OpenBao, api: ApiOpenBao, cluster: HostedControlPlane
) -> None:
    _make(openbao, cluster)
    user = new_id(Prefix.USER)
    pem = api.sign_kubeconfig_certificate(
        cluster.workspace_id, cluster.cluster_id, _greedy_request(), user
    )
    leaf = x509.load_pem_x509_certificate(pem.encode())
    root = x509.load_pem_x509_certificate(
        api.authority_of(cluster.workspace_id, cluster.cluster_id).encode()
    )
    leaf.verify_directly_issued_by(root)
    subject = {attribute.oid: attribute.value for attribute in leaf.subject}
    assert subject == {
        NameOID.COMMON_NAME: user,
        NameOID.ORGANIZATION_NAME: ADMINISTRATORS_GROUP,
    }
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not [e for e in leaf.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert life.total_seconds() <= 24 * 3600 + 60


def test_a_kubeconfig_cannot_be_for_a_user_that_kubernetes_reserves(
    api: ApiOpenBao, cluster: HostedControlPlane
) -> None:
    with pytest.raises(BulkheadError) as refused:
        api.sign_kubeconfig_certificate(
            cluster.workspace_id, cluster.cluster_id, _greedy_request(), "system:kube-scheduler"
        )
    assert refused.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "name",
    ["system:kube-scheduler", "system:node:usr_1", "localhost", "*.usr_1", "x.usr_1", "usr_1@x"],
)
def test_the_role_signs_for_principals_alone_whoever_holds_the_api_processs_login(
    servers: Servers, openbao: OpenBao, cluster: HostedControlPlane, name: str
) -> None:
    _make(openbao, cluster)
    session = OpenBaoSession(servers.openbao("api"), API)
    namespace = secret_namespace_of(cluster.workspace_id)

    def sign(common_name: str) -> object:
        path = f"{authority_mount_of(cluster.cluster_id)}/sign/kubeconfig"
        asked = {
            "csr": _greedy_request(),
            "common_name": common_name,
            "exclude_cn_from_sans": True,
        }
        return session.call(
            "sign a kubeconfig certificate",
            lambda client: client.write_data(path, data=asked),
            namespace=namespace,
            login_namespace=namespace,
        )

    for principal in (Prefix.USER, Prefix.API_TOKEN):
        assert sign(new_id(principal))
    with pytest.raises(BulkheadError):
        sign(name)
    session.close()


def test_the_apis_own_certificate_stands_for_the_given_names_alone(api: ApiOpenBao) -> None:
    pem = api.sign_platform_certificate(_greedy_request(), ["localhost", "127.0.0.1"])
    leaf = x509.load_pem_x509_certificate(pem.encode())
    leaf.verify_directly_issued_by(
        x509.load_pem_x509_certificate(api.platform_authority().encode())
    )
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == {"localhost", "127.0.0.1"}
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_api_process_can_do_nothing_else(
    servers: Servers, openbao: OpenBao, cluster: HostedControlPlane
) -> None:
    _make(openbao, cluster)
    namespace = secret_namespace_of(cluster.workspace_id)
    mount = authority_mount_of(cluster.cluster_id)
    key = cluster_secret_path_of(cluster.cluster_id, "encryption")
    session = OpenBaoSession(servers.openbao("api"), API)
    refused: list[tuple[str | None, Call]] = [
        (namespace, lambda client: client.read(f"kv/data/{key}")),
        (namespace, lambda client: client.list("sys/mounts")),
        (namespace, lambda client: client.write_data("sys/policies/acl/api", data={"policy": ""})),
        (namespace, lambda client: client.delete(f"sys/mounts/{mount}")),
        (namespace, lambda client: client.write_data(f"{mount}/roles/kubeconfig", data={})),
        (
            namespace,
            lambda client: client.write_data(
                f"{mount}/issuer/kubernetes/sign-verbatim/leaf", data={"csr": _greedy_request()}
            ),
        ),
        (None, lambda client: client.list("sys/namespaces")),
        (None, lambda client: client.write_data("pki/platform/root/rotate/internal", data={})),
    ]
    for place, call in refused:
        with pytest.raises(BulkheadError) as error:
            session.call("what it may not", call, namespace=place, login_namespace=place)
        assert error.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        assert "denies" in error.value.message
    session.close()


def test_a_login_of_one_workspace_is_of_no_use_in_another(
    servers: Servers, openbao: OpenBao, cluster: HostedControlPlane
) -> None:
    _make(openbao, cluster)
    stranger = new_id(Prefix.WORKSPACE)
    openbao.ensure_secret_space(stranger)
    session = OpenBaoSession(servers.openbao("api"), API)
    path = f"{authority_mount_of(cluster.cluster_id)}/issuer/{Authority.KUBERNETES}/json"
    with pytest.raises(BulkheadError, match="denies"):
        session.call(
            "read elsewhere",
            lambda client: client.write_data(
                f"{authority_mount_of(cluster.cluster_id)}/sign/kubeconfig",
                data={"csr": _greedy_request(), "common_name": "x"},
            ),
            namespace=secret_namespace_of(cluster.workspace_id),
            login_namespace=secret_namespace_of(stranger),
        )
    assert path
    session.close()


def test_a_key_opens_only_its_own_process_s_login(servers: Servers) -> None:
    for key, principal in (("api", WORKER), ("worker", API)):
        session = OpenBaoSession(servers.openbao(key), principal)
        with pytest.raises(BulkheadError) as refused:
            session.call("anything", lambda client: client.list("sys/namespaces"))
        assert refused.value.reason is Reason.DEPENDENCY_UNAVAILABLE
        session.close()


def test_the_worker_administers_workspaces_and_nothing_above_them(servers: Servers) -> None:
    session = OpenBaoSession(servers.openbao("worker"), WORKER)
    calls: list[Call] = [
        lambda client: client.write_data("sys/mounts/evil", data={"type": "kv"}),
        lambda client: client.write_data("sys/policies/acl/worker", data={"policy": ""}),
        lambda client: client.write_data("auth/worker/role/evil", data={}),
        lambda client: client.write_data("auth/api/config", data={}),
        lambda client: client.write_data("pki/platform/sign/api-server", data={}),
        lambda client: client.delete("sys/mounts/pki/platform"),
    ]
    for call in calls:
        with pytest.raises(BulkheadError, match="denies"):
            session.call("what it may not", call)
    session.close()


def test_no_error_shows_what_was_asked(
    openbao: OpenBao, api: ApiOpenBao, cluster: HostedControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    _make(openbao, cluster)
    with pytest.raises(BulkheadError) as refused:
        api.sign_kubeconfig_certificate(
            cluster.workspace_id, cluster.cluster_id, "canary-request", "canary-name"
        )
    error = refused.value
    assert error.reason is Reason.INTERNAL
    shown = f"{error} {error!r} {error.message} {error.metadata} {caplog.text}"
    assert "canary" not in shown
    assert secret_namespace_of(cluster.workspace_id) not in shown


def _make(openbao: OpenBao, cluster: HostedControlPlane) -> None:
    openbao.ensure_secret_space(cluster.workspace_id)
    openbao.ensure_authorities(cluster)


def _greedy_request() -> str:
    """Ask for everything that must not be given."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
            x509.NameAttribute(NameOID.COMMON_NAME, "evil"),
        ]
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("evil.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()
