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
from tests.cutover.commands import ACCEPTED, migrate, plan, shadow
from tests.cutover.witness import Witness
from tests.postgres import Server

PROJECT = Path(__file__).parent.parent
CUTOVER = PROJECT / "app" / "cutover"
DOCS = PROJECT / "docs"
FINDINGS, RUNBOOK = DOCS / "findings.md", DOCS / "cutover.md"
LEVELS = {"refuse", "warn", "info"}
CODE = re.compile(r"[a-z]+(-[a-z]+)+")
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


@cache
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
                if isinstance(node, ast.Tuple) and len(node.elts) == 4:
                    first, *rest = node.elts
                    # four names are no Fault, nor are four values that come from elsewhere
                    if isinstance(first, ast.Constant) and not all(isinstance(part, ast.Constant) for part in rest):
                        found.setdefault(str(first.value), set()).add("refuse")
    return {code: levels for code, levels in found.items() if code == EACH or not code.startswith(EACH[:-1])}


# ------------------------------------------------------------------------------------------ what the documentation says


@cache
def read(path: Path) -> str:
    return path.read_text()


def prose(path: Path) -> str:
    """Return a document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", read(path), flags=re.DOTALL | re.MULTILINE)


def blocks(path: Path, language: str) -> list[str]:
    """Return the blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(path), flags=re.DOTALL | re.MULTILINE)


def inline(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(path))


def sections() -> dict[str, str]:
    """Return the sections of findings.md by code, in their order."""
    _, *parts = re.split(r"^### (.+)$", read(FINDINGS), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def listed_kinds() -> list[str]:
    """Return the codes that the section about all of them lists."""
    return re.findall(r"^\| `(dependent-[a-z-]+)` \|", sections()[EACH], flags=re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)) if "://" not in link]


def commands(path: Path) -> list[list[str]]:
    """Return the commands of a document, as words: those of its consoles, and those it speaks of."""
    typed = [line[2:] for block in blocks(path, "console") for line in block.splitlines() if line.startswith("$ ")]
    typed += [text for text in inline(path) if re.match(r"(shadow|alembic) \S+ ", text)]
    found: list[list[str]] = []
    for line in typed:
        inner = re.findall(r"\$\((.*?)\)", line)
        for text in (re.sub(r"\$\(.*?\)", "...", line), *inner):
            lexer = shlex.shlex(text, posix=True, punctuation_chars="|&")
            lexer.whitespace_split = True
            command: list[str] = []
            for word in (*lexer, "&&"):
                if re.fullmatch(r"[|&]+", word):
                    found.append(command)
                    command = []
                else:
                    command.append(word)
    return found


PLACEHOLDER = re.compile(r"\b(CODE|ROLE|SCHEMA|TABLE|COLUMN|FIELD|OBJECT)\b")


def understood_by_shadow(words: list[str]) -> None:
    """Fail unless the command takes these words, as it would if it were called."""
    command, context = main.commands[words[0]], click.Context(main)
    with context:
        given = command.make_context(words[0], words[1:], parent=context).params
    names = ("accept", "keep", "detach", "release", "map")
    said = {name: [text for text in given.get(name, ()) if not PLACEHOLDER.search(text)] for name in names}
    decided(**said, compat_view=given.get("compat_view", False))


def understood_by_alembic(words: list[str]) -> None:
    """Fail unless Alembic takes these words, and our env.py what -x says."""
    with redirect_stderr(StringIO()) as complaint:
        try:
            given = CommandLine().parser.parse_args(words)
        except SystemExit:
            raise AssertionError(complaint.getvalue()) from None
    said: dict[str, list[str]] = {}
    for name, _, value in (text.partition("=") for text in given.x or ()):
        if name != "compat-view" and not PLACEHOLDER.search(value):
            said.setdefault(name, []).append(value)
    decided(**said)  # type: ignore[arg-type]  # a name that is none of its own is what is to fail
    if revision := getattr(given, "revision", None):
        assert set(revision.split(":")) <= {*REVISIONS.values(), "head", "base", "-1"}


