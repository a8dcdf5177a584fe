"""GET /metrics: what the server has counted, in the text format of Prometheus.

    shadow_http_requests_total     method, route, status
    shadow_http_request_seconds    method, route; a histogram, to the last octet of the answer
    shadow_tokens_total            verdict: accepted, or the code of the error
    shadow_rows_total              change: made, refreshed, conflict (an address that two users had)
    shadow_webhooks_total          outcome
    shadow_userinfo_total          outcome: found, silent, failed
    shadow_key_set_state           state: 1 for the one the provider's keys are in

Where PROMETHEUS_MULTIPROC_DIR names a folder the processes of a server count together, and any of them answers for all;
the key set is that of the process that answers.

The promise: a label has few values whatever is sent, for a route is its template and an unknown method is `other`; no
label holds anything of a user; and what is counted costs a request microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Literal, cast

from litestar import Response, get
from litestar.datastructures import CacheControlHeader
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth import PUBLIC, Verifier
from app.api.problems import answers
from app.errors import ShadowError
from app.idp.claims import Claims
from app.idp.keys import KeySetState

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

Counted = Literal["tokens", "rows", "webhooks", "userinfo"]
_LABELS: dict[Counted, tuple[str, str]] = {
    "tokens": ("verdict", "Access tokens that were presented"),
    "rows": ("change", "Changes of users rows by what the provider stated"),
    "webhooks": ("outcome", "Webhooks that were delivered"),
    "userinfo": ("outcome", "Requests to the provider's userinfo endpoint"),
}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds. A warm GET /me is in the first."""
_UNMATCHED = "unmatched"
"""The route of a request that none was found for: its path is the client's own invention."""
_EXPOSITION = "text/plain"


class Metrics:
    """What one server counts.

    Args:
        key_set_state: where the provider's keys stand now.
    """

    def __init__(self, key_set_state: Callable[[], KeySetState]) -> None:
        # The library decides while it is imported whether processes count together: what starts them imports this
        # module first, and names the folder then.
        from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
        from prometheus_client.multiprocess import MultiProcessCollector

        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of when it was first counted
        together = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        counting = CollectorRegistry()
        self._registry = CollectorRegistry() if together else counting
        self._requests: Counter = Counter(
            "shadow_http_requests", "Requests", ["method", "route", "status"], registry=counting
        )
        self._seconds: Histogram = Histogram(
            "shadow_http_request_seconds", "Time to answer", ["method", "route"], registry=counting, buckets=_BUCKETS
        )
        self._counters = {
            name: Counter(f"shadow_{name}", help_, [label], registry=counting)
            for name, (label, help_) in _LABELS.items()
        }
        if together:
            MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self._registry.register(cast("Collector", _KeySet(key_set_state)))
        self._of_requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, name: Counted, value: str) -> None:
        """Count something that happened: `count("webhooks", "applied")`. The values must be few."""
        self._counters[name].labels(value).inc()

    def counting(self, name: Counted) -> Callable[[str], None]:
        """Return `count` for one name, for rooms that know nothing of metrics."""
        return lambda value: self.count(name, value)

    def verifying(self, verifier: Verifier) -> Verifier:
        """Return a verifier whose verdicts are counted."""
        return _Counting(verifier, self.counting("tokens"))

    def measuring(self, app: ASGIApp) -> ASGIApp:
        """Return the app with its requests counted and timed."""

        async def measured(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != ScopeType.HTTP:
                await app(scope, receive, send)
                return
            status = 500

            def watch(message: Message) -> Awaitable[None]:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                return send(message)

            started = perf_counter()
            try:
                await app(scope, receive, watch)
            finally:
                self._measure(scope["method"], scope.get("path_template"), status, perf_counter() - started)

        return measured

    def _measure(self, method: str, route: str | None, status: int, seconds: float) -> None:
        key = (method if method in _METHODS else "other", route or _UNMATCHED, status)
        found = self._of_requests.get(key)
        if found is None:
            found = self._requests.labels(*key), self._seconds.labels(*key[:2])
            self._of_requests[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """Return everything in the text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def route(self) -> HTTPRouteHandler:
        """Return the route."""

        @get(
            "/metrics",
            summary="What the server has counted",
            tags=["Health"],
            media_type=_EXPOSITION,
            responses={
                200: ResponseSpec(
                    str,
                    generate_examples=False,
                    description="Every metric, in the text format of Prometheus",
                    media_type=_EXPOSITION,
                ),
                **answers(),
            },
            security=PUBLIC,
            exclude_from_auth=True,
            cache_control=CacheControlHeader(no_store=True),
            sync_to_thread=False,
        )
        def read() -> Response[bytes]:
            """Return what was counted since the server started, for Prometheus to fetch."""
            text, content_type = self.text()
            return Response(text, media_type=content_type)

        return read


class _Counting:
    """A verifier that counts what another one says."""

    def __init__(self, verifier: Verifier, count: Callable[[str], None]) -> None:
        self._verifier = verifier
        self._count = count

    async def verify(self, token: str) -> Claims:
        try:
            claims = await self._verifier.verify(token)
        except ShadowError as error:
            self._count(error.code)
            raise
        self._count("accepted")
        return claims


class _KeySet:
    """Tells where the key set stands when it is asked."""

    def __init__(self, state: Callable[[], KeySetState]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily("shadow_key_set_state", "Where the provider's keys stand", labels=["state"])
        now = self._state()
        for state in KeySetState:
            family.add_metric([state.value], float(state is now))
        yield family
