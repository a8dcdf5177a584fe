"""The two ways in, `shadow` and `alembic`, as a person or a deployment calls them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from alembic.config import CommandLine
from click.testing import CliRunner

from app.cli import main

PROJECT = Path(__file__).parents[2]
ACCEPTED = "identities-not-exported"


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said on stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything it said, in one line: a terminal's wrapping means nothing."""
        return " ".join((self.out + " " + self.err).split())

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document

    def findings(self, code: str) -> list[dict[str, str]]:
        """Return the findings of a plan in JSON that have a code."""
        return [finding for finding in self.json["findings"] if finding["code"] == code]


def shadow(url: str, *arguments: str, answer: str | None = None, **environment: str) -> Outcome:
    """Run the command in this process; what escapes from it as an exception fails the test."""
    result = CliRunner().invoke(main, arguments, input=answer, env={"DATABASE_URL": url, **environment})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def migrate(url: str, to: str, *arguments: str, **environment: str) -> Outcome:
    """Run `shadow migrate --to ... --yes`."""
    return shadow(url, "migrate", "--to", to, "--yes", *arguments, **environment)


def plan(url: str, to: str, *arguments: str, **environment: str) -> Outcome:
    """Run `shadow plan --format json`."""
    return shadow(url, "plan", "--to", to, "--format", "json", *arguments, **environment)


def process(url: str, *command: str, **environment: str) -> Outcome:
    """Run a program of the project as a process of its own."""
    done = subprocess.run(
        [sys.executable, *command], cwd=PROJECT, env={**os.environ, "DATABASE_URL": url, **environment},
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def alembic(url: str, *arguments: str, **environment: str) -> Outcome:
    """Run `alembic` in this process; what escapes from it as an exception fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {"DATABASE_URL": url, **environment}),
        contextlib.chdir(PROJECT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            CommandLine().main([*arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        else:
            code = 0
    return Outcome(code, out.getvalue(), err.getvalue())
