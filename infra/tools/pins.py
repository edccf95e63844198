"""Which programs there are, in which version, and where each is had.

To move a pin: change the version here, the module's `go.mod` and `go.sum` (`go get`, `go mod
tidy`), and the checksums of the release. A test fails while the three disagree.
"""

import hashlib
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MODULES = Path(__file__).parent / "go"


@dataclass(frozen=True, slots=True)
class GoModule:
    """A directory with nothing but `go.mod` and `go.sum`, from which programs are built.

    `typical_seconds` is a cold build on two cores: what a first-time user is told to expect.
    """

    name: str
    directory: Path
    version: str
    ldflags: str
    typical_seconds: int

    def key(self) -> str:
        """Name this pin by its content: version, platform, dependencies and build flags."""
        digest = hashlib.sha256()
        for part in (
            self.directory.joinpath("go.mod").read_bytes(),
            self.directory.joinpath("go.sum").read_bytes(),
            self.ldflags.encode(),
        ):
            digest.update(len(part).to_bytes(8, "big") + part)
        return f"{self.version}-{this_platform().replace('/', '-')}-{digest.hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Release:
    """The official release: where it is, and the sha256 of the file per platform.

    `url` and `member` may contain `{arch}`. `member` is the program's path inside a gzipped tar
    file; without it the file is the program itself.
    """

    url: str
    sha256: Mapping[str, str]
    member: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """One executable: its exact version, how it tells it, and where it is had.

    The version stands alone in the first group of `version_pattern`, which is searched in what
    `version_arguments` makes the program print.
    """

    name: str
    package: str
    module: GoModule
    release: Release
    version_arguments: tuple[str, ...]
    version_pattern: str

    @property
    def version(self) -> str:
        """The version that the program must print."""
        return self.module.version


def this_platform() -> str:
    """Name this machine as Go does, for example `linux/amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


_KUBERNETES_VERSION = "v1.36.3"
_ETCD_VERSION = "3.6.8"

KUBERNETES = GoModule(
    name="kubernetes",
    directory=_MODULES / "kubernetes",
    version=_KUBERNETES_VERSION,
    # Without the three -X the programs call themselves v0.0.0-master and clients refuse the skew.
    ldflags=" ".join(
        [
            "-s -w",
            f"-X k8s.io/component-base/version.gitVersion={_KUBERNETES_VERSION}",
            "-X k8s.io/component-base/version.gitMajor=1",
            "-X k8s.io/component-base/version.gitMinor=36",
        ]
    ),
    typical_seconds=253,
)
ETCD = GoModule(
    name="etcd",
    directory=_MODULES / "etcd",
    version=_ETCD_VERSION,
    ldflags="-s -w",
    typical_seconds=50,
)


def _kubernetes(name: str, *, amd64: str, arm64: str) -> Program:
    is_client = name == "kubectl"
    return Program(
        name=name,
        package=f"k8s.io/kubernetes/cmd/{name}",
        module=KUBERNETES,
        release=Release(
            url=f"https://dl.k8s.io/release/{_KUBERNETES_VERSION}/bin/linux/{{arch}}/{name}",
            sha256={"linux/amd64": amd64, "linux/arm64": arm64},
        ),
        version_arguments=("version", "--client") if is_client else ("--version",),
        version_pattern=r"^Client Version: (\S+)$" if is_client else r"^Kubernetes (\S+)$",
    )


_ALL = (
    _kubernetes(
        "kube-apiserver",
        amd64="1f217d397234a6d065da663c6e086fdb02c0f0de97a0758ff3e6f3956f4ef8ab",
        arm64="16001b9d35d23634c361a1e2b7b0fc7abe186984af697ef7a869c8c8cded78b7",
    ),
    _kubernetes(
        "kube-controller-manager",
        amd64="7edfe976d5a06c7a702d653e914095f4a732a04bb2139115b6a6eba6a9b781c7",
        arm64="27868a5c822824945b93f2d8a724a5dcd99affc68b47230ae766bff8795bbb84",
    ),
    _kubernetes(
        "kube-scheduler",
        amd64="b8955d4518c902110b50a825364339b1fb673822518ce0ba081a69ed634f8eee",
        arm64="ca1c7cd0033942bf9ef7eac80e18375d91f6f29487244c3e685f11163b01a88d",
    ),
    _kubernetes(
        "kubectl",
        amd64="ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336",
        arm64="3d86f24401c41ae5a46ac50eef8865fe891d3647d324a0836f6c63757a126e62",
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
)

PROGRAMS: Mapping[str, Program] = {program.name: program for program in _ALL}
CONTROL_PLANE: tuple[str, ...] = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
)
