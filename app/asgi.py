"""The server: what the process is made of.

    granian --interface asgi --factory app.asgi:create_app
    litestar --app app.asgi:create_app run

The promise: importing this does nothing, `create_app` only puts the parts together, and what it opens at start-up it
closes at shutdown. It starts without database and provider; /readyz says what is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

import httpx
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.middleware import DefineMiddleware
from litestar.types import ControllerRouterHandler
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import embedded
from app.api.auth import Authentication, provide_principal
from app.api.challenge import Challenge, Resource
from app.api.document import openapi_config
from app.api.health import HealthController, Parts
from app.api.logs import Logs
from app.api.me import MeController, Profile, provide_user
from app.api.metadata import Metadata
from app.api.problems import Problems, StrictRequest
from app.api.run import GranianRun
from app.cutover.beside import beside_schema
from app.db import create_engine, search_path
from app.errors import KeysUnavailable, SettingsError
from app.idp.claims import ClaimRules
from app.idp.keys import RemoteKeySet
from app.idp.tokens import TokenVerifier
from app.settings import Settings, load
from app.users.identity import ShadowRules

_log = logging.getLogger(__name__)
LARGEST_BODY = 65_536
"""Octets; the bodies here are small."""
POOL = 10
"""Connections a worker keeps to the database."""
POOL_WAIT = 30.0
"""Seconds a request waits for one of them before it is answered with 503."""


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
        SettingsError: the settings ask for what is not served.
        SystemExit: the settings that were read are at fault; every fault is in it, and a command line shows no more.
    """
    if settings is None:
        try:
            return create_app(load(Settings), routes=routes, client=client)
        except SettingsError as error:
            raise SystemExit(str(error)) from None
    check_mode(settings)
    client = client or httpx.AsyncClient()
    keys = RemoteKeySet(
        issuers=settings.idp_issuer,
        jwks_url=settings.idp_jwks_url,
        algorithms=settings.idp_algorithms,
        client=client,
    )
    verifier = TokenVerifier(
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
    counts: Counter[str] = Counter()
    profile = Profile(
        rules=ShadowRules(
            app_owned=frozenset(settings.app_owned_fields),
            provision_machines=settings.provision_machine_tokens,
            observe=lambda lost: counts.update([type(lost).__name__]),
        ),
        account_url=settings.idp_account_url,
    )
    resource = Resource(public_url=settings.public_url, path_prefix=settings.path_prefix)
    metadata = Metadata(resource=resource, issuers=settings.idp_issuer, scopes=settings.required_scope)

    def provide_database(state: State) -> AsyncEngine:
        engine: AsyncEngine = state.database
        return engine

    def provide_parts(database: NamedDependency[AsyncEngine]) -> Parts:
        return Parts(database, keys)

    @asynccontextmanager
    async def database(app: Litestar) -> AsyncIterator[None]:
        app.state.database = engine = open_database(settings)
        for name in ("idp_userinfo_url", "idp_webhook_secret"):
            if getattr(settings, name):
                _log.warning("%s is set, and this version does not use it yet", name.upper())
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
            await first

    return Litestar(
        route_handlers=[
            Router(settings.path_prefix or "/", route_handlers=[MeController, HealthController, *routes]),
            metadata.route(),
        ],
        middleware=[DefineMiddleware(Authentication, verifier=verifier)],
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
        plugins=[GranianRun()],
        openapi_config=openapi_config(settings.path_prefix, version("shadow-users")),
        request_class=StrictRequest,
        request_max_body_size=LARGEST_BODY,
        state=State({"counts": counts}),
    )


def open_database(settings: Settings) -> AsyncEngine:
    """Return the engine, on the embedded server if no other is set; nothing is connected yet.

    Raises:
        DatabaseUnreachable: the embedded server does not start.
    """
    url = settings.database_url.get_secret_value() if settings.database_url else embedded.start()
    engine = create_engine(
        url,
        server_settings=served_from(settings.database_schema),
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=POOL_WAIT,
        pool_recycle=1_800,
        hide_parameters=True,  # errors are logged, and parameters hold addresses
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def served_from(schema: str) -> dict[str, str]:
    """Return the run-time parameters of the server's connections, by which they find and read `users`.

    Beside an old app whose own table has that name, the view that the server reads is in a schema of its own; and
    columns without a time zone are written and compared in the connection's, and hold UTC.
    """
    return {
        "search_path": search_path(beside_schema(schema), schema),
        "TimeZone": "UTC",
        "application_name": "shadow-users",
    }


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """Make the pool replace a connection that the server has closed; unlike a ping this costs no round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def check_mode(settings: Settings) -> None:
    """Refuse what this version does not serve.

    Raises:
        SettingsError: AUTH_MODE is not idp.
    """
    if settings.auth_mode != "idp":
        raise SettingsError((f"AUTH_MODE: {settings.auth_mode} is not served by this version; it must be idp.",))


async def _fetch_once(keys: RemoteKeySet) -> None:
    """Have the keys before the first request, if the provider is there; the key set logs it if not."""
    with suppress(KeysUnavailable):
        await keys.ensure()
