import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.invocation import Invocation, called_program


def test_a_proposed_command_keeps_the_options_that_it_needs() -> None:
    here = Invocation(program="bin/bulkhead", workspace="the one", url="https://a.example")

    typed = here.typed("bulkhead clusters list   (suspend or delete one)")

    options = "--workspace 'the one' --url https://a.example"
    assert typed == f"bin/bulkhead clusters list {options}   (suspend or delete one)"
    assert here.typed("  bulkhead whoami") == "  bin/bulkhead whoami --url https://a.example"
    login = "bulkhead login --url https://b.example"
    assert here.typed(login) == f"bin/{login}"
    assert here.typed("make status") == "make status"


def test_the_program_is_named_by_its_path_where_it_is_not_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / ".venv" / "bin" / "bulkhead"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "clusters", "list"])

    monkeypatch.setenv("PATH", "/nowhere")
    assert called_program() == ".venv/bin/bulkhead"
    monkeypatch.setenv("PATH", str(script.parent))
    assert called_program() == "bulkhead"


def test_an_interrupt_while_loading_ends_the_program_without_a_traceback() -> None:
    code = (
        "import os, signal\n"
        "from cli.interrupts import quiet_interrupts\n"
        "with quiet_interrupts():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")
