"""The arrows between the rooms, read from the imports: they go down only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"

ARROWS: dict[str, set[str]] = {
    "app.errors": set(),
    "app.embedded": {"app.errors"},
    "app.pooler": {"app.errors"},
    "app.db": {"app.errors", "app.pooler"},
    "app.settings": {"app.errors", "app.db"},
    "app.idp": {"app.errors", "app.idp"},
    "app.users": {"app.errors", "app.users", "app.db", "app.idp.claims", "app.idp.events", "app.idp.directory"},
    "app.api": {"app.errors", "app.api", "app.users", "app.idp", "app.db"},
    "app.cutover": {"app.cutover"},
}
"""What a room may import of `app`; asgi and cli may import everything."""
ONLY_IN: dict[str, set[str]] = {
    "litestar": {"app.api", "app.asgi"},
    "granian": {"app.api.run", "app.cli"},
    "jose": {"app.idp"},
    "pydantic_settings": {"app.settings"},
    "jinja2": {"app.cutover"},
    "rich": {"app.cli", "app.cutover"},
    "rich_click": {"app.cli"},
    "httpx": {"app.idp", "app.asgi", "app.cli", "app.settings"},  # there it only reads addresses
}
NOT_IN: dict[str, set[str]] = {
    "sqlalchemy": {"app.idp", "app.errors", "app.settings"},
    "asyncpg": {"app.idp", "app.errors", "app.settings", "app.cutover"},
}


def modules() -> list[Path]:
    return sorted(APP.rglob("*.py"))


def name(path: Path) -> str:
    parts = path.relative_to(APP.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Yield what a module imports, wherever in it; `from a import b` as `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            for alias in node.names:
                target = f"{node.module}.{alias.name}"
                is_module = (APP.parent / target.replace(".", "/")).with_suffix(".py").is_file()
                yield target if is_module else node.module


def below(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("path", modules(), ids=name)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    module = name(path)
    for room, allowed in ARROWS.items():
        if below(module, {room}):
            ours = {target for target in imports(path) if below(target, {"app"})}
            assert {target for target in ours if not below(target, allowed)} == set()


@pytest.mark.parametrize("path", modules(), ids=name)
def test_a_library_is_known_only_where_it_belongs(path: Path) -> None:
    module = name(path)
    for target in imports(path):
        library = target.partition(".")[0]
        assert below(module, ONLY_IN.get(library, {module})), f"{module} imports {library}"
        assert not below(module, NOT_IN.get(library, set())), f"{module} imports {library}"


def test_only_asgi_and_cli_read_settings() -> None:
    readers = {name(path) for path in modules() if any(below(target, {"app.settings"}) for target in imports(path))}
    assert readers <= {"app.asgi", "app.cli"}


def test_every_room_has_its_arrows() -> None:
    rooms = {f"app.{path.stem}" for path in APP.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"app.__init__"} == set(ARROWS) | {"app.asgi", "app.cli"}


def test_the_test_itself_sees_an_import(tmp_path: Path) -> None:
    module = tmp_path / "x.py"
    module.write_text("from app import db\nfrom app.idp.keys import RemoteKeySet\ndef f():\n    import litestar.di\n")
    assert list(imports(module)) == ["app.db", "app.idp.keys", "litestar.di"]
