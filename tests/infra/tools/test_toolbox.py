import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import BulkheadError, Reason
from tests.infra.tools.workshop import Workshop, executable, greeter


def test_builds_once_and_then_answers_from_the_cache(workshop: Workshop, tmp_path: Path) -> None:
    program = greeter(tmp_path / "module", "1.0.0")

    first = workshop.toolbox(program).ensure(["greeter", "greeter"])
    second = workshop.toolbox(program).ensure(["greeter"])

    assert first == second
    assert _run(first["greeter"]) == "Greeter 1.0.0"
    assert workshop.build_count == 1
    assert not list((workshop.cache / ".work").iterdir())


def test_concurrent_processes_build_once(workshop: Workshop, tmp_path: Path) -> None:
    greeter(tmp_path / "module", "1.0.0")
    script = textwrap.dedent(f"""
        from pathlib import Path
        from tests.infra.tools.workshop import greeter
        from infra.tools.toolbox import Toolbox
        program = greeter(Path({str(tmp_path / "module")!r}), "1.0.0")
        cache, path = Path({str(workshop.cache)!r}), {str(workshop.bin)!r}
        print(Toolbox({{"greeter": program}}, cache, path).ensure(["greeter"])["greeter"])
    """)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", script]
    processes = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]

    answers = {process.communicate(timeout=240)[0] for process in processes}

    assert {process.returncode for process in processes} == {0}
    assert len(answers) == 1
    assert workshop.build_count == 1


def test_a_changed_pin_is_another_path_and_the_old_one_stays(
    workshop: Workshop, tmp_path: Path
) -> None:
    old = workshop.toolbox(greeter(tmp_path / "module", "1.0.0")).ensure(["greeter"])["greeter"]
    new_pin = greeter(tmp_path / "module", "2.0.0")

    assert workshop.toolbox(new_pin).find("greeter") is None
    new = workshop.toolbox(new_pin).ensure(["greeter"])["greeter"]

    assert (_run(old), _run(new)) == ("Greeter 1.0.0", "Greeter 2.0.0")


def test_a_change_of_the_dependencies_alone_is_a_changed_pin(tmp_path: Path) -> None:
    program = greeter(tmp_path / "module", "1.0.0")
    before = program.module.key()

    (tmp_path / "module" / "go.sum").write_text("example.org/a v1.0.0 h1:changed=\n")

    assert program.module.key() != before


def test_takes_the_right_version_from_path_and_passes_over_wrong_ones(
    workshop: Workshop, tmp_path: Path
) -> None:
    program = greeter(tmp_path / "module", "1.0.0")
    executable(workshop.bin / "greeter", "echo Greeter 1.0.0-rc1")

    built = workshop.toolbox(program).ensure(["greeter"])["greeter"]
    assert built.is_relative_to(workshop.cache)

    executable(workshop.bin / "greeter", "echo Greeter 1.0.0")
    assert workshop.toolbox(program).ensure(["greeter"])["greeter"] == workshop.bin / "greeter"


def test_what_servers_download_is_never_taken_from_path(workshop: Workshop, tmp_path: Path) -> None:
    program = replace(greeter(tmp_path / "module", "1.0.0"), name="kubelet")
    executable(workshop.bin / "kubelet", "echo Greeter 1.0.0")

    built = workshop.toolbox(program).ensure(["kubelet"])["kubelet"]

    assert built.is_relative_to(workshop.cache)
    assert _run(built) == "Greeter 1.0.0"


def test_a_failed_build_says_what_go_said(workshop: Workshop, tmp_path: Path) -> None:
    program = greeter(
        tmp_path / "module", "1.0.0", source="package main\n\nfunc main() { nope() }\n"
    )

    with pytest.raises(BulkheadError, match=r"main\.go:3:\d+: undefined: nope") as caught:
        workshop.toolbox(program).ensure(["greeter"])

    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert "make programs" in caught.value.message
    assert workshop.toolbox(program).find("greeter") is None


def test_what_calls_itself_by_another_version_is_not_kept(
    workshop: Workshop, tmp_path: Path
) -> None:
    source = "package main\n\nfunc main() {}\n"
    program = greeter(tmp_path / "module", "1.0.0", source=source)

    with pytest.raises(BulkheadError, match="calls itself None"):
        workshop.toolbox(program).ensure(["greeter"])

    assert workshop.toolbox(program).find("greeter") is None


def test_a_program_without_a_version_command_is_known_by_its_build_information(
    workshop: Workshop, tmp_path: Path
) -> None:
    silent = greeter(tmp_path / "module", "(devel)", source="package main\n\nfunc main() {}\n")
    silent = replace(silent, version_arguments=None)

    other = replace(silent, version_pattern=r"\texample\.org/other\t(\S+)")
    with pytest.raises(BulkheadError, match="calls itself None"):
        workshop.toolbox(other).ensure(["greeter"])

    found = replace(silent, version_pattern=r"\tbulkhead\.test/programs\t(\S+)")
    assert workshop.toolbox(found).ensure(["greeter"])["greeter"].is_file()


def test_an_unknown_name_is_refused_before_anything_is_made(
    workshop: Workshop, tmp_path: Path
) -> None:
    program = greeter(tmp_path / "module", "1.0.0")

    with pytest.raises(BulkheadError, match="there are greeter") as caught:
        workshop.toolbox(program).ensure(["greeter", "kubelet"])

    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert workshop.build_count == 0


def test_a_cache_that_cannot_be_written_is_a_typed_error(
    workshop: Workshop, tmp_path: Path
) -> None:
    workshop.cache.write_text("a file where the directory should be")

    with pytest.raises(BulkheadError, match="XDG_CACHE_HOME"):
        workshop.toolbox(greeter(tmp_path / "module", "1.0.0")).ensure(["greeter"])


def test_installs_for_other_users_and_replaces_in_one_step_when_the_pin_changed(
    workshop: Workshop, tmp_path: Path
) -> None:
    target = tmp_path / "programs"
    workshop.toolbox(greeter(tmp_path / "module", "1.0.0")).install_into(target, ["greeter"])
    running = (target / "greeter").open("rb")
    inode = (target / "greeter").stat().st_ino

    toolbox = workshop.toolbox(greeter(tmp_path / "module", "2.0.0"))
    toolbox.install_into(target, ["greeter"])
    toolbox.install_into(target, ["greeter"])

    with running:
        assert running.read(4) == b"\x7fELF"
    assert (target / "greeter").stat().st_ino != inode
    assert (target / "greeter").stat().st_mode & 0o777 == 0o755
    assert _run(target / "greeter") == "Greeter 2.0.0"
    assert [path.name for path in target.iterdir()] == ["greeter"]


def _run(path: Path) -> str:
    return subprocess.run([path], check=True, capture_output=True, text=True).stdout.strip()
