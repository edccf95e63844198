import re

import pytest

from infra.tools.pins import CONTROL_PLANE, PROGRAMS, Program


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_pinned_version_is_the_one_in_the_go_module(program: Program) -> None:
    module = re.sub(r"/cmd/.*", "", program.package)
    requirements = (program.module.directory / "go.mod").read_text()

    version = re.search(rf"^\s+{re.escape(module)} (\S+)", requirements, re.MULTILINE)

    assert version is not None
    assert version.group(1).removeprefix("v") == program.version.removeprefix("v")


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_every_release_is_pinned_for_both_linux_architectures(program: Program) -> None:
    assert set(program.release.sha256) == {"linux/amd64", "linux/arm64"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in program.release.sha256.values())
    assert program.version in program.release.url


def test_the_linker_flags_carry_the_pinned_kubernetes_version() -> None:
    program = PROGRAMS["kube-apiserver"]
    major, minor = program.version.removeprefix("v").split(".")[:2]

    assert f"version.gitVersion={program.version}" in program.module.ldflags
    assert f"version.gitMajor={major} " in program.module.ldflags
    assert program.module.ldflags.endswith(f"version.gitMinor={minor}")


def test_a_control_plane_is_made_of_pinned_programs() -> None:
    assert set(CONTROL_PLANE) < set(PROGRAMS)
