"""The old app: the real Better Auth of `tests/betterauth`, in a process of its own, on the database it always had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

FOLDER = Path(__file__).parents[1] / "betterauth"
OLDEST = 20
"""Major version of Node."""
Json = dict[str, Any]


def missing() -> str | None:
    """Return what there must be for an old app to run, and is not."""
    if shutil.which("node") is None:
        return "the old app needs Node 20 or newer, and there is no node"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < OLDEST:
        return f"the old app needs Node 20 or newer, and this is {version}"
    wanted = json.loads((FOLDER / "package.json").read_text())
    packages = sorted(wanted["dependencies"] | wanted["devDependencies"])
    absent = [name for name in packages if not (FOLDER / "node_modules" / name).is_dir()]
    if absent:
        return f"the old app needs `npm install` in tests/betterauth; there is no {', '.join(absent)}"
    return None


class OldApp:
    """One that runs; see `oldapp.mjs` for what it can be asked."""

    def __init__(self, layout: str, url: str, program: Path = FOLDER / "oldapp.mjs") -> None:
        self._process = subprocess.Popen(
            ["node", program, layout], env={**os.environ, "DATABASE_URL": url}, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._answer() == {"ok": True, "layout": layout}

    def __enter__(self) -> OldApp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _answer(self) -> Json:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the old app ended with exit code {self._process.wait()}"
        answer: Json = json.loads(line)
        return answer

    def ask_all(self, requests: Iterable[Json]) -> list[Json]:
        """Ask many things at once; the answers come in their order."""
        assert self._process.stdin is not None
        lines = [json.dumps(request) + "\n" for request in requests]
        self._process.stdin.writelines(lines)
        return [self._answer() for _ in lines]

    def try_to(self, do: str, **fields: Any) -> Json:
        """Ask for something that may be refused."""
        (answer,) = self.ask_all([{"do": do, **fields}])
        return answer

    def __call__(self, do: str, **fields: Any) -> Json:
        """Ask for something that must succeed."""
        answer = self.try_to(do, **fields)
        assert answer["ok"], answer
        return answer
