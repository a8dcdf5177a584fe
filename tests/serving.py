"""The server in a process of its own, and a provider's key set, both on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import httpx

from app.settings import Settings
from tests.api.provider import Provider

GRANIAN = ("granian", "--interface", "asgi", "--factory", "app.asgi:create_app", "--loop", "uvloop", "--no-ws")
_SHOWN = 8_192
"""Characters of a server's output that a test which fails shows."""


@contextmanager
def served_over_http(provider: Provider) -> Iterator[str]:
    """Serve the provider's key set on loopback, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(provider.key_set()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks"
    server.shutdown()
    server.server_close()
    thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings and no other of ours."""
    ours = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours} | settings


@contextmanager
def running(folder: Path, program: tuple[str, ...] = GRANIAN, **settings: str) -> Iterator[str]:
    """Run the server in a process of its own, and yield its address once it answers.

    What it says goes to a file, for a pipe that nobody reads holds it up when it is full; the end of it is printed, and
    pytest shows that where the test fails. A traceback in it is a failure.
    """
    port = free_port()
    command = [sys.executable, "-m", *program, "--host", "127.0.0.1", "--port", str(port)]
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, env=environment(**settings), cwd=folder, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(process, f"http://127.0.0.1:{port}{settings.get('PATH_PREFIX', '')}/livez", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            finally:
                process.kill()
                log.seek(0)
                output = log.read()
                print(output[-_SHOWN:])
    before, traceback, after = output.partition("Traceback")
    assert not traceback, before[-_SHOWN:] + traceback + after[:_SHOWN]


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: IO[str]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.HTTPError:
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"the server ended: {log.read()[-_SHOWN:]}") from None
            assert time.monotonic() < deadline, "the server does not start; what it said is below"
            time.sleep(0.05)
