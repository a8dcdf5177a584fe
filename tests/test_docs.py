"""The documentation against the code: every finding has its section, and every command and query there is one."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from itertools import product
from pathlib import Path

import pytest
import rich_click as click
from alembic.config import CommandLine

from app.cli import main
from app.cutover.findings import ACCEPTABLE, decided
from app.cutover.steps import REVISIONS
from app.embedded import programs
from tests.cutover.commands import migrate
from tests.postgres import Server

PROJECT = Path(__file__).parent.parent
CUTOVER = PROJECT / "app" / "cutover"
DOCS = PROJECT / "docs"
FINDINGS, RUNBOOK = DOCS / "findings.md", DOCS / "cutover.md"
LEVELS = {"refuse", "warn", "info"}
EACH = "dependent-*"
"""The section for codes that are made from the kind of an object."""


# ---------------------------------------------------------------------------------------------- what the code can give


@dataclass(frozen=True)
class Module:
    """A module of the cutover, parsed."""

    path: Path
    tree: ast.Module


@cache
def modules() -> tuple[Module, ...]:
    return tuple(Module(path, ast.parse(path.read_text())) for path in sorted(CUTOVER.rglob("*.py")))


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """Yield the calls of a function, bare or as `module.name(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
            if called == name:
                yield node


def texts(node: ast.expr, module: Module) -> list[tuple[str, str | None]]:
    """Return the texts that an expression may stand for, each with the condition under which it does.

    A text with something set in ends at it with `*`. Raises ValueError for what cannot be read from the source.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [(node.value, None)]
    if isinstance(node, ast.IfExp):
        test = ast.dump(node.test)
        (then, _), (other, _) = texts(node.body, module)[0], texts(node.orelse, module)[0]
        return [(then, test), (other, f"not {test}")]
    if isinstance(node, ast.JoinedStr) and isinstance(first := node.values[0], ast.Constant):
        return [(f"{first.value}*", None)]
    if isinstance(node, ast.Name):
        return [(given, None) for given in arguments(node.id, module)]
    raise ValueError(f"{module.path.name}:{node.lineno}: {ast.unparse(node)}")


def arguments(name: str, module: Module) -> Iterator[str]:
    """Yield the texts that are given for a parameter of a function of a module: `identities("refuse")`."""
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = [argument.arg for argument in function.args.args]
        if name in names:
            for each in modules():
                for call in calls(each.tree, function.name):
                    (text, _), *_ = texts(call.args[names.index(name)], each)
                    yield text


def given() -> dict[str, set[str]]:
    """Return every code that can be given, and the levels at which it can."""
    found: dict[str, set[str]] = {}
    for module in modules():
        for call in calls(module.tree, "Finding"):
            if ast.unparse(call.args[0]) == "doubt.code":  # what a Doubt becomes
                assert texts(call.args[1], module) == [("refuse", None)]
                continue
            for (code, when), (level, where) in product(texts(call.args[0], module), texts(call.args[1], module)):
                if when is None or where is None or when == where:
                    found.setdefault(code, set()).add(level)
        for call in calls(module.tree, "Doubt"):
            if not isinstance(call.args[0], ast.Starred):  # a Fault, unpacked
                for code, _ in texts(call.args[0], module):
                    found.setdefault(code, set()).add("refuse")
        if any(isinstance(node, ast.Name) and node.id == "Fault" for node in ast.walk(module.tree)):
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Tuple) and len(node.elts) == 4 and isinstance(node.elts[0], ast.Constant):
                    found.setdefault(str(node.elts[0].value), set()).add("refuse")
    return found


if __name__ == "__main__":
    for code, levels in sorted(given().items()):
        print(code, sorted(levels))
