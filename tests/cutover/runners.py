"""Runs of `shadow` that are killed at a statement, or at any moment from outside.

Each is forked from one process that has everything imported already, so that a kill costs what the run does until then.

The promise: what is killed is a process of its own, by SIGKILL, and nothing of it lives on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mark:
    """A moment at which a run can be killed: before a statement, before a COMMIT or after one."""

    step: str
    sql: str


@dataclass(frozen=True)
class Run:
    """A run that has ended. `code` is that of the process, -9 if it was killed."""

    code: int
    marks: tuple[Mark, ...]
    text: str


def _stable() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cutover.runners"], cwd=PROJECT, env={**os.environ, "LOGNAME": "tester"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@dataclass
class Stable:
    """The process that runs are forked from."""

    _process: subprocess.Popen[str] = field(default_factory=_stable)

    def start(self, *arguments: str, at: int | None = None, **environment: str) -> int:
        """Start `shadow` with arguments and return its process id; at a mark, counted from 0, it kills itself."""
        self._send({"arguments": arguments, "at": at, "environment": environment})
        return int(self._receive()["pid"])

    def end(self) -> Run:
        """Wait for the run that was started last."""
        self._send({})
        answer = self._receive()
        return Run(answer["code"], tuple(Mark(*mark) for mark in answer["marks"]), answer["text"])

    def run(self, *arguments: str, at: int | None = None, **environment: str) -> Run:
        self.start(*arguments, at=at, **environment)
        return self.end()

    def close(self) -> None:
        self._process.communicate()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


# ------------------------------------------------------------------------------------------- in the process itself


def _serve() -> None:
    """Fork runs as they are asked for, until there is nobody left to ask."""
    while line := sys.stdin.readline():
        order = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            said, marks = Path(folder, "said"), Path(folder, "marks")
            pid = os.fork()
            if pid == 0:
                _run(order, said, marks)
            print(json.dumps({"pid": pid}), flush=True)
            sys.stdin.readline()
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            passed = [json.loads(mark) for mark in marks.read_text().splitlines()] if marks.exists() else []
            print(json.dumps({"code": code, "marks": passed, "text": said.read_text()}), flush=True)


def _run(order: dict[str, Any], said: Path, marks: Path) -> None:
    from app import cli

    os.environ.update(order["environment"])
    terminal = os.open(said, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(terminal, stream)
    with marks.open("a", buffering=1) as passed:
        _mark(order["at"], lambda mark: passed.write(json.dumps(mark) + "\n"))
        try:
            cli.main(order["arguments"])
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)
        finally:
            os._exit(70)


def _mark(at: int | None, passed: Callable[[tuple[str, str]], object]) -> None:
    """Count what is sent to the server, but for what only reads, and kill this process before the one asked for."""
    from sqlalchemy import event
    from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
    from sqlalchemy.engine import Engine

    from app import cli
    from app.cutover.steps import Step

    left, step = at, ""
    observe, commit = cli._observe, PGDialect_asyncpg.do_commit

    def mark(sql: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        passed((step, sql))
        left = None if left is None else left - 1

    def observed(now: Step, seconds: float | None) -> None:
        nonlocal step
        step = now.title
        observe(now, seconds)

    def sent(_connection: object, _cursor: object, sql: str, *_rest: object) -> None:
        reads = sql.lstrip().startswith(("SELECT", "WITH")) and not sql.startswith("SELECT setval")
        # the catalogue is read with another search path, and values are copied with the snapshot remembered
        if not reads or sql.startswith("SELECT set_config('shadow."):
            mark(sql)

    def committed(*arguments: Any) -> None:
        mark("COMMIT")
        commit(*arguments)
        mark("committed")

    cli._observe = observed
    event.listen(Engine, "before_cursor_execute", sent)
    PGDialect_asyncpg.do_commit = committed


if __name__ == "__main__":
    import app.asgi
    import app.cli  # noqa: F401

    _serve()
