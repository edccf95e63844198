"""Which programs there are, in which version, and where each is had.

To move a pin: change the version here, the module's `go.mod` and `go.sum` (`go get`, `go mod
tidy`), and the checksums of the release. A test fails while the three disagree.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from infra.tools.program import GoModule, Program, Release

_MODULES = Path(__file__).parent / "go"

_KUBERNETES_VERSION = "v1.36.3"
_ETCD_VERSION = "3.6.8"
_KONNECTIVITY_VERSION = "v0.36.0"
_KONNECTIVITY_MODULE = "sigs.k8s.io/apiserver-network-proxy"
_CONTAINERD_VERSION = "v2.3.4"
_RUNC_VERSION = "1.4.3"
_CNI_VERSION = "v1.9.1"
_FLANNEL_VERSION = "v0.28.10"
_COREDNS_VERSION = "1.15.0"
_REGISTRY_VERSION = "v3.1.2"
_CRANE_VERSION = "v0.22.1"
_KWOK_VERSION = "v0.8.0"
_HELM_VERSION = "v4.3.1"
PULUMI_VERSION = "v3.259.0"
# Ours: the one in its main.go.
_PAUSE_VERSION = "1.0.0"
_STATIC = " -linkmode external -extldflags -static"


def _module(
    name: str,
    version: str,
    *,
    typical_seconds: int,
    version_variable: str | None = None,
    linker: str = "",
    tags: str = "",
    static_libraries: tuple[str, ...] = (),
) -> GoModule:
    """Pin a module; `version_variable` is the Go variable that its programs print, if any."""
    set_version = f" -X {version_variable}={version}" if version_variable else ""
    return GoModule(
        name=name,
        directory=_MODULES / name,
        version=version,
        ldflags=f"-s -w{set_version}{linker}",
        typical_seconds=typical_seconds,
        tags=tags,
        static_libraries=static_libraries,
    )


# Without the three -X the programs call themselves v0.0.0-master and clients refuse the skew.
KUBERNETES = _module(
    "kubernetes",
    _KUBERNETES_VERSION,
    version_variable="k8s.io/component-base/version.gitVersion",
    linker=(
        " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
    ),
    typical_seconds=253,
)
ETCD = _module("etcd", _ETCD_VERSION, typical_seconds=50)
KONNECTIVITY = _module("konnectivity", _KONNECTIVITY_VERSION, typical_seconds=45)
CONTAINERD = _module(
    "containerd",
    _CONTAINERD_VERSION,
    version_variable="github.com/containerd/containerd/v2/version.Version",
    typical_seconds=46,
)
# runc starts a container in C, before Go's threads exist, so it cannot do without cgo. Linked
# statically it runs on any distribution, as the official release does; Debian's own package
# needs Debian's C library, and is 1.1.
RUNC = _module(
    "runc",
    _RUNC_VERSION,
    linker=_STATIC,
    tags="seccomp,netgo,osusergo,urfave_cli_no_docs",
    static_libraries=("libc", "libseccomp"),
    typical_seconds=50,
)
CNI = _module(
    "cni",
    _CNI_VERSION,
    version_variable="github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion",
    typical_seconds=39,
)
# One of its backends is in C; linked statically for the same reason as runc. Another needs the
# client library of one cloud for calls that no node of ours makes: `go/flannel/omitted` stands
# in for it.
FLANNEL = _module(
    "flannel",
    _FLANNEL_VERSION,
    version_variable="github.com/flannel-io/flannel/pkg/version.Version",
    linker=_STATIC,
    tags="netgo,osusergo",
    static_libraries=("libc",),
    typical_seconds=52,
)
COREDNS = _module("coredns", _COREDNS_VERSION, typical_seconds=97)
REGISTRY = _module(
    "registry",
    _REGISTRY_VERSION,
    version_variable="github.com/distribution/distribution/v3/version.version",
    typical_seconds=61,
)
CRANE = _module(
    "crane",
    _CRANE_VERSION,
    version_variable="github.com/google/go-containerregistry/cmd/crane/cmd.Version",
    typical_seconds=11,
)
HELM = _module(
    "helm",
    _HELM_VERSION,
    version_variable="helm.sh/helm/v4/internal/version.version",
    typical_seconds=105,
)

KWOK = _module("kwok", _KWOK_VERSION, typical_seconds=86)
# Without the -X the program prints no version, and the SDK refuses it.
PULUMI = _module(
    "pulumi",
    PULUMI_VERSION,
    version_variable="github.com/pulumi/pulumi/sdk/v3/go/common/version.Version",
    tags="osusergo,grpcnotrace",
    typical_seconds=227,
)


def _built_only(
    name: str,
    package: str,
    module: GoModule,
    *,
    version_arguments: tuple[str, ...] | None,
    version_pattern: str,
) -> Program:
    return Program(name, package, module, None, version_arguments, version_pattern)


# Of the same Kubernetes, in a module of its own: a node's programs do not depend on a test image.
# The seconds are those after a build of Kubernetes, most of whose packages are in it.
AGNHOST = _module("agnhost", _KUBERNETES_VERSION, typical_seconds=7)
PAUSE = _module("pause", _PAUSE_VERSION, typical_seconds=1)


def _sha256(amd64: str, arm64: str) -> Mapping[str, str]:
    return {"linux/amd64": amd64, "linux/arm64": arm64}


def _kubernetes(name: str, sha256: Mapping[str, str] | None) -> Program:
    is_client = name == "kubectl"
    url = f"https://dl.k8s.io/release/{_KUBERNETES_VERSION}/bin/linux/{{arch}}/{name}"
    return Program(
        name=name,
        package=f"k8s.io/kubernetes/cmd/{name}",
        module=KUBERNETES,
        release=Release(url=url, sha256=sha256) if sha256 else None,
        version_arguments=("version", "--client") if is_client else ("--version",),
        version_pattern=r"^Client Version: (\S+)$" if is_client else r"^Kubernetes (\S+)$",
    )


def _konnectivity(name: str, package: str) -> Program:
    # Upstream publishes container images only, and neither program has a version command.
    return _built_only(
        name,
        package,
        KONNECTIVITY,
        version_arguments=None,
        version_pattern=rf"\t{re.escape(_KONNECTIVITY_MODULE)}\t(v\S+)",
    )


def _containerd(name: str) -> Program:
    root = "github.com/containerd/containerd/v2"
    return Program(
        name=name,
        package=f"{root}/cmd/{name}",
        module=CONTAINERD,
        release=Release(
            # The static one, for distributions with another C library.
            url=(
                f"https://github.com/containerd/containerd/releases/download/{_CONTAINERD_VERSION}"
                f"/containerd-static-{_CONTAINERD_VERSION.removeprefix('v')}-linux-{{arch}}.tar.gz"
            ),
            member=f"bin/{name}",
            sha256=_sha256(
                amd64="1d0eccd52471ab75e8d4645b538f73dc635f905cd2be776366eb1036a0089595",
                arm64="ad21f456a69bca9c183a8bde892a7576d5d09ae88b3e376a47bde4a886037ab3",
            ),
        ),
        version_arguments=("-v",),
        version_pattern=rf"(?:^\s+Version:\s+|{root} )(\S+)",
    )


def _cni(name: str, kind: str) -> Program:
    return Program(
        name=name,
        package=f"github.com/containernetworking/plugins/plugins/{kind}/{name}",
        module=CNI,
        release=Release(
            url=(
                "https://github.com/containernetworking/plugins/releases/download"
                f"/{_CNI_VERSION}/cni-plugins-linux-{{arch}}-{_CNI_VERSION}.tgz"
            ),
            member=name,
            sha256=_sha256(
                amd64="b98f74a0f8522f0a83867178729c1aa70f2158f90c45a2ca8fa791db1c76b303",
                arm64="56171987d3947707c3563db2f4001bccaf50fd63468611b9f3cbecb1375ee7ec",
            ),
        ),
        version_arguments=(),
        version_pattern=rf"^CNI {name} plugin (\S+)$",
    )


_ALL = (
    _kubernetes(
        "kube-apiserver",
        _sha256(
            amd64="1f217d397234a6d065da663c6e086fdb02c0f0de97a0758ff3e6f3956f4ef8ab",
            arm64="16001b9d35d23634c361a1e2b7b0fc7abe186984af697ef7a869c8c8cded78b7",
        ),
    ),
    _kubernetes(
        "kube-controller-manager",
        _sha256(
            amd64="7edfe976d5a06c7a702d653e914095f4a732a04bb2139115b6a6eba6a9b781c7",
            arm64="27868a5c822824945b93f2d8a724a5dcd99affc68b47230ae766bff8795bbb84",
        ),
    ),
    _kubernetes(
        "kube-scheduler",
        _sha256(
            amd64="b8955d4518c902110b50a825364339b1fb673822518ce0ba081a69ed634f8eee",
            arm64="ca1c7cd0033942bf9ef7eac80e18375d91f6f29487244c3e685f11163b01a88d",
        ),
    ),
    _kubernetes(
        "kubectl",
        _sha256(
            amd64="ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336",
            arm64="3d86f24401c41ae5a46ac50eef8865fe891d3647d324a0836f6c63757a126e62",
        ),
    ),
    Program(
        name="etcd",
        package="go.etcd.io/etcd/server/v3",
        module=ETCD,
        release=Release(
            url=(
                f"https://github.com/etcd-io/etcd/releases/download/v{_ETCD_VERSION}"
                f"/etcd-v{_ETCD_VERSION}-linux-{{arch}}.tar.gz"
            ),
            member=f"etcd-v{_ETCD_VERSION}-linux-{{arch}}/etcd",
            sha256={
                "linux/amd64": "cf9cfe91a4856cb90eed9c99e6aee4b708db2c7888b88a6f116281f04b0ea693",
                "linux/arm64": "438f56a700d17ce761510a3e63e6fa5c1d587b2dd4d7a22c179c09a649366760",
            },
        ),
        version_arguments=("--version",),
        version_pattern=r"^etcd Version: (\S+)$",
    ),
    # Upstream's tunnel with a command of ours, whose listener shows renewed certificates.
    _konnectivity("konnectivity-server", "bulkhead.local/tools/konnectivity/konnectivity-server"),
    _konnectivity("konnectivity-agent", f"{_KONNECTIVITY_MODULE}/cmd/agent"),
    _kubernetes(
        "kubelet",
        _sha256(
            amd64="46707a53209f826ad0f0d62371ac69cd00e78fd9a8176cf5f6f87f18f7f8b718",
            arm64="57205a5daf5883873d87b4914e1e00bdd7707acd075714788cfb0fc1f60bc414",
        ),
    ),
    # Released too, but under a checksum that we have not seen published.
    _kubernetes("kube-proxy", None),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    Program(
        name="runc",
        package="github.com/opencontainers/runc",
        module=RUNC,
        release=Release(
            url=(
                "https://github.com/opencontainers/runc/releases/download"
                f"/v{_RUNC_VERSION}/runc.{{arch}}"
            ),
            sha256=_sha256(
                amd64="f6ae8efc0fa40079e1475e97cbe9d1bd3f106a28d6af78a11d9f1bd565515e60",
                arm64="633301e2e32f8a5ad54031aab4901eb00308bec677dd15faa2751e8f9dab5ca4",
            ),
        ),
        version_arguments=("--version",),
        version_pattern=r"^runc version (\S+)$",
    ),
    _cni("bridge", "main"),
    _cni("loopback", "main"),
    _cni("host-local", "ipam"),
    _cni("portmap", "meta"),
    _built_only(
        "flanneld",
        "github.com/flannel-io/flannel",
        FLANNEL,
        version_arguments=("--version",),
        version_pattern=r"^(v\S+)$",
    ),
    _built_only(
        "coredns",
        "github.com/coredns/coredns",
        COREDNS,
        version_arguments=("-version",),
        version_pattern=r"^CoreDNS-(\S+)$",
    ),
    _built_only(
        "registry",
        "github.com/distribution/distribution/v3/cmd/registry",
        REGISTRY,
        version_arguments=("--version",),
        version_pattern=r" github\.com/distribution/distribution/v3 (\S+)$",
    ),
    _built_only(
        "crane",
        "github.com/google/go-containerregistry/cmd/crane",
        CRANE,
        version_arguments=("version",),
        version_pattern=r"^(v\S+)$",
    ),
    _built_only(
        "helm",
        "helm.sh/helm/v4/cmd/helm",
        HELM,
        version_arguments=("version", "--template={{.Version}}"),
        version_pattern=r"^(v\S+)$",
    ),
    _built_only(
        "pause",
        "bulkhead.local/tools/pause",
        PAUSE,
        version_arguments=("--version",),
        version_pattern=r"^pause (\S+)$",
    ),
    _built_only(
        "agnhost",
        "k8s.io/kubernetes/test/images/agnhost",
        AGNHOST,
        # What it prints is the version of its image, which is counted separately.
        version_arguments=None,
        version_pattern=r"\tk8s\.io/kubernetes\t(v\S+)",
    ),
    # Released too, but under a checksum that we have not seen published.
    _built_only(
        "kwok",
        "sigs.k8s.io/kwok/cmd/kwok",
        KWOK,
        version_arguments=("--version",),
        version_pattern=r"^kwok version (v\S+)",
    ),
    # Released too, but under a checksum that we have not seen published.
    _built_only(
        "pulumi",
        "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        PULUMI,
        version_arguments=("version",),
        version_pattern=r"^(v\S+)$",
    ),
)

PROGRAMS: Mapping[str, Program] = {program.name: program for program in _ALL}

# What the host of a control plane runs.
CONTROL_PLANE: tuple[str, ...] = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "konnectivity-server",
)
# What a server downloads to become a node.
NODE: tuple[str, ...] = (
    "kubelet",
    "kube-proxy",
    "konnectivity-agent",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "bridge",
    "loopback",
    "host-local",
    "portmap",
    "flanneld",
)
# What the platform serves images with, and makes them of.
PLATFORM: tuple[str, ...] = ("registry", "crane", "coredns", "pause", "agnhost")
CLIENT: tuple[str, ...] = ("kubectl",)
# What lets nodes that do not exist look alive, where no server can be booted.
SIMULATION: tuple[str, ...] = ("kwok",)
# What makes a customer's cloud resources.
STACKS: tuple[str, ...] = ("pulumi",)
# What deploys packages.
DEPLOYMENT: tuple[str, ...] = ("helm",)

GROUPS: Mapping[str, tuple[str, ...]] = {
    "control-plane": CONTROL_PLANE,
    "client": CLIENT,
    "node": NODE,
    "platform": PLATFORM,
    "simulation": SIMULATION,
    "stacks": STACKS,
    "deployment": DEPLOYMENT,
}
