"""The programs of a control plane and their flags."""

import ipaddress
from typing import Final

from domain.cluster import POD_NETWORK, SERVICE_NETWORK, Component, Leaf, can_be_endpoint
from domain.machine import (
    NODE_CERTIFICATE_SECONDS,
    NODE_TOKENS_NAMESPACE,
    TUNNEL_AUDIENCE,
    TUNNEL_SERVICE_ACCOUNT,
)
from infra.control_planes.layout import LOOPBACK, Layout
from infra.openbao.authorities import Authority
from infra.supervisor.program import Program

# The common name of the certificate with which the API server shows itself to extensions.
FRONT_PROXY_NAME: Final = "front-proxy-client"

# The file of the API server's audit log is cut at this size; three older ones are kept.
_AUDIT_MEGABYTES: Final = 20
_AUDIT_FILES: Final = 3

# Without it a stopping API server waits for its watchers, and hangs for a minute.
_WATCH_GRACE: Final = "2s"

# The controller manager makes a client for each controller; at the default of 20 requests a
# second that alone takes five seconds of a cluster's start.
_CONTROLLER_QPS: Final = 300
_CONTROLLER_BURST: Final = 600

# When a node is unreachable. Its kubelet renews its lease every 10 s, but finds out only after 45 s
# (30 s of silence, 15 s for a ping) that a firewall dropped its connection without a word: with
# less, a connection that is about to heal would evict the node's pods.
_NODE_GRACE: Final = "50s"

# Agents of all nodes come back at once when the tunnel server was restarted, and each costs one
# TokenReview; at the default of 5 a second the last of 200 would wait for 40 s.
_TUNNEL_QPS: Final = 100
_TUNNEL_BURST: Final = 200

# An agent whose network is gone is forgotten 20 s after this; until then requests to its node hang.
# Agents must not ping more often than every 30 s themselves, or they are cut off.
_TUNNEL_KEEPALIVE: Final = "30s"
_TUNNEL_DIAL_TIMEOUT: Final = "10s"


def programs_of(layout: Layout) -> list[Program]:
    """Return the processes of a control plane."""
    arguments = {
        Component.ETCD: _etcd(layout),
        Component.API_SERVER: _api_server(layout),
        Component.TUNNEL_SERVER: _tunnel_server(layout),
        Component.CONTROLLER_MANAGER: _controller_manager(layout),
        Component.SCHEDULER: _scheduler(layout),
    }
    return [
        Program(
            name=component,
            command=[str(layout.programs / component), *arguments[component]],
            directory=layout.directory,
            uid=layout.uid,
            # It keeps nothing, and would wait for every `kubectl logs -f` that goes through it.
            stop_signal="KILL" if component is Component.TUNNEL_SERVER else "TERM",
            # A stop goes the other way: whoever asks the API server first, etcd last.
            priority=100 + position,
        )
        for position, component in enumerate(Component)
    ]


def _etcd(layout: Layout) -> list[str]:
    client_url = f"https://{LOOPBACK}:{layout.etcd_port}"
    peer_url = f"https://{LOOPBACK}:{layout.etcd_peer_port}"
    authority = layout.authority(Authority.ETCD)
    return [
        f"--data-dir={layout.etcd_data}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        f"--cert-file={layout.certificate(Leaf.ETCD_SERVER)}",
        f"--key-file={layout.key(Leaf.ETCD_SERVER)}",
        f"--trusted-ca-file={authority}",
        "--client-cert-auth",
        f"--peer-cert-file={layout.certificate(Leaf.ETCD_PEER)}",
        f"--peer-key-file={layout.key(Leaf.ETCD_PEER)}",
        f"--peer-trusted-ca-file={authority}",
        "--peer-client-cert-auth",
        "--tls-min-version=TLS1.2",
        # Nobody speaks JSON to it, and its own client would need a second certificate.
        "--enable-grpc-gateway=false",
        "--log-level=warn",
    ]


