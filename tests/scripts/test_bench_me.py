"""The benchmark of GET /me: what it says where it cannot measure, and that what it measures is an answer."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from scripts import bench_me
from tests.postgres import Server

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def worktrees() -> str:
    return subprocess.run(
        ["git", "worktree", "list"], cwd=bench_me.ROOT, capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


def test_without_wrk_it_ends_with_1_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert bench_me.main([]) == 1
    assert "wrk is not installed" in capsys.readouterr().out


@needs_wrk
@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestRun:
    def test_it_measures_and_leaves_nothing(self, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        before = worktrees()
        given = ["--server", server.url, "--rounds", "1", "--seconds", "1", "--against", "HEAD"]
        assert bench_me.main(given) == 0
        said = capsys.readouterr().out
        assert "this checkout" in said
        assert "ratio" in said
        assert "bench_me" not in server.psql(server.url, "SELECT datname FROM pg_database")
        assert worktrees() == before

    def test_a_commit_that_is_not_there_is_said(self, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        assert bench_me.main(["--server", server.url, "--against", "nowhere"]) == 1
        assert "nowhere" in capsys.readouterr().out

    def test_what_is_no_answer_is_not_measured(self, server: Server) -> None:
        with pytest.raises(bench_me.BenchmarkFailed, match="wrk said"):
            bench_me.load(f"http://127.0.0.1:{bench_me.free_port()}/me", "a token", 1, 1)
