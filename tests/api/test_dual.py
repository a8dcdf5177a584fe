"""Who is asking, beside an old app: its cookie, its Bearer token, the provider's token, and which of them decides."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from litestar import Litestar, WebSocket, get, post, websocket
from litestar.di import NamedDependency

from app.api.auth import Principal
from app.api.guards import requires_role
from app.asgi import check_mode, create_app
from app.errors import SettingsError
from app.settings import Settings
from tests.api.conftest import Serve
from tests.api.provider import AUDIENCE, ISSUER, Provider
from tests.cutover.commands import migrate, shadow
from tests.cutover.witness import Witness
from tests.postgres import Server
from tests.serving import GRANIAN, environment, free_port

SECRET = "a secret of the old app, 32 characters"
TOKEN = "Wq3pVb0cYkz5sJ1nR7tXaLh2mD9fGe4u"
COOKIE = "better-auth.session_token"
HERE = {"Origin": "http://api.test"}


def signed(token: str = TOKEN, secret: str = SECRET) -> str:
    """Sign as Better Auth does."""
    mac = hmac.new(secret.encode(), token.encode(), hashlib.sha256).digest()
    return f"{token}.{base64.b64encode(mac).decode()}"


def cookie(value: str | None = None, name: str = COOKIE) -> dict[str, str]:
    """Return the header of a browser that has such a cookie: signed and encoded as Better Auth does, if not given."""
    return {"Cookie": f"theme=dark; {name}={quote(signed(), safe='') if value is None else value}; other=1"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ADOPTED = "adopted_with_ada"


@pytest.fixture
def adopted(server: Server, make_database: Callable[[str | None], str]) -> Witness:
    """A database that Better Auth made, after adopt; Ada has a session for an hour more."""
    if ADOPTED in server.templates:
        return Witness(server, make_database(ADOPTED), 'public."user"')
    witness = Witness(server, make_database("kysely_singular"), 'public."user"')
    witness.run(
        'INSERT INTO "user" (id, name, email, "emailVerified", role, "createdAt", "updatedAt") '
        "VALUES ('ada', 'Ada', 'ada@old.example', true, 'admin', now(), now());"
        'INSERT INTO session (id, token, "userId", "expiresAt", "createdAt", "updatedAt") '
        f"VALUES ('s1', '{TOKEN}', 'ada', now() + interval '1 hour', now(), now())"
    )
    outcome = migrate(witness.url, "adopt")
    assert outcome.code == 0, outcome.text
    server.keep_as_template(witness.url, ADOPTED)
    return witness


@get("/mine")
async def mine(principal: NamedDependency[Principal]) -> dict[str, object]:
    return {
        "sub": principal.sub,
        "kind": principal.kind,
        "roles": sorted(principal.roles),
        "scopes": sorted(principal.scopes),
        "permissions": dict(principal.permissions),
    }


@get("/admins", guards=[requires_role("admin")])
async def admins() -> str:
    return "come in"


@post("/change")
async def change() -> str:
    return "changed"


@websocket("/talk")
async def talk(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close()


async def opened(app: Litestar, headers: dict[str, str]) -> bool:
    """Tell whether a websocket at /talk was accepted."""
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect" if not said else "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        said.append(message["type"])

    scope: Any = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("api.test", 80),
        "client": ("192.0.2.1", 1),
        "root_path": "",
        "path": "/talk",
        "raw_path": b"/talk",
        "query_string": b"",
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in ({"Host": "api.test"} | headers).items()
        ],
        "subprotocols": [],
        "state": {},
        "extensions": {},
    }
    await app(scope, receive, send)
    return said[0] == "websocket.accept"


Dual = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def dual(serve: Serve, adopted: Witness) -> Dual:
    """Serve that database in dual mode, with some settings differing."""

    def serving(**settings: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        chosen = {"database_url": adopted.url, "auth_mode": "dual", "better_auth_secret": SECRET} | settings
        return serve(mine, admins, change, **chosen)

    return serving


@pytest.fixture
async def client(anyio_backend: object, dual: Dual) -> AsyncIterator[httpx.AsyncClient]:
    async with dual() as client:
        yield client


async def status(client: httpx.AsyncClient, headers: Any, method: str = "GET", path: str = "/me") -> tuple[int, str]:
    """Return the status, and who it is or the code of what is wrong."""
    answer = await client.request(method, path, headers=headers)
    if answer.status_code >= 300:
        return answer.status_code, answer.json()["code"]
    return answer.status_code, answer.json()["user"]["id"] if path == "/me" and method == "GET" else ""


INVALID = (401, "invalid_token")


@pytest.mark.anyio
class TestTheCookie:
    async def test_its_user_is_read_as_the_old_app_has_them(self, client: httpx.AsyncClient) -> None:
        user = (await client.get("/me", headers=cookie())).json()["user"]
        assert (user["id"], user["name"], user["email"]) == ("ada", "Ada", "ada@old.example")

    @pytest.mark.parametrize(
        "headers",
        [
            cookie(name=f"__Secure-{COOKIE}"),
            cookie(signed()),
            cookie(f'"{signed()}"'),
            {"Cookie": f"{COOKIE}={quote(signed(), safe='')};{COOKIE}=another"},
            {"Cookie": f"{COOKIE}=plain; __Secure-{COOKIE}={signed()}"},
            {"Cookie": f"x; ={COOKIE}; {COOKIE}  = {signed()}"},
        ],
    )
    async def test_it_counts_in_every_form_that_browsers_send(
        self, client: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        assert await status(client, headers) == (200, "ada")

    @pytest.mark.parametrize(
        "value",
        [
            TOKEN,
            f"{TOKEN}.",
            signed(secret="forged"),
            signed()[:-2] + "A=",
            signed("another token that nobody has"),
            quote(quote(signed(), safe=""), safe=""),
            "%FF.%FF",
            "%00",
            "a.b.c",
        ],
    )
    async def test_a_forged_one_is_refused(self, client: httpx.AsyncClient, value: str) -> None:
        assert await status(client, cookie(value)) == INVALID

    async def test_of_two_the_first_decides(self, client: httpx.AsyncClient) -> None:
        assert await status(client, {"Cookie": f"{COOKIE}=forged.x; {COOKIE}={signed()}"}) == INVALID
        assert await status(client, {"Cookie": f"__Secure-{COOKIE}=forged.x; {COOKIE}={signed()}"}) == INVALID

    async def test_other_cookies_are_no_credentials(self, client: httpx.AsyncClient) -> None:
        for header in ("theme=dark", f"x{COOKIE}={signed()}", f"{COOKIE}=", f"other.session_token={signed()}", COOKIE):
            assert await status(client, {"Cookie": header}) == (401, "missing_credentials")

    async def test_the_prefix_can_be_another(self, dual: Dual) -> None:
        async with dual(legacy_cookie_prefix="shop") as client:
            assert await status(client, cookie(name="shop.session_token")) == (200, "ada")
            assert await status(client, cookie(name="__Secure-shop.session_token")) == (200, "ada")
            assert await status(client, cookie()) == (401, "missing_credentials")

    async def test_a_token_that_is_signed_stays_in_no_answer(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/me", headers=cookie(signed("another token that nobody has")))
        assert "another" not in answer.text + str(answer.headers)

    @pytest.mark.parametrize(
        ("altered", "expected"),
        [
            ("UPDATE session SET \"expiresAt\" = now() - interval '1 s' WHERE id = 's1'", INVALID),
            ("DELETE FROM session WHERE id = 's1'", INVALID),
            ("UPDATE \"user\" SET banned = true WHERE id = 'ada'", (403, "account_disabled")),
            ("UPDATE \"user\" SET deleted_at = now() WHERE id = 'ada'", (403, "account_deleted")),
            ("UPDATE session SET \"impersonatedBy\" = 'someone' WHERE id = 's1'", (200, "ada")),
        ],
    )
    async def test_what_the_old_app_does_counts_at_once(
        self, client: httpx.AsyncClient, adopted: Witness, altered: str, expected: tuple[int, str]
    ) -> None:
        assert await status(client, cookie()) == (200, "ada")
        adopted.run(altered)
        assert await status(client, cookie()) == expected

    async def test_who_has_no_session_row_gets_none_made(self, client: httpx.AsyncClient, adopted: Witness) -> None:
        before = adopted.counts()
        await client.get("/me", headers=cookie())
        await client.get("/me", headers=cookie(signed("nobody's")))
        assert adopted.counts() == before


@pytest.mark.anyio
class TestWhatChangesSomething:
    @pytest.mark.parametrize(
        "headers",
        [
            HERE,
            {"Origin": "https://api.test"},
            {"Sec-Fetch-Site": "same-origin"},
            {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        ],
    )
    async def test_a_page_of_the_same_host_may(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        assert await status(client, cookie() | headers, "PATCH") == (422, "invalid_body")  # no body: it was read
        assert await status(client, cookie() | headers, "DELETE") == (200, "")

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "null"},
            {"Origin": "https://evil.example"},
            {"Origin": "https://api.test.evil.example"},
            {"Origin": "https://app.api.test"},
            {"Origin": "http://api.test:8080"},
            {"Origin": "http://api.test/"},
            {"Origin": "http://["},
            {"Origin": ""},
            {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "none"},
            {"Referer": "http://api.test/"},
        ],
    )
    async def test_anybody_else_may_not_and_changes_nothing(
        self, client: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        for method, path in (("PATCH", "/me"), ("DELETE", "/me"), ("POST", "/change")):
            assert await status(client, cookie() | headers, method, path) == (403, "foreign_origin")
        assert await status(client, cookie() | headers) == (200, "ada")

    async def test_with_a_public_url_the_origin_must_be_its(self, dual: Dual) -> None:
        async with dual(public_url="https://api.example/v1") as client:
            assert await status(client, cookie() | HERE, "POST", "/change") == (403, "foreign_origin")
            public = {"Origin": "https://api.example"}
            assert (await client.post("/change", headers=cookie() | public)).text == "changed"
            plain = {"Origin": "http://api.example"}
            assert await status(client, cookie() | plain, "POST", "/change") == (403, "foreign_origin")

    async def test_other_origins_can_be_trusted(self, dual: Dual) -> None:
        async with dual(legacy_trusted_origins="https://app.example,https://admin.example") as client:
            for origin, expected in (("https://admin.example", 201), (HERE["Origin"], 201), ("https://x.example", 403)):
                answer = await client.post("/change", headers=cookie() | {"Origin": origin})
                assert answer.status_code == expected

    async def test_a_websocket_is_opened_for_a_page_of_the_same_host_only(
        self, adopted: Witness, provider: Provider
    ) -> None:
        app = create_app(settings(adopted.url, log_format="json"), routes=[talk], client=provider.client())
        async with app.lifespan():
            assert await opened(app, cookie() | HERE)
            assert not await opened(app, cookie() | {"Origin": "https://evil.example"})
            assert not await opened(app, cookie())
            assert not await opened(app, HERE)
            assert await opened(app, bearer(TOKEN))

    async def test_a_bearer_token_needs_no_origin(self, client: httpx.AsyncClient, provider: Provider) -> None:
        foreign = {"Origin": "https://app.example"}
        for token in (TOKEN, provider.token()):
            assert (await client.post("/change", headers=bearer(token) | foreign)).text == "changed"


@pytest.mark.anyio
class TestTheSessionAsBearer:
    @pytest.mark.parametrize("token", [TOKEN, signed(), quote(signed(), safe="")])
    async def test_it_counts_plain_signed_and_encoded(self, client: httpx.AsyncClient, token: str) -> None:
        assert await status(client, bearer(token)) == (200, "ada")

    @pytest.mark.parametrize("token", [signed(secret="forged"), f"{TOKEN}.", f"{TOKEN}.x", "nobody's", "%00", "é", "."])
    async def test_a_forged_or_unknown_one_is_refused(self, client: httpx.AsyncClient, token: str) -> None:
        assert await status(client, {b"Authorization": f"Bearer {token}".encode("latin-1")}) == INVALID

    async def test_a_signature_can_be_demanded(self, dual: Dual) -> None:
        async with dual(legacy_bearer="signed") as client:
            assert await status(client, bearer(signed())) == (200, "ada")
            assert await status(client, bearer(TOKEN)) == INVALID

    async def test_it_can_be_refused_altogether(self, dual: Dual, provider: Provider) -> None:
        async with dual(legacy_bearer="off") as client:
            assert await status(client, bearer(signed())) == INVALID
            assert await status(client, bearer(TOKEN)) == INVALID
            assert await status(client, cookie()) == (200, "ada")
            assert await status(client, provider.bearer()) == (200, "ada")


@pytest.mark.anyio
class TestWhichDecides:
    async def test_a_token_of_the_provider_counts_as_ever(
        self, client: httpx.AsyncClient, provider: Provider, adopted: Witness
    ) -> None:
        assert await status(client, provider.bearer("new")) == (200, "new")
        assert adopted.value("SELECT email FROM \"user\" WHERE id = 'new'") == "new@example.com"

    async def test_a_bad_jwt_never_falls_through_to_the_sessions(
        self, client: httpx.AsyncClient, provider: Provider, adopted: Witness
    ) -> None:
        forged = provider.token()[:-8] + "AAAAAAAA"
        adopted.run("UPDATE session SET token = 'a.b.c' WHERE id = 's1'")
        for token in (forged, provider.token(exp=1), provider.token(aud="another"), "a.b.c", "..", f"{signed()}.x"):
            for headers in (bearer(token), bearer(token) | cookie()):
                assert await status(client, headers) == INVALID

    async def test_the_header_decides_where_there_is_a_cookie_too(
        self, client: httpx.AsyncClient, provider: Provider
    ) -> None:
        assert await status(client, provider.bearer("grace") | cookie()) == (200, "grace")
        assert await status(client, bearer(TOKEN) | cookie("forged.x")) == (200, "ada")
        assert await status(client, bearer("nobody's") | cookie()) == INVALID
        assert await status(client, {"Authorization": "Bearer"} | cookie()) == (400, "invalid_request")
        twice = [("Authorization", f"Bearer {TOKEN}")] * 2 + list(cookie().items())
        assert await status(client, twice) == (400, "invalid_request")

    async def test_a_header_of_another_scheme_is_none(self, client: httpx.AsyncClient) -> None:
        assert await status(client, {"Authorization": "Basic dTpw"} | cookie()) == (200, "ada")
        assert await status(client, {"Authorization": "Basic dTpw"}) == (401, "missing_credentials")

    async def test_nothing_at_all_gets_the_challenge(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/me")
        assert (answer.status_code, answer.json()["code"]) == (401, "missing_credentials")
        assert answer.headers["www-authenticate"].startswith('Bearer realm="api", resource_metadata=')

    async def test_sessions_count_while_the_provider_is_down(self, dual: Dual, provider: Provider) -> None:
        provider.down = True
        async with dual() as client:
            assert await status(client, cookie()) == (200, "ada")
            assert await status(client, bearer(TOKEN)) == (200, "ada")
            assert await status(client, provider.bearer()) == (503, "keys_unavailable")

    async def test_public_routes_are_public(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/livez", headers=cookie("forged.x"))).status_code == 200


@pytest.mark.anyio
class TestABan:
    async def test_counts_where_its_columns_are_kept(
        self, serve: Serve, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        witness = Witness(server, make_database("kysely_singular"), 'public."user"')
        witness.run(
            f'INSERT INTO session (id, token, "userId", "expiresAt", "createdAt", "updatedAt") SELECT \'s1\', '
            f"'{TOKEN}', (SELECT min(id) FROM \"user\"), now() + interval '1 hour', now(), now()"
        )
        keep = [f"--keep=users.{name}" for name in ("role", "banned", "banReason", "banExpires")]
        outcome = await asyncio.to_thread(migrate, witness.url, "adopt", *keep)
        assert outcome.code == 0, outcome.text
        witness.run("UPDATE \"user\" SET role = 'admin'")
        async with serve(mine, database_url=witness.url, auth_mode="dual", better_auth_secret=SECRET) as client:
            # the column is the app's own, and what it means too
            assert (await client.get("/mine", headers=cookie())).json()["roles"] == []
            witness.run('UPDATE "user" SET banned = true')
            assert await status(client, cookie()) == (403, "account_disabled")
            witness.run('UPDATE "user" SET "banExpires" = now() - interval \'1 s\'')
            assert (await status(client, cookie()))[0] == 200

    async def test_counts_where_the_plugin_came_after_adopt(
        self, serve: Serve, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        witness = Witness(server, make_database("soft_delete_singular"), 'public."user"')
        witness.run(
            f'INSERT INTO session (id, token, "userId", "expiresAt", "createdAt", "updatedAt") SELECT \'s1\', '
            f"'{TOKEN}', (SELECT min(id) FROM \"user\" WHERE \"deletedAt\" IS NULL), now() + interval '1 hour', now(), "
            "now()"
        )
        outcome = await asyncio.to_thread(migrate, witness.url, "adopt")
        assert outcome.code == 0, outcome.text
        witness.run('ALTER TABLE "user" ADD banned boolean')
        async with serve(database_url=witness.url, auth_mode="dual", better_auth_secret=SECRET) as client:
            assert (await status(client, cookie()))[0] == 200
            witness.run('UPDATE "user" SET banned = true')
            assert await status(client, cookie()) == (403, "account_disabled")


@pytest.mark.anyio
class TestThePrincipal:
    async def test_a_session_has_the_roles_of_the_old_app_and_nothing_else(self, client: httpx.AsyncClient) -> None:
        said = (await client.get("/mine", headers=cookie())).json()
        assert said == {"sub": "ada", "kind": "user", "roles": ["admin"], "scopes": [], "permissions": {}}
        assert (await client.get("/admins", headers=cookie())).text == "come in"

    async def test_without_the_role_a_guard_refuses(self, client: httpx.AsyncClient, adopted: Witness) -> None:
        adopted.run('UPDATE "user" SET role = NULL')
        assert await status(client, cookie(), path="/admins") == (403, "insufficient_scope")

    async def test_a_scope_that_every_token_must_have_is_not_asked_of_sessions(
        self, dual: Dual, provider: Provider
    ) -> None:
        async with dual(required_scope="app:use") as client:
            assert await status(client, cookie()) == (200, "ada")
            assert await status(client, provider.bearer()) == (403, "insufficient_scope")


@pytest.mark.anyio
class TestTheOtherModes:
    async def test_in_legacy_sessions_alone_count(self, dual: Dual, provider: Provider) -> None:
        async with dual(auth_mode="legacy") as client:
            assert await status(client, cookie()) == (200, "ada")
            assert await status(client, bearer(TOKEN)) == (200, "ada")
            assert await status(client, provider.bearer()) == INVALID
            assert await status(client, provider.bearer() | cookie()) == INVALID
            assert await status(client, {}) == (401, "missing_credentials")
            assert (await client.get("/me")).json()["detail"].startswith("A session of the app is needed")

    async def test_in_idp_tokens_alone_count(self, dual: Dual, provider: Provider) -> None:
        async with dual(auth_mode="idp", better_auth_secret=None) as client:
            assert await status(client, provider.bearer()) == (200, "ada")
            assert await status(client, bearer(TOKEN)) == INVALID
            assert await status(client, bearer(signed())) == INVALID
            assert await status(client, cookie()) == (401, "missing_credentials")
            assert await status(client, provider.bearer() | cookie("forged.x")) == (200, "ada")


def settings(url: str, mode: str = "dual", **more: Any) -> Settings:
    given: dict[str, Any] = {"idp_issuer": ISSUER, "idp_audience": AUDIENCE, "better_auth_secret": SECRET} | more
    return Settings(_env_file=None, database_url=url, auth_mode=mode, **given)


def refusal(url: str, mode: str = "dual", **more: Any) -> str:
    """Return the one sentence by which the server refuses to start."""
    with pytest.raises(SettingsError) as caught:
        check_mode(settings(url, mode, **more))
    (fault,) = caught.value.faults
    assert fault.startswith(f"AUTH_MODE: {mode} needs ")
    assert fault.endswith(".")
    assert "\n" not in fault
    assert "AUTH_MODE=idp" in fault
    return fault


class TestStart:
    def test_after_adopt_every_mode_starts(self, adopted: Witness) -> None:
        for mode in ("idp", "dual", "legacy"):
            check_mode(settings(adopted.url, mode))

    def test_before_adopt_it_says_to_adopt(self, server: Server, make_database: Callable[[str | None], str]) -> None:
        for fixture in ("kysely_singular", None):
            assert "`shadow migrate --to adopt`" in refusal(make_database(fixture), "legacy")

    def test_after_retire_it_says_so_and_after_undo_it_starts(self, adopted: Witness) -> None:
        assert migrate(adopted.url, "retire").code == 0
        assert all(part in refusal(adopted.url) for part in ("0002_retire", "`shadow undo`"))
        check_mode(settings(adopted.url, "idp"))
        assert shadow(adopted.url, "undo", "--yes").code == 0
        check_mode(settings(adopted.url))

    def test_after_drop_there_is_no_way_back(self, adopted: Witness) -> None:
        assert migrate(adopted.url, "drop", "--accept", "identities-not-exported").code == 0
        fault = refusal(adopted.url)
        assert "0003_drop" in fault
        assert "undo" not in fault

    def test_a_database_that_never_had_sessions_has_none(self, make_database: Callable[[str | None], str]) -> None:
        url = make_database(None)
        assert migrate(url, "adopt").code == 0
        assert "--map sessions=TABLE" in refusal(url)

    @pytest.mark.parametrize("fixture", ["uuid_kysely", "number_ids"])
    def test_ids_that_are_not_text_are_refused(self, make_database: Callable[[str | None], str], fixture: str) -> None:
        url = make_database(fixture)
        assert migrate(url, "adopt").code == 0
        fault = refusal(url)
        assert "ids are text" in fault
        assert "`shadow migrate --to retire`" in fault

    def test_a_column_that_went_since_is_named(self, adopted: Witness) -> None:
        adopted.run('ALTER TABLE session RENAME "expiresAt" TO "validUntil"')
        assert "expiresAt went from public.session" in refusal(adopted.url)

    def test_a_role_that_may_not_read_them_is_told_what_to_grant(self, adopted: Witness, server: Server) -> None:
        role = f"{adopted.name}_reader"
        server.execute(f"CREATE ROLE {role} LOGIN")
        url = adopted.seen_by(role)
        try:
            for table in ("shadow_alembic_version", "shadow_cutover", "session", '"user"'):
                assert f"permission denied for table {table.strip(chr(34))}. GRANT SELECT" in refusal(url)
                adopted.run(f"GRANT SELECT ON {table} TO {role}")
            check_mode(settings(url))
        finally:
            adopted.run(f"DROP OWNED BY {role}")
            server.execute(f"DROP ROLE {role}")

    def test_a_database_that_is_away_is_no_reason(self) -> None:
        check_mode(settings("postgresql://u:p@127.0.0.1:9/d"))

    @pytest.mark.anyio
    async def test_it_is_checked_from_within_a_loop_as_well(self, adopted: Witness) -> None:
        check_mode(settings(adopted.url))

    @pytest.mark.parametrize(
        "program", [GRANIAN, ("app.cli", "serve"), ("litestar", "--app", "app.asgi:create_app", "run")]
    )
    def test_a_process_ends_with_that_sentence_and_no_traceback(
        self, make_database: Callable[[str | None], str], tmp_path: Path, program: tuple[str, ...]
    ) -> None:
        command = [sys.executable, "-m", *program, "--host", "127.0.0.1", "--port", str(free_port())]
        given = environment(
            DATABASE_URL=make_database("kysely_singular"), IDP_ISSUER=ISSUER, IDP_AUDIENCE=AUDIENCE,
            AUTH_MODE="dual", BETTER_AUTH_SECRET=SECRET,
        )  # fmt: skip
        done = subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        said = " ".join((done.stdout + done.stderr).split())
        assert said.count("AUTH_MODE: dual needs what 0001_adopt adds.") == 1
        assert "Traceback" not in said
        assert SECRET not in said

    def test_the_embedded_server_is_not_left_running(self, folder: Path) -> None:
        here = folder / "refused"
        here.mkdir()
        command = [sys.executable, "-m", *GRANIAN, "--host", "127.0.0.1", "--port", str(free_port())]
        given = environment(IDP_ISSUER=ISSUER, IDP_AUDIENCE=AUDIENCE, AUTH_MODE="dual", BETTER_AUTH_SECRET=SECRET)
        done = subprocess.run(command, env=given, cwd=here, capture_output=True, text=True, timeout=60)
        assert "AUTH_MODE: dual needs what 0001_adopt adds." in done.stdout + done.stderr
        assert (here / ".data" / "postgres" / "PG_VERSION").is_file()
        assert not (here / ".data" / "postgres" / "postmaster.pid").exists()


@pytest.mark.anyio
class TestLater:
    async def test_a_database_that_comes_after_the_server_is_looked_into_then(
        self, provider: Provider, make_database: Callable[[str | None], str], adopted: Witness, server: Server
    ) -> None:
        away = f"{adopted.name}_away"
        server.execute(f"ALTER DATABASE {adopted.name} RENAME TO {away}")
        app = create_app(settings(adopted.url, log_format="json"), client=provider.client())
        async with (
            app.lifespan(),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.test") as client,
        ):
            assert await status(client, cookie()) == (503, "database_unavailable")
            assert await status(client, cookie("forged.x")) == INVALID
            server.execute(f"ALTER DATABASE {away} RENAME TO {adopted.name}")
            assert await status(client, cookie()) == (200, "ada")

    async def test_when_retire_comes_meanwhile_sessions_end_and_tokens_go_on(
        self, client: httpx.AsyncClient, provider: Provider, adopted: Witness
    ) -> None:
        assert await status(client, cookie()) == (200, "ada")
        assert (await asyncio.to_thread(migrate, adopted.url, "retire")).code == 0
        assert await status(client, cookie()) == INVALID
        assert await status(client, bearer(TOKEN)) == INVALID
        assert await status(client, provider.bearer()) == (200, "ada")
        assert (await asyncio.to_thread(shadow, adopted.url, "undo", "--yes")).code == 0
        assert await status(client, cookie()) == (200, "ada")


class TestSettings:
    def test_the_secret_is_required_where_sessions_count(self) -> None:
        for mode in ("dual", "legacy"):
            with pytest.raises(ValueError, match=f"it is required where AUTH_MODE is {mode}"):
                settings("postgresql://h/d", mode, better_auth_secret=None)
        settings("postgresql://h/d", "idp", better_auth_secret=None)

    def test_it_is_not_shown(self) -> None:
        from app.asgi import legacy_rules

        given = settings("postgresql://h/d")
        assert SECRET not in repr(given) + repr(legacy_rules(given))

    @pytest.mark.parametrize("prefix", ["", "__Secure-shop", "a b", "a=b", "a;b", "é"])
    def test_a_prefix_that_no_cookie_can_have_is_refused(self, prefix: str) -> None:
        with pytest.raises(ValueError, match="legacy_cookie_prefix"):
            settings("postgresql://h/d", legacy_cookie_prefix=prefix)

    @pytest.mark.parametrize(
        "origin", ["app.example", "https://app.example/", "https://app.example/x", "http://a.example", "*"]
    )
    def test_what_is_no_origin_cannot_be_trusted(self, origin: str) -> None:
        with pytest.raises(ValueError, match="legacy_trusted_origins"):
            settings("postgresql://h/d", legacy_trusted_origins=origin)
