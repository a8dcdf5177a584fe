"""`litestar run` with Granian: Litestar's own wants uvicorn, and one server is enough.

The promise: the same server, loop and interface as `shadow serve`.
"""

from __future__ import annotations

import click
from granian.constants import Interfaces, Loops
from granian.server import Server
from litestar.cli._utils import LitestarEnv
from litestar.plugins import CLIPluginProtocol


class GranianRun(CLIPluginProtocol):
    """Replaces the command `run`."""

    def on_cli_init(self, cli: click.Group) -> None:
        """Put our `run` where Litestar's was."""

        @cli.command("run", help="Serve the app with Granian.")
        @click.option("-H", "--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
        @click.option("-p", "--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
        @click.option("-W", "--wc", "--workers", "workers", default=1, show_default=True, type=click.IntRange(1))
        def run(env: LitestarEnv, host: str, port: int, workers: int) -> None:
            Server(
                env.app_path,
                host,
                port,
                factory=env.is_app_factory,
                interface=Interfaces.ASGI,
                loop=Loops.uvloop,
                workers=workers,
                websockets=False,
            ).serve()