def _api_server(layout: Layout) -> list[str]:
    return [
        f"--etcd-servers=https://{LOOPBACK}:{layout.etcd_port}",
        f"--etcd-cafile={layout.authority(Authority.ETCD)}",
        f"--etcd-certfile={layout.certificate(Leaf.ETCD_CLIENT)}",
        f"--etcd-keyfile={layout.key(Leaf.ETCD_CLIENT)}",
        f"--encryption-provider-config={layout.encryption_configuration}",
        f"--secure-port={layout.api_port}",
        f"--bind-address={layout.bind_address}",
        *_advertisement(layout),
        f"--client-ca-file={layout.client_authorities}",
        f"--tls-cert-file={layout.certificate(Leaf.API_SERVER)}",
        f"--tls-private-key-file={layout.key(Leaf.API_SERVER)}",
        "--tls-min-version=VersionTLS12",
        f"--kubelet-client-certificate={layout.certificate(Leaf.KUBELET_CLIENT)}",
        f"--kubelet-client-key={layout.key(Leaf.KUBELET_CLIENT)}",
        "--kubelet-preferred-address-types=InternalIP",
        # Whatever answers at a node's address must have a certificate that says so.
        f"--kubelet-certificate-authority={layout.client_authorities}",
        f"--egress-selector-config-file={layout.egress_configuration}",
        f"--service-account-issuer={layout.issuer}",
        f"--service-account-key-file={layout.service_account_public_key}",
        f"--service-account-signing-key-file={layout.service_account_key}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # Pod networks and storage drivers of the nodes need it.
        "--allow-privileged=true",
        f"--requestheader-client-ca-file={layout.authority(Authority.FRONT_PROXY)}",
        f"--requestheader-allowed-names={FRONT_PROXY_NAME}",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={layout.certificate(Leaf.FRONT_PROXY_CLIENT)}",
        f"--proxy-client-key-file={layout.key(Leaf.FRONT_PROXY_CLIENT)}",
        f"--audit-policy-file={layout.audit_policy}",
        f"--audit-log-path={layout.audit / 'audit.log'}",
        f"--audit-log-maxsize={_AUDIT_MEGABYTES}",
        f"--audit-log-maxbackup={_AUDIT_FILES}",
        f"--shutdown-watch-termination-grace-period={_WATCH_GRACE}",
        "--profiling=false",
    ]


def _advertisement(layout: Layout) -> list[str]:
    """Return what the `kubernetes` Service in the cluster points to."""
    host = layout.advertise_host
    if not can_be_endpoint(host):
        return [f"--advertise-address={LOOPBACK}", "--endpoint-reconciler-type=none"]
    return [f"--advertise-address={ipaddress.ip_address(host)}"]


def _tunnel_server(layout: Layout) -> list[str]:
    return [
        f"--uds-name={layout.tunnel_socket}",
        f"--server-id={layout.name}",
        f"--agent-address={_host_port(layout.bind_address, layout.tunnel_port)}",
        f"--status-address={LOOPBACK}:{layout.tunnel_status_port}",
        f"--cluster-cert={layout.certificate(Leaf.TUNNEL_SERVER)}",
        f"--cluster-key={layout.key(Leaf.TUNNEL_SERVER)}",
        # An agent shows a token that is bound to its Node object. It is asked for it when it
        # connects and never again: who revokes one has to restart this server.
        f"--agent-namespace={NODE_TOKENS_NAMESPACE}",
        f"--agent-service-account={TUNNEL_SERVICE_ACCOUNT}",
        f"--authentication-audience={TUNNEL_AUDIENCE}",
        f"--kubeconfig={layout.kubeconfig(Leaf.TUNNEL_CLIENT)}",
        f"--kubeconfig-qps={_TUNNEL_QPS}",
        f"--kubeconfig-burst={_TUNNEL_BURST}",
        # A node is reached through its own agent. What is no node (a webhook's Service) is reached
        # through any.
        "--proxy-strategies=destHost,default",
        f"--keepalive-time={_TUNNEL_KEEPALIVE}",
        f"--backend-dial-timeout={_TUNNEL_DIAL_TIMEOUT}",
    ]


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _controller_manager(layout: Layout) -> list[str]:
    return [
        *_controller(layout, Leaf.CONTROLLER_MANAGER),
        f"--kube-api-qps={_CONTROLLER_QPS}",
        f"--kube-api-burst={_CONTROLLER_BURST}",
        f"--cluster-signing-cert-file={layout.signer_certificate}",
        f"--cluster-signing-key-file={layout.signer_key}",
        # What nodes get; the approver is the platform's, and this one signs what that approved.
        f"--cluster-signing-duration={NODE_CERTIFICATE_SECONDS}s",
        # Its own approver gives a certificate of any node to whoever administers the cluster.
        "--controllers=*,-certificatesigningrequest-approving-controller",
        f"--node-monitor-grace-period={_NODE_GRACE}",
        f"--root-ca-file={layout.authority(Authority.KUBERNETES)}",
        f"--service-account-private-key-file={layout.service_account_key}",
        "--use-service-account-credentials",
        "--allocate-node-cidrs",
        f"--cluster-cidr={POD_NETWORK}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
    ]


def _scheduler(layout: Layout) -> list[str]:
    return _controller(layout, Leaf.SCHEDULER)


def _controller(layout: Layout, leaf: Leaf) -> list[str]:
    return [
        f"--kubeconfig={layout.kubeconfig(leaf)}",
        # One replica: an election would only delay its start, by as long as the dead one's lease.
        "--leader-elect=false",
        # Nobody reads their metrics, and each would take a port.
        "--secure-port=0",
        "--profiling=false",
    ]
