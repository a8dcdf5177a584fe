"""The server: what the process is made of.

    granian --interface asgi --factory app.asgi:create_app
    litestar --app app.asgi:create_app run

The promise: importing this does nothing, `create_app` only puts the parts together, and what it opens at start-up it
closes at shutdown. It starts without database and provider; /readyz says what is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.middleware import DefineMiddleware
from litestar.types import ControllerRouterHandler
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import embedded
from app.api.auth import Authentication, provide_principal
from app.api.challenge import Challenge, Resource
from app.api.document import ClosedStructs, openapi_config
from app.api.health import HealthController, Parts
from app.api.legacy import DualAuthentication, LegacyRules
from app.api.logs import Logs
from app.api.me import MeController, Profile, provide_user
from app.api.metadata import Metadata
from app.api.methods import complete_methods
from app.api.metrics import Metrics
from app.api.problems import Problems, StrictRequest, is_database_down
from app.api.run import GranianRun
from app.api.webhooks import Webhooks
from app.cutover.beside import beside_schema
from app.cutover.sessions import NoSessions, locate
from app.db import INSUFFICIENT_PRIVILEGE, create_engine, search_path
from app.errors import KeysUnavailable, NotMigrated, SettingsError
from app.idp.claims import ClaimRules
from app.idp.events import EventReader
from app.idp.keys import RemoteKeySet
from app.idp.tokens import TokenVerifier
from app.idp.userinfo import Userinfo
from app.settings import Settings, load
from app.users.identity import ShadowRules
from app.users.legacy import LegacySessions, SessionFinder

_log = logging.getLogger(__name__)
LARGEST_BODY = 65_536
"""Octets; the bodies here are small."""
POOL = 10
"""Connections a worker keeps to the database."""
POOL_WAIT = 30.0
"""Seconds a request waits for one of them before it is answered with 503."""
LOOK = 5.0
"""Seconds that start-up waits for the database to say where the old sessions are."""
ANSWER = 5.0
"""Seconds that the answer to a statement may be late: beyond its timeout, with which the database itself ends it."""


def create_app(
    settings: Settings | None = None,
    *,
    routes: Sequence[ControllerRouterHandler] = (),
    client: httpx.AsyncClient | None = None,
) -> Litestar:
    """Return the server.

    Args:
        settings: None, as a command line calls it, reads them from the environment and `.env`.
        routes: the app's own, put below `PATH_PREFIX` and protected; `app.api` says what they can ask for.
        client: makes the requests to the provider, and is closed at shutdown.

    Raises:
        SystemExit: the settings that were read are at fault; every fault is in it, and a command line shows no more.
    """
    if settings is None:
        try:
            settings = load(Settings)
            check_mode(settings)
        except SettingsError as error:
            raise SystemExit(str(error)) from None
    # cookies of the provider's would be one user's, and go along when it is asked about another
    client = client or httpx.AsyncClient(cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())))
    keys = RemoteKeySet(
        issuers=settings.idp_issuer,
        jwks_url=settings.idp_jwks_url,
        algorithms=settings.idp_algorithms,
        client=client,
    )
    metrics = Metrics(lambda: keys.state)
    verifier = metrics.verifying(
        TokenVerifier(
            keys=keys,
            rules=ClaimRules(
                issuers=settings.idp_issuer,
                audiences=settings.idp_audience,
                leeway=settings.leeway_seconds,
                required_typ=settings.required_typ,
                required_scope=settings.required_scope,
                accept_id_tokens=settings.accept_id_tokens,
            ),
            algorithms=settings.idp_algorithms,
        )
    )
    userinfo = None
    if settings.idp_userinfo_url is not None:
        userinfo = Userinfo(url=settings.idp_userinfo_url, client=client, observe=metrics.counting("userinfo"))
    profile = Profile(
        rules=ShadowRules(
            app_owned=frozenset(settings.app_owned_fields),
            provision_machines=settings.provision_machine_tokens,
            observe=lambda _: metrics.count("rows", "conflict"),
            wrote=metrics.counting("rows"),
        ),
        account_url=settings.idp_account_url,
        userinfo=userinfo,
    )
    webhooks = []
    if settings.idp_webhook_secret:
        receiver = Webhooks(
            reader=EventReader(
                scheme=settings.idp_webhook_scheme,
                secrets=[secret.get_secret_value() for secret in settings.idp_webhook_secret],
            ),
            rules=profile.rules,
            on_deleted=settings.on_user_deleted,
            observe=metrics.counting("webhooks"),
        )
        webhooks.append(receiver.route())
    resource = Resource(public_url=settings.public_url, path_prefix=settings.path_prefix)
    metadata = Metadata(resource=resource, issuers=settings.idp_issuer, scopes=settings.required_scope)

    sessions = None if settings.auth_mode == "idp" else SessionFinder(partial(locate_sessions, settings))
    authentication = DefineMiddleware(Authentication, verifier=verifier)
    if sessions is not None:
        rules = legacy_rules(settings)
        authentication = DefineMiddleware(DualAuthentication, verifier=verifier, sessions=sessions, rules=rules)

    def provide_database(state: State) -> AsyncEngine:
        engine: AsyncEngine = state.database
        return engine

    def provide_parts(database: NamedDependency[AsyncEngine]) -> Parts:
        return Parts(database, keys)

    @asynccontextmanager
    async def database(app: Litestar) -> AsyncIterator[None]:
        app.state.database = engine = open_database(settings)
        if sessions is not None:
            await _prepare(sessions, engine)
        yield
        await engine.dispose()
        if settings.database_url is None:
            embedded.stop()

    @asynccontextmanager
    async def provider(_: Litestar) -> AsyncIterator[None]:
        async with client:
            first = asyncio.create_task(_fetch_once(keys))
            yield
            await keys.aclose()
            if userinfo is not None:
                await userinfo.aclose()
            await first

    app = Litestar(
        route_handlers=[
            Router(
                settings.path_prefix or "/",
                route_handlers=[MeController, HealthController, metrics.route(), *webhooks, *routes],
            ),
            metadata.route(),
        ],
        middleware=[authentication],
        dependencies={
            "principal": Provide(provide_principal, sync_to_thread=False),
            "user": Provide(provide_user),
            "database": Provide(provide_database, sync_to_thread=False),
            "profile": Provide(lambda: profile, sync_to_thread=False),
            "parts": Provide(provide_parts, sync_to_thread=False),
        },
        exception_handlers=Problems(Challenge(resource)).handlers(),
        lifespan=[database, provider],
        logging_config=Logs(format=settings.log_format, level=settings.log_level),
        plugins=[GranianRun(), ClosedStructs()],
        openapi_config=openapi_config(settings.path_prefix, version("shadow-users"), settings.public_url),
        request_class=StrictRequest,
        request_max_body_size=LARGEST_BODY,
        state=State({"metrics": metrics}),
    )
    # around the router itself, for Litestar's middleware sees nothing of requests that no route is found for
    app.asgi_handler = metrics.measuring(complete_methods(app))
    return app


def open_database(settings: Settings) -> AsyncEngine:
    """Return the engine, on the embedded server if no other is set; nothing is connected yet.

    Raises:
        DatabaseUnreachable: the embedded server does not start.
    """
    url = settings.database_url.get_secret_value() if settings.database_url else embedded.start()
    limit = settings.statement_timeout_seconds
    engine = create_engine(
        url,
        server_settings=served_from(settings.database_schema, limit),
        command_timeout=limit + ANSWER if limit else None,
        through_pooler=True,
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=POOL_WAIT,
        pool_recycle=1_800,
        hide_parameters=True,  # errors are logged, and parameters hold addresses
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def served_from(schema: str, statement_timeout: int = 0) -> dict[str, str]:
    """Return the run-time parameters of the server's connections, by which they find and read `users`.

    Beside an old app whose own table has that name, the view that the server reads is in a schema of its own; and
    columns without a time zone are written and compared in the connection's, and hold UTC.

    Args:
        schema: the one that holds `users`.
        statement_timeout: seconds that one statement may take; 0 leaves it to the database.
    """
    limit = {"statement_timeout": f"{statement_timeout}s"} if statement_timeout else {}
    return {
        "search_path": search_path(beside_schema(schema), schema),
        "TimeZone": "UTC",
        "application_name": "shadow-users",
        **limit,
    }


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """Make the pool replace a connection that the server has closed; unlike a ping this costs no round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def check_mode(settings: Settings) -> None:
    """Look whether the database has the old sessions, if they are to count. It waits for the database's answer.

    A database that cannot be reached is no reason: the server starts without it, and looks when it is there.

    Raises:
        SettingsError: AUTH_MODE asks for sessions that cannot be had.
    """
    if settings.auth_mode == "idp":
        return

    async def look() -> None:
        engine = open_database(settings)
        try:
            await _prepare(SessionFinder(partial(locate_sessions, settings)), engine)
        finally:
            await engine.dispose()

    # a loop of its own, for there may be one already: servers call create_app where they please
    with ThreadPoolExecutor(1) as apart:
        try:
            apart.submit(asyncio.run, look()).result()
        except NotMigrated as error:
            if settings.database_url is None:
                embedded.stop()  # a server's worker that ends at this leaves it to nobody
            raise SettingsError((error.message,)) from None


