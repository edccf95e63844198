import re

import pytest

from infra.tools.pins import DEPLOYMENT, GROUPS, PLATFORM, PROGRAMS, SIMULATION, STACKS
from infra.tools.program import Program

OURS = "bulkhead.local/"
UPSTREAM = {name: one for name, one in PROGRAMS.items() if not one.package.startswith(OURS)}


@pytest.mark.parametrize("program", UPSTREAM.values(), ids=UPSTREAM)
def test_the_pinned_version_is_the_one_in_the_go_module(program: Program) -> None:
    text = (program.module.directory / "go.mod").read_text()
    requirements = dict(re.findall(r"^\t(\S+) (v\S+)(?: // indirect)?$", text, re.MULTILINE))

    # A module contains the package whose path begins with its own; the longest one has it.
    module = max((name for name in requirements if _is_inside(program.package, name)), key=len)

    assert requirements[module].removeprefix("v") == program.version.removeprefix("v")
    assert re.search(rf"^\s*(?:tool )?{re.escape(program.package)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name, one in PROGRAMS.items() if one.release])
def test_every_release_is_pinned_for_both_linux_architectures(name: str) -> None:
    program = PROGRAMS[name]
    assert program.release is not None
    assert set(program.release.sha256) == {"linux/amd64", "linux/arm64"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in program.release.sha256.values())
    assert program.version in program.release.url


def test_what_has_no_known_release_is_known_to_be_built_only() -> None:
    assert {name for name, program in PROGRAMS.items() if program.release is None} == {
        *("konnectivity-server", "konnectivity-agent", "kube-proxy", "flanneld"),
        *PLATFORM,
        *SIMULATION,
        *STACKS,
        *DEPLOYMENT,
    }


def test_the_linker_flags_carry_the_pinned_kubernetes_version() -> None:
    program = PROGRAMS["kube-apiserver"]
    major, minor = program.version.removeprefix("v").split(".")[:2]

    assert f"version.gitVersion={program.version}" in program.module.ldflags
    assert f"version.gitMajor={major} " in program.module.ldflags
    assert program.module.ldflags.endswith(f"version.gitMinor={minor}")


def test_every_program_is_in_exactly_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]

    assert sorted(grouped) == sorted(PROGRAMS)


def _is_inside(package: str, module: str) -> bool:
    return package == module or package.startswith(f"{module}/")