def understood_by_postgresql(program: str, words: list[str]) -> None:
    """Fail unless a program of PostgreSQL's lists these options."""
    listed = subprocess.run([programs() / program, "--help"], capture_output=True, text=True, check=True).stdout
    for word in words:
        if word.startswith("-"):
            option = word if word.startswith("--") else word[:2]
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", listed), word


OTHERS = {"curl", "jq", "python3", "pip", "export", "."}
"""Programs that a reader has, whose words are not looked at."""


# --------------------------------------------------------------------------------------------------------- the findings


class TestReadingTheCode:
    """What the tests below rely on: codes of every way in which the source writes them."""

    @pytest.mark.parametrize(
        ("code", "levels"),
        [
            ("schema-missing", {"refuse"}),
            ("email-missing", {"refuse", "warn"}),  # a level that depends
            ("index-spans-column", {"warn"}),  # a code that depends, and its level with it
            ("constraint-spans-column", {"refuse"}),
            ("identities-not-exported", {"refuse", "warn"}),  # a level that is a parameter
            ("role-ambiguous", {"refuse"}),  # a Doubt
            ("column-type", {"refuse"}),  # a Fault
            ("drop-is-final", {"refuse"}),  # a constant
            (EACH, {"refuse"}),  # a code made from a kind
        ],
    )
    def test_a_code_is_found_with_its_levels(self, code: str, levels: set[str]) -> None:
        assert given()[code] == levels

    def test_nothing_else_is_taken_for_one(self) -> None:
        assert [code for code in given() if code != EACH and not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)] == []
        assert "bigint" not in given()
        assert {level for levels in given().values() for level in levels} == LEVELS


class TestFindings:
    def test_every_code_that_can_be_given_has_its_section_and_no_other_has(self) -> None:
        assert list(sections()) == sorted(given())

    @pytest.mark.parametrize("code", sorted(given()))
    def test_a_section_says_at_which_levels_it_is_given(self, code: str) -> None:
        found = re.match(r"\n\nLevel: (.+)\n", sections()[code])
        assert found, "a section begins with its level"
        assert LEVELS & set(re.findall(r"\w+", found[1])) == given()[code]

    @pytest.mark.parametrize("code", sorted(given()))
    def test_a_section_has_the_problem_the_solution_and_how_to_override_it(self, code: str) -> None:
        parts = re.findall(
            r"^\*\*(Problem|Solution|How to override)\*\*(?: \S|\n\n```)", sections()[code], flags=re.MULTILINE
        )
        assert parts == ["Problem", "Solution", "How to override"]

    @pytest.mark.parametrize("code", sorted(given()))
    def test_a_section_says_truly_whether_it_can_be_overruled(self, code: str) -> None:
        override = sections()[code].partition("**How to override** ")[2]
        assert (f"--accept {code}`" in override) == (code in ACCEPTABLE)
        if "refuse" in given()[code]:
            assert override.startswith(("Cannot be overruled", "`--"))
        else:
            assert override.startswith("It stops nothing")

    def test_the_table_of_contents_leads_to_each_section_once(self) -> None:
        contents = read(FINDINGS).partition("\n### ")[0]
        assert sorted(re.findall(r"\[([a-z*-]+)\]\(#", contents)) == sorted(given())

    def test_the_codes_that_can_be_accepted_are_said_at_the_top(self) -> None:
        top = read(FINDINGS).partition("\n| about |")[0].partition("can be accepted:")[2]
        assert {text for text in re.findall(r"`([a-z-]+)`", top) if CODE.fullmatch(text)} == ACCEPTABLE


# ---------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("path", [*sorted(DOCS.glob("*.md")), PROJECT / "README.md"], ids=lambda path: path.name)
class TestEveryDocument:
    def test_its_links_lead_somewhere(self, path: Path) -> None:
        for link in links(path):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link

    def test_every_block_of_code_ends(self, path: Path) -> None:
        assert len(re.findall(r"^```", read(path), flags=re.MULTILINE)) % 2 == 0


