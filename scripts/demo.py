"""The whole way in one run: a database that Better Auth made, the cutover, a provider, the server, the requests.

    python scripts/demo.py [--stay]

    1  the embedded PostgreSQL gets a fresh database `demo` with the sample data
    2  `shadow plan`, `migrate --to retire`, `verify`, `migrate --to drop`, `verify`, as a person would type them
    3  the development provider and `shadow serve` start, each a process of its own, logging to `.data/*.log`
    4  the requests a client would make, and what became of the rows, asked with psql

The promise: nothing outside `.data/` and the database `demo` is touched; what is said to hold was observed from
outside, over HTTP and with psql, never through the code it speaks of; the exit code is 0 only if all of it held; and
however it ends, every process it started has ended too.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.text import Text

from app.embedded import programs, start
from app.errors import DatabaseUnreachable
from app.settings import Settings
from scripts.demo_parts import DATA, FIXTURES, GONE, ROOT, Database, Processes, Record, Stopped, Unmet, log_of
from scripts.demo_requests import CROWD, Client, visit

SHADOW = str(Path(sys.executable).with_name("shadow"))
REFUSED = 2
"""Exit code of a command that refused and changed nothing."""
FRAME = 4
"""Columns of the frame around a command's output."""
WIDTH = 120 + FRAME
"""Columns where the output is no terminal."""
HEAD, TAIL = 25, 6
"""Lines shown of a long output; all of it is in the log."""


def clean_environment(width: int) -> dict[str, str]:
    """Return the environment without the settings of anybody's real deployment."""
    ours = {name.upper() for name in Settings.model_fields} | {"DATABASE_DIRECT_URL"}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    return {**kept, "COLUMNS": str(width - FRAME), "PYTHONUNBUFFERED": "1"}


