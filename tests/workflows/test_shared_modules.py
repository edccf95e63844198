"""What workflows share is loaded outside of their sandbox, and does nothing that it refuses."""

import ast
import importlib
import inspect
from collections.abc import Iterator

import pytest

from workflows.registry import SHARED

# Whatever differs between a run and its replay, or goes past the workflow's own event loop.
_UNREPEATABLE = frozenset(
    {"os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid", "uuid_utils"}
)
_OF_DATETIME = frozenset({"UTC", "timedelta"})
_UNREPEATABLE_CALLS = frozenset({"now", "today", "utcnow", "to_thread", "run_in_executor"})


@pytest.mark.parametrize("name", SHARED)
def test_what_workflows_share_is_repeatable_and_keeps_nothing(name: str) -> None:
    tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    assert list(_unrepeatable(tree)) == []
    assert list(_kept(tree)) == []


def _unrepeatable(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = [each.name for each in names if each.name.split(".")[0] in _UNREPEATABLE]
            case ast.ImportFrom(module="datetime", names=names):
                found = [each.name for each in names if each.name not in _OF_DATETIME]
            case ast.ImportFrom(module=str(module)):
                found = [module] if module.split(".")[0] in _UNREPEATABLE else []
            case ast.Call(func=ast.Attribute(attr=attribute)):
                found = [attribute] if attribute in _UNREPEATABLE_CALLS else []
            case _:
                found = []
        yield from found


def _kept(tree: ast.Module) -> Iterator[str]:
    """Return what a run could leave for the next one: containers of a module, and `global`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield ", ".join(node.names)
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.List | ast.Dict | ast.Set):
            yield ast.unparse(node)
