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

# What the calls return that a module or a class may keep.
_UNCHANGEABLE = frozenset(
    {"Awaited", "Policy", "RetryPolicy", "TypeVar", "frozenset", "timedelta", "until"}
)


@pytest.mark.parametrize("name", SHARED)
def test_what_workflows_share_is_repeatable_and_keeps_nothing(name: str) -> None:
    tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    assert list(_unrepeatable(tree)) == []
    assert list(_kept(tree)) == []
    assert {each for each in _imported(tree) if each.startswith("workflows.")} <= set(SHARED)


def _imported(tree: ast.Module) -> set[str]:
    return {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


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
    """Return what a run could leave for the next one, of a module, a class or a function."""
    for node in ast.walk(tree):
        match node:
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                yield ", ".join(names)
            case ast.Module(body=body) | ast.ClassDef(body=body):
                yield from filter(None, map(_changeable, body))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                yield from (ast.unparse(each) for each in defaults if _is_container(each))
                yield from (ast.unparse(each) for each in node.decorator_list if _caches(each))


def _changeable(node: ast.stmt) -> str | None:
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return ast.unparse(node) if value is not None and _is_container(value) else None


def _is_container(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] not in _UNCHANGEABLE
    comprehensions = (ast.ListComp, ast.DictComp, ast.SetComp)
    return isinstance(value, (ast.List, ast.Dict, ast.Set, *comprehensions))


def _caches(decorator: ast.expr) -> bool:
    return "cache" in ast.unparse(decorator)
