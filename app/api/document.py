"""The OpenAPI document at /schema/openapi.json and .yaml, and at /schema a page to try the API in.

The page is Swagger UI, which the browser fetches from a public CDN; the document itself comes from here alone.
"""

from __future__ import annotations

from litestar import Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin, YamlRenderPlugin

from app.api.auth import SECURITY_SCHEME, security_components

SWAGGER_UI = "5.18.2"


def openapi_config(path_prefix: str, version: str) -> OpenAPIConfig:
    """Return how the API is described; every route is protected unless it says otherwise."""
    return OpenAPIConfig(
        title="Shadow users",
        version=version,
        description="The users of an external identity provider, as this app knows them.",
        components=security_components(),
        security=[{SECURITY_SCHEME: []}],
        use_handler_docstrings=True,
        openapi_router=Router(
            f"{path_prefix}/schema", route_handlers=[], include_in_schema=False, opt={"exclude_from_auth": True}
        ),
        render_plugins=[SwaggerRenderPlugin(version=SWAGGER_UI, path="/"), JsonRenderPlugin(), YamlRenderPlugin()],
    )