def run_shadow(
    record: Record, environment: Mapping[str, str], *arguments: str, code: int = 0, whole: bool = False
) -> None:
    """Run the command as a person would and show its output in a frame, the middle left out unless `whole`.

    Raises:
        Stopped: the exit code is not `code`.
    """
    command = f"shadow {shlex.join(arguments)}"
    record.console.print(Text.assemble("\n", (f"$ {command}", "bold")))
    done = subprocess.run(
        [SHADOW, *arguments], cwd=DATA, env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    log = log_of("demo")
    with log.open("a") as file:
        file.write(f"$ {command}\n{done.stdout}\n")
    lines = done.stdout.rstrip().splitlines()
    if not whole and len(lines) > HEAD + TAIL + 1:
        left_out = f"... {len(lines) - HEAD - TAIL} lines more, in {log.relative_to(ROOT)}"
        lines[HEAD:-TAIL] = [left_out]
    for line in lines:
        for piece in Text(line).wrap(record.console, record.console.width - FRAME) or [Text()]:
            piece.rstrip()
            record.console.print(Text.assemble(("  │ ", "dim"), piece))
    if done.returncode != code:
        raise Stopped(f"`{command}` ended with exit code {done.returncode}, not {code}; see above.")
    record.say(True, command, f"exit code {code}" + (", refused, as it must be" if code else ""))


def cut_over(record: Record, database: Database, environment: Mapping[str, str]) -> None:
    """Plan, retire, verify, drop, verify; then compare with what was there before."""
    before, keys = database.users(), database.foreign_keys()
    record.part("The cutover")
    accepted = ("--accept", "identities-not-exported")
    # the plan of the whole way is refused: it would lose passwords, and nobody has accepted that
    run_shadow(record, environment, "plan", code=REFUSED, whole=True)
    run_shadow(record, environment, "plan", "--to", "retire", whole=True)
    run_shadow(record, environment, "migrate", "--to", "retire", "--yes")
    run_shadow(record, environment, "verify")
    run_shadow(record, environment, "migrate", "--to", "drop", "--yes", *accepted)
    run_shadow(record, environment, "verify")

    def rows_are_the_same() -> str:
        after = database.users()
        columns = set(next(iter(before.values()))) & set(next(iter(after.values())))
        if not {"id", "email", "name", "created_at"} <= columns or set(after) != set(before):
            raise Unmet(f"{len(before)} users before, {len(after)} after, with {', '.join(sorted(columns))}")
        if changed := [id for id, row in before.items() if any(after[id][column] != row[column] for column in columns)]:
            raise Unmet(f"{len(changed)} rows differ, {changed[0]} for one")
        return f"{len(after)} rows, {len(columns)} columns each, compared one by one"

    def keys_are_the_same() -> str:
        now = database.foreign_keys()
        if now != keys:
            raise Unmet(f"lost {sorted(keys - now)}, new {sorted(now - keys)}")
        return f"{len(now)} compared one by one: table, name, definition, validity"

    def secrets_are_gone() -> str:
        tables = {row["name"] for row in database.ask("SELECT relname AS name FROM pg_class")}
        if left := sorted(GONE & tables):
            raise Unmet(f"still there: {', '.join(left)}")
        return "no " + ", ".join(sorted(GONE))

    record.console.print()
    record.step("Every user is who they were", rows_are_the_same)
    record.step("Every foreign key to users still stands", keys_are_the_same)
    record.step("Passwords, sessions and second factors are gone", secrets_are_gone)


@contextmanager
def serving(record: Record, database: Database, processes: Processes) -> Iterator[Client]:
    """Start provider and server, wait until they are ready, and give a client of both."""
    record.part("The provider and the server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    audience = f"http://127.0.0.1:{port}"
    script = str(ROOT / "scripts" / "dev_idp.py")
    provider = processes.start("dev_idp", [sys.executable, script, "--audience", audience, "--until-stdin-closes"])
    word, _, issuer = (provider.stdout.readline() if provider.stdout else "").strip().partition(" ")
    if word != "ready":
        provider.wait()
        processes.must_run()
    record.say(True, "The provider is ready", f"{issuer}, log in {log_of('dev_idp').relative_to(ROOT)}")
    processes.start(
        "server", [SHADOW, "serve", "--host", "127.0.0.1", "--port", str(port)],
        DATABASE_URL=database.url, IDP_ISSUER=issuer, IDP_AUDIENCE=audience,
    )  # fmt: skip
    limits = httpx.Limits(max_connections=CROWD)
    with (
        httpx.Client(base_url=audience, timeout=30, limits=limits, trust_env=False) as api,
        httpx.Client(base_url=issuer, timeout=10, trust_env=False) as idp,
    ):
        wait_until_ready(api, processes)
        record.say(True, "The server is ready", f"{audience}, log in {log_of('server').relative_to(ROOT)}")
        yield Client(api, idp, database)


def wait_until_ready(api: httpx.Client, processes: Processes, seconds: float = 30) -> None:
    """Return once /readyz answers 200.

    Raises:
        Stopped: a process ended, or it takes longer than `seconds`.
    """
    until, seen = time.monotonic() + seconds, "nothing"
    while time.monotonic() < until:
        processes.must_run()
        try:
            answer = api.get("/readyz")
        except httpx.TransportError as error:
            seen = str(error)
        else:
            if answer.status_code == 200:
                return
            seen = f"{answer.status_code} {answer.text}"
        time.sleep(0.1)
    raise Stopped(f"The server was not ready within {seconds:.0f} s; /readyz said {seen}. See {log_of('server')}.")


def stay(record: Record, client: Client, processes: Processes) -> None:
    """Print what can be tried, and wait for Ctrl-C."""
    token = client.token("you", alg="EdDSA", expiresIn=3600, claims={"email": "you@example.com", "name": "You"})
    me, header = f"{client.api.base_url}".rstrip("/") + "/me", f"-H 'Authorization: Bearer {token}'"
    kind = "-H 'Content-Type: application/json'"
    mint = f"{client.idp.base_url}".rstrip("/") + "/dev/token"
    asked = '{"sub": "you", "expiresIn": 3600, "claims": {"email": "you@example.com", "name": "You"}}'
    record.part("Try it: the token is good for an hour, Ctrl-C ends provider, server and database")
    for title, line in (
        ("Who am I", f"curl -i {me} {header}"),
        ("Set what the app owns", f"curl -i -X PATCH {me} {header} {kind} -d '{{\"onboardingCompletedAt\": null}}'"),
        ("Delete me", f"curl -i -X DELETE {me} {header}"),
        ("Another token, for any sub", f"curl -s {mint} {kind} -d '{asked}'"),
    ):
        record.console.print(Text.assemble("\n", (f"# {title}", "dim")))
        record.console.print(Text(line), soft_wrap=True)
    while True:
        processes.must_run()
        time.sleep(0.5)


@contextmanager
def alone() -> Iterator[None]:
    """Hold `.data/demo.lock`: a second demonstration would drop the database under the first.

    Raises:
        Stopped: another one is running.
    """
    DATA.mkdir(exist_ok=True)
    with (DATA / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stopped("Another demonstration is running in this folder (make run?); end it first.") from None
        yield


def show(record: Record, processes: Processes, environment: dict[str, str], *, staying: bool) -> bool:
    """Go the whole way; return whether all of it held."""
    log_of("demo").write_text("")
    record.part("The database")
    database = Database(programs(), start(DATA / "postgres"))
    version = database.psql(database.server, "-c", "SHOW server_version")
    record.say(True, "The embedded PostgreSQL is up", f"{version}, data below {DATA.relative_to(ROOT)}/postgres")
    database.load(FIXTURES / "plural_snake.sql")
    counts = database.ask("SELECT (SELECT count(*) FROM users) AS users, (SELECT count(*) FROM sessions) AS sessions")
    made = f"{counts[0]['users']} users, {counts[0]['sessions']} sessions"
    record.say(True, "The database `demo` is as Better Auth made it", made)
    environment["DATABASE_URL"] = database.url
    cut_over(record, database, environment)
    with serving(record, database, processes) as client:
        visit(record, client)
        held = record.table()
        if staying and held:
            stay(record, client, processes)
    return held


def main(stay: bool = False) -> int:
    """Run the demonstration; return 0 if all held, 1 if not, 130 after Ctrl-C.

    Args:
        stay: leave provider and server running until Ctrl-C.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    environment = clean_environment(console.width)
    processes = Processes(environment)
    try:
        with alone():
            return 0 if show(Record(console), processes, environment, staying=stay) else 1
    except (Stopped, DatabaseUnreachable, OSError) as error:
        console.print(Text.assemble(("\n✗ ", "bold red"), str(error)), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nEnded.")
        return 0 if stay else 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave processes behind
        processes.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show the whole way, from a Better Auth database to served requests.")
    parser.add_argument("--stay", action="store_true", help="leave provider and server running until Ctrl-C")
    sys.exit(main(parser.parse_args().stay))