async def locate_sessions(settings: Settings, engine: AsyncEngine) -> LegacySessions:
    """Return where the old app's sessions are, once it is certain that they can be read.

    Raises:
        NotMigrated: they cannot be had; the message names the setting, why, and what to type.
    """
    subject = f"AUTH_MODE: {settings.auth_mode}"
    try:
        async with engine.connect() as connection:
            found = LegacySessions(**await connection.run_sync(locate, settings.database_schema))
            await connection.exec_driver_sql(found.query(), ("",))
            return found
    except NoSessions as error:
        raise NotMigrated(f"{subject} {error}.") from None
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
            raise
        said = str(error.orig).rpartition(": ")[2]
        raise NotMigrated(
            f"{subject} needs to read the cutover's journal and the old sessions: {said}. GRANT SELECT on it to the "
            "role of DATABASE_URL, or set AUTH_MODE=idp."
        ) from None


def legacy_rules(settings: Settings) -> LegacyRules:
    """Return what the settings decide about the old sessions."""
    public = urlsplit(settings.public_url) if settings.public_url else None
    return LegacyRules(
        secret=settings.better_auth_secret.get_secret_value() if settings.better_auth_secret else "",
        tokens=settings.auth_mode == "dual",
        cookie_prefix=settings.legacy_cookie_prefix,
        bearer=settings.legacy_bearer,
        public_origin=f"{public.scheme}://{public.netloc}" if public else None,
        trusted_origins=frozenset(settings.legacy_trusted_origins),
    )


async def _prepare(sessions: SessionFinder, engine: AsyncEngine) -> None:
    """Know where the sessions are before the first request, if the database is there.

    Raises:
        NotMigrated: they cannot be had.
    """
    try:
        async with asyncio.timeout(LOOK):
            await sessions.prepare(engine)
    except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if not is_database_down(error):
            raise
        _log.warning("where the old sessions are is not known yet: the database cannot be reached")


async def _fetch_once(keys: RemoteKeySet) -> None:
    """Have the keys before the first request, if the provider is there; the key set logs it if not."""
    with suppress(KeysUnavailable):
        await keys.ensure()