@pytest.mark.parametrize("path", [FINDINGS, RUNBOOK], ids=lambda path: path.name)
class TestCommands:
    def test_every_command_is_one_with_these_options(self, path: Path) -> None:
        for program, *words in commands(path):
            if program == "shadow":
                understood_by_shadow(words)
            elif program == "alembic":
                understood_by_alembic(words)
            elif (programs() / program).is_file():
                understood_by_postgresql(program, words)
            else:
                assert program in OTHERS

    def test_every_option_that_is_spoken_of_exists(self, path: Path) -> None:
        known = {name for command in main.commands.values() for each in command.params for name in each.opts}
        for text in inline(path):
            if text.startswith("--"):
                option, *values = shlex.split(text)
                assert option in known | {"--sql"}  # which is Alembic's
                if values:
                    understood_by_shadow(["plan", option, *values])

    def test_every_code_that_is_spoken_of_can_be_given(self, path: Path) -> None:
        assert {text for text in inline(path) if CODE.fullmatch(text)} <= {*given(), *listed_kinds()}


class TestTheCommandsThatAreTested:
    """What must not be understood, or the tests above would say nothing."""

    @pytest.mark.parametrize(
        "words", [["plan", "--to", "nowhere"], ["plan", "--fast"], ["migrate"], ["undo", "--accept", "everything"]]
    )
    def test_what_shadow_does_not_take(self, words: list[str]) -> None:
        with pytest.raises((click.UsageError, ValueError)):
            understood_by_shadow(words)

    @pytest.mark.parametrize(
        "words", [["upgrade"], ["upgrade", "0004_next"], ["-x", "acept=function-body", "upgrade", "head"]]
    )
    def test_what_alembic_does_not_take(self, words: list[str]) -> None:
        with pytest.raises((AssertionError, TypeError)):
            understood_by_alembic(words)

    def test_what_pg_dump_does_not_take(self) -> None:
        with pytest.raises(AssertionError):
            understood_by_postgresql("pg_dump", ["--fast"])

    def test_both_documents_have_some(self) -> None:
        assert len(commands(RUNBOOK)) > 30
        assert len(commands(FINDINGS)) >= 3


# ----------------------------------------------------------------------------------------------- asked of a database


OBJECTS = {
    "view": "CREATE VIEW online AS SELECT user_id FROM sessions",
    "materialized view": "CREATE MATERIALIZED VIEW providers AS SELECT provider_id FROM accounts",
    "rule": "CREATE RULE signed_out AS ON DELETE TO push_tokens DO ALSO DELETE FROM sessions",
    "trigger": "CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER told BEFORE UPDATE OF status ON users FOR EACH ROW EXECUTE FUNCTION quiet()",
    "policy": "CREATE POLICY signed_in ON files USING (owner_id IN (SELECT user_id FROM sessions))",
    "function": "CREATE FUNCTION live(sessions) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "procedure": "CREATE PROCEDURE purge() BEGIN ATOMIC DELETE FROM sessions; END",
    "aggregate": "CREATE AGGREGATE every(sessions) (sfunc = array_append, stype = sessions[])",
    "default value": "ALTER TABLE users ADD locked boolean GENERATED ALWAYS AS (failed_login_attempts > 5) STORED",
    "statistics object": "CREATE STATISTICS by_status ON status, locked_until FROM users",
    "publication relation": "CREATE PUBLICATION narrow FOR TABLE users (id, status)",
    "table": "CREATE TABLE old_sessions () INHERITS (sessions)",
    "foreign table": "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;"
    "CREATE FOREIGN TABLE far () INHERITS (verifications) SERVER files OPTIONS (filename '/dev/null')",
    "table column": "CREATE TABLE revoked (was sessions)",
    "composite type column": "CREATE TYPE pair AS (first sessions, second sessions)",
    "type": "CREATE DOMAIN good AS sessions",
    "domain constraint": "CREATE DOMAIN known AS users; ALTER DOMAIN known ADD CHECK ((value).status <> 'none')",
    "table constraint": "CREATE TABLE seen (was users CHECK ((was).status <> 'none'))",
}
"""One of each kind of object that may depend on what goes, and how it came to be."""


