"""Keeps the files of one control plane: keys, certificates, kubeconfigs, configurations."""

import json
from pathlib import Path
from typing import Final

from domain.cluster import HostedControlPlane, Leaf, Validity
from infra.control_planes.certificates import (
    LEAF_LIFETIME_SECONDS,
    fits,
    leaf_specs,
    public_pem,
    times_of,
)
from infra.control_planes.files import make_directory, write_file
from infra.control_planes.layout import Layout
from infra.openbao.authorities import Authority
from infra.openbao.client import ClusterKeys, OpenBao
from infra.openbao.leaf import LeafSpec, make_leaf

# Who did what to which object, and never what was in it: a Secret's value must not get here.
_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # One line a request, when it is answered, instead of two.
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}

# The components that ask the API server with a kubeconfig.
_CLIENTS: Final = (Leaf.CONTROLLER_MANAGER, Leaf.SCHEDULER, Leaf.TUNNEL_CLIENT)


class Credentials:
    """The files of one control plane. Whoever writes them holds no lock: equal inputs, equal files.

    Args:
        openbao: signs leaves and keeps the cluster's keys.
        cluster: whose files they are.
        layout: where they are.
    """

    def __init__(self, openbao: OpenBao, cluster: HostedControlPlane, layout: Layout) -> None:
        self._openbao = openbao
        self._cluster = cluster
        self._layout = layout

    def ensure(self, *, force: bool = False) -> Validity:
        """Write what is missing or differs, and leaves that are due or do not fit.

        Args:
            force: replace every leaf.
        """
        self._make_directories()
        keys = self._openbao.keys_of(self._cluster)
        roots = {
            authority: self._openbao.certificate_of(self._cluster, authority)
            for authority in Authority
        }
        for authority, pem in roots.items():
            self._write(self._layout.authority(authority), pem)
        self._write_keys(keys, roots[Authority.KUBERNETES])
        self._write(self._layout.audit_policy, json.dumps(_AUDIT_POLICY))
        self._write(self._layout.egress_configuration, _egress_configuration(self._layout))
        for leaf in _CLIENTS:
            self._write(self._layout.kubeconfig(leaf), self._kubeconfig(leaf))
        specs = leaf_specs(self._layout.api_server_names, self._layout.tunnel_server_names)
        return _earliest(
            [self._ensure_leaf(leaf, spec, roots, force=force) for leaf, spec in specs.items()]
        )

    def _make_directories(self) -> None:
        layout = self._layout
        for path in (layout.directory, layout.pki):
            make_directory(path, uid=layout.uid)
        for path in (layout.etcd_data, layout.audit, layout.tunnel):
            make_directory(path, uid=layout.uid, writable=True)

    def _write_keys(self, keys: ClusterKeys, kubernetes_root: str) -> None:
        layout = self._layout
        self._write(layout.service_account_key, keys.service_account)
        self._write(layout.service_account_public_key, public_pem(keys.service_account))
        self._write(layout.signer_key, keys.signer_key)
        self._write(layout.signer_certificate, keys.signer_certificate)
        self._write(layout.client_authorities, kubernetes_root + keys.signer_certificate)
        self._write(layout.encryption_configuration, _encryption_configuration(keys.encryption))

    def _ensure_leaf(
        self, leaf: Leaf, spec: LeafSpec, roots: dict[Authority, str], *, force: bool
    ) -> bytes:
        """Return the certificate that is in place afterwards."""
        key_file, certificate_file = self._layout.key(leaf), self._layout.certificate(leaf)
        if not force and key_file.exists() and certificate_file.exists():
            certificate = certificate_file.read_bytes()
            root = roots[spec.authority].encode()
            if fits(key_file.read_bytes(), certificate, root, spec):
                return certificate
        key, certificate = make_leaf(
            lambda request, usages: self._openbao.sign(
                self._cluster,
                spec.authority,
                request,
                usages=usages,
                lifetime_seconds=LEAF_LIFETIME_SECONDS,
            ),
            spec,
        )
        # The key first: servers that reload look again when the certificate changes.
        self._write(key_file, key)
        self._write(certificate_file, certificate)
        return certificate

    def _kubeconfig(self, leaf: Leaf) -> str:
        layout = self._layout
        return _kubeconfig(
            server=layout.local_api_url,
            authority=layout.authority(Authority.KUBERNETES),
            certificate=layout.certificate(leaf),
            key=layout.key(leaf),
        )

    def _write(self, path: Path, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        write_file(path, data, uid=self._layout.uid)


def _earliest(certificates: list[bytes]) -> Validity:
    times = [times_of(certificate) for certificate in certificates]
    return Validity(
        renew_after=min(renew_after for renew_after, _ in times),
        expire_at=min(expire_at for _, expire_at in times),
    )


def _egress_configuration(layout: Layout) -> str:
    # Everything that is or stands for the customer's: kubelets, pods, webhooks, extensions. What a
    # customer names as an address of a webhook is so never reached from this host.
    transport = {"uds": {"udsName": str(layout.tunnel_socket)}}
    return json.dumps(
        {
            "apiVersion": "apiserver.k8s.io/v1beta1",
            "kind": "EgressSelectorConfiguration",
            "egressSelections": [
                {
                    "name": "cluster",
                    "connection": {"proxyProtocol": "GRPC", "transport": transport},
                }
            ],
        }
    )


def _encryption_configuration(key: str) -> str:
    # Without an `identity` provider: nothing was ever written in clear, so nothing is read so.
    provider = {"secretbox": {"keys": [{"name": "key1", "secret": key}]}}
    return json.dumps(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": [provider]}],
        }
    )


def _kubeconfig(*, server: str, authority: Path, certificate: Path, key: Path) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "cluster",
                    "cluster": {"server": server, "certificate-authority": str(authority)},
                }
            ],
            "users": [
                {
                    "name": "user",
                    "user": {"client-certificate": str(certificate), "client-key": str(key)},
                }
            ],
            "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
            "current-context": "context",
        }
    )
