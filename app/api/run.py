"""The process that serves: Granian, started by `shadow serve` or `litestar run` alike.

The promise: both run the same server, with the same loop and interface, and several workers count together.
"""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

import click
from granian.constants import Interfaces, Loops
from granian.server import Server
from litestar.cli._utils import LitestarEnv
from litestar.plugins import CLIPluginProtocol

_TOGETHER = "PROMETHEUS_MULTIPROC_DIR"


def run_server(target: str, host: str, port: int, *, workers: int, factory: bool = True) -> None:
    """Serve until a signal ends it.

    Args:
        target: the app, `package.module:name`.
        host: address to listen on.
        port: port to listen on.
        workers: processes; several share a folder for their counts, which is gone afterwards.
        factory: whether `target` makes the app, or is it.
    """
    server = Server(
        target,
        host,
        port,
        factory=factory,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=workers,
        websockets=False,
    )
    if workers == 1 or _TOGETHER in os.environ:
        server.serve()
        return
    with TemporaryDirectory(prefix="shadow-metrics-") as folder:
        os.environ[_TOGETHER] = folder
        server.serve()


class GranianRun(CLIPluginProtocol):
    """Replaces the command `run`: Litestar's own wants uvicorn, and one server is enough."""

    def on_cli_init(self, cli: click.Group) -> None:
        """Put our `run` where Litestar's was."""

        @cli.command("run", help="Serve the app with Granian.")
        @click.option("-H", "--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
        @click.option("-p", "--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
        @click.option("-W", "--wc", "--workers", "workers", default=1, show_default=True, type=click.IntRange(1))
        def run(env: LitestarEnv, host: str, port: int, workers: int) -> None:
            run_server(env.app_path, host, port, workers=workers, factory=env.is_app_factory)