class TestKinds:
    def test_a_code_is_listed_for_each_kind_and_no_other(
        self, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        database = Witness(server, make_database("plural_snake"))
        there = {kind for kind in OBJECTS if kind != "foreign table"}
        if database.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'file_fdw'"):
            there.add("foreign table")
        database.run(";".join(OBJECTS[kind] for kind in OBJECTS if kind in there))
        codes = {found["code"] for found in plan(database.url, "retire").json["findings"]}
        expected = {kind: f"dependent-{kind.replace(' ', '-')}" for kind in OBJECTS}
        assert {code for code in codes if code.startswith(EACH[:-1])} == {expected[kind] for kind in there}
        assert sorted(listed_kinds()) == sorted(expected.values())


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestQueries:
    @pytest.mark.parametrize("path", [FINDINGS, RUNBOOK], ids=lambda path: path.name)
    def test_all_sql_is_sql(self, server: Server, make_database: Callable[[str | None], str], path: Path) -> None:
        """PL/pgSQL reads what is in a function when it is made, and looks up no name before it is called."""
        url = make_database(None)
        for number, block in enumerate(blocks(path, "sql")):
            block = re.sub(r"^(BEGIN|COMMIT);$", "", block, flags=re.MULTILINE)  # a function is in a transaction
            server.psql(
                url,
                f"CREATE FUNCTION f{number}() RETURNS void LANGUAGE plpgsql AS $sql$ BEGIN\n{block}\nEND $sql$",
            )

    def test_what_the_runbook_asks_can_be_asked_after_adopt(
        self, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        url = make_database("kysely_singular")
        assert migrate(url, "adopt").code == 0
        database = url.partition("?")[0].rpartition("/")[2]
        roles = {name: f"{name}_of_{database}" for name in ("app_owner", "deploy", "the_server")}
        server.execute(*(f"CREATE ROLE {role}" for role in roles.values()))
        names = {**roles, "DATABASE app": f"DATABASE {database}"}
        for block in blocks(RUNBOOK, "sql"):
            for name, other in names.items():
                block = block.replace(name, other)
            server.psql(url, f"BEGIN;\n{block}\nROLLBACK;")
        server.execute(*(f"DROP ROLE {role}" for role in roles.values()))


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestWhatTheRunbookPromises:
    def test_the_dump_of_what_was_retired_is_a_way_back_after_drop(
        self, server: Server, make_database: Callable[[str | None], str], tmp_path: Path
    ) -> None:
        database = Witness(server, make_database("plural_snake"))
        assert migrate(database.url, "adopt").code == 0
        before = database.portrait()
        assert migrate(database.url, "retire").code == 0
        dump = tmp_path / "before-drop.dump"
        run(server.programs / "pg_dump", "-Fc", "-n", "retired_auth", "-f", dump, database.url)
        assert migrate(database.url, "drop", "--accept", ACCEPTED).code == 0
        run(server.programs / "pg_restore", "-d", database.url, dump)
        database.run(re.findall(r'-c "(UPDATE shadow_alembic_version .*)"$', read(RUNBOOK), flags=re.MULTILINE)[0])
        undone = shadow(database.url, "undo", "--yes")
        assert undone.code == 0, undone.text
        assert database.portrait() == before

    def test_a_copy_of_the_same_name_has_the_same_fingerprint(
        self, server: Server, make_database: Callable[[str | None], str], tmp_path: Path
    ) -> None:
        url = make_database("kysely_singular")
        fingerprint = plan(url, "retire").json["fingerprint"]
        dump = tmp_path / "app.dump"
        run(server.programs / "pg_dump", "-Fc", "-f", dump, url)
        name = url.partition("?")[0].rpartition("/")[2]
        server.drop_database(url)
        server.execute(f"CREATE DATABASE {name}")
        run(server.programs / "pg_restore", "-d", url, dump)
        assert plan(url, "retire").json["fingerprint"] == fingerprint
