"""What a deployment decides, from the environment or `.env`.

The promise: every fault is reported at once, each with the name of its setting and what would be right, and none shows
the value of a secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.db import InvalidURL, parse_url
from app.errors import SettingsError

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WITHOUT_CASE = (
    "auth_mode",
    "legacy_bearer",
    "idp_webhook_scheme",
    "idp_directory",
    "on_user_deleted",
    "log_format",
    "log_level",
)
"""Settings whose case means nothing."""
_URL = re.compile(r"[!-~]*\Z")
_SCOPE = re.compile(r"[!#-\[\]-~]+\Z")
"""RFC 6749 section 3.3."""
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}\Z")


def _split(value: object, separators: str = r"[,]") -> object:
    if not isinstance(value, str):
        return value
    found = tuple(part for part in (piece.strip() for piece in re.split(separators, value)) if part)
    if value and not found:
        raise ValueError("it is set and names nothing; unset it, or say what is meant")
    return found


def _split_scopes(value: object) -> object:
    return _split(value, r"[,\s]")  # RFC 6749 section 3.3: spaces between them, and none in one


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Scopes = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_scopes)]


def _check_http_url(value: str) -> str:
    if not _URL.match(value):
        raise ValueError("it must be ASCII without spaces: a host in another script as xn--..., all else as %XX")
    try:
        parts = urlsplit(value)
        httpx.URL(value)
    except (ValueError, httpx.InvalidURL):
        raise ValueError("it cannot be read as https://host:port/path") from None
    port = re.sub(r"\[.*\]", "", parts.netloc.rpartition("@")[2]).partition(":")[2]
    if port and not (port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError("its port must be a number from 1 to 65535")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be an https:// address")
    if "" in parts.hostname.removesuffix(".").split("."):
        raise ValueError("its host must be a name or an address")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("it must be https:// (http:// is for loopback only)")
    if parts.fragment or parts.username or parts.password:
        raise ValueError("it must hold neither user, password nor fragment")
    return value


class DatabaseSettings(BaseSettings):
    """What the cutover and the migrations need: where the database is."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", env_ignore_empty=True, frozen=True)

    database_url: SecretStr | None = None
    """Any libpq spelling; unset means the embedded server below `.data/`."""
    database_direct_url: SecretStr | None = None
    """The server itself, where `database_url` is a pooler's: what the cutover connects to."""
    database_schema: str = "public"
    """The schema that holds `users`."""

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_url(value.get_secret_value())
        return value

    @field_validator("database_direct_url")
    @classmethod
    def _is_beside_another(cls, value: SecretStr | None, told: ValidationInfo) -> SecretStr | None:
        # one that is wrong is not among the data, and is told of itself
        if value is not None and "database_url" in told.data and told.data["database_url"] is None:
            raise ValueError("it stands beside DATABASE_URL, which is unset")
        return value

    @field_validator("database_schema")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        if not _SCHEMA.match(value):
            raise ValueError(
                "it must be the name of a schema: a letter or underscore, then letters, digits, underscores"
            )
        return value

    def cutover_address(self) -> tuple[str, str] | None:
        """Return what the cutover connects to, and the setting that says so; None means the embedded server."""
        if self.database_direct_url is not None:
            return self.database_direct_url.get_secret_value(), "DATABASE_DIRECT_URL"
        if self.database_url is not None:
            return self.database_url.get_secret_value(), "DATABASE_URL"
        return None


class Settings(DatabaseSettings):
    """What the server needs."""

    idp_issuer: Listed = ()
    """`iss` values to accept, comma separated when several share one key set."""
    idp_audience: Listed = ()
    """`aud` values that mean this API, comma separated."""
    idp_jwks_url: str | None = None
    """Where the keys are; unset means the provider's discovery document says."""
    idp_algorithms: Listed = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
    """JWS algorithms to accept; symmetric ones are refused."""
    idp_userinfo_url: str | None = None
    """Where to read the e-mail of a user whose access token has none."""
    idp_account_url: str | None = None
    """Where users change what the provider owns; shown in errors."""
    idp_webhook_scheme: Literal["auther", "auther-body", "standard"] = "auther"
    """How webhooks are signed."""
    idp_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = ()
    """Webhook secret; two, comma separated, while one replaces the other; unset means that none are received."""
    on_user_deleted: Literal["soft", "erase"] = "soft"
    """What a user's deletion at the provider does to the row: emptied and marked, or deleted with all that cascades."""
    idp_directory_url: str | None = None
    """Where `shadow reconcile` reads the provider's users; for better-auth, without a path, `/api/auth` is meant."""
    idp_directory_email: str | None = None
    """better-auth: an admin of its admin plugin, without a second factor."""
    idp_directory_password: SecretStr | None = None
    """better-auth: the admin's."""
    idp_directory_api_key: SecretStr | None = None
    """auther: a key that may read users."""
    idp_directory: Literal["better-auth", "auther"] | None = None
    """How the provider's users are read; unset means that they are not."""
    auth_mode: Literal["idp", "dual", "legacy"] = "idp"
    """Who may present what: the provider's JWTs only, the old sessions beside them, or the old sessions only."""
    better_auth_secret: SecretStr | None = None
    """Better Auth's own secret, by which the old sessions' cookies are signed; for dual and legacy."""
    legacy_cookie_prefix: str = "better-auth"
    """What the old app's cookies begin with: `<prefix>.session_token`, with or without `__Secure-` before it."""
    legacy_bearer: Literal["plain", "signed", "off"] = "plain"
    """Which session tokens count as Bearer: all, those that Better Auth signed (its requireSignature), or none."""
    legacy_trusted_origins: Listed = ()
    """Origins other than the server's own whose pages may change something with the old cookie."""
    path_prefix: str = ""
    """Everything below this path, `/api` say."""
    public_url: str | None = None
    """How clients reach the server; used in metadata and challenges."""
    required_typ: str | None = None
    """Header `typ` a token must have, `at+jwt` say."""
    required_scope: Scopes = ()
    """Scopes every token must have, with commas or spaces between."""
    accept_id_tokens: bool = False
    """Also accept OpenID Connect id_tokens."""
    provision_machine_tokens: bool = False
    """Also make a users row for API keys and client credentials."""
    leeway_seconds: int = Field(default=30, ge=0, le=300)
    """How far clocks may differ, in seconds."""
    app_owned_fields: Listed = ()
    """Of `name` and `image`: which the app owns; taken from the provider at first sight only."""
    statement_timeout_seconds: int = Field(default=10, ge=0, le=3_600)
    """How long the database may work on one statement of the server's; 0 leaves that to its own settings."""
    log_format: Literal["console", "json"] | None = None
    """Unset means console on a terminal, else json."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("idp_issuer", "idp_audience")
    @classmethod
    def _is_given(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("it is required")
        return value

    @field_validator("idp_issuer")
    @classmethod
    def _are_issuers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for issuer in value:
            _check_http_url(issuer)
        return value

    @field_validator("idp_jwks_url", "idp_userinfo_url", "idp_account_url", "public_url")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        return None if value is None else _check_http_url(value)

    @field_validator("idp_algorithms")
    @classmethod
    def _are_asymmetric(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in value if name not in ALGORITHMS]:
            raise ValueError(f"{', '.join(wrong)} cannot be accepted; choose from {', '.join(ALGORITHMS)}")
        if not value:
            raise ValueError(f"choose at least one of {', '.join(ALGORITHMS)}")
        return value

    @field_validator("idp_webhook_secret")
    @classmethod
    def _are_at_most_two(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if len(value) > 2:
            raise ValueError("at most two secrets, comma separated, during a rotation")
        return value

    @field_validator("idp_webhook_secret")
    @classmethod
    def _are_of_the_scheme(cls, value: tuple[SecretStr, ...], told: ValidationInfo) -> tuple[SecretStr, ...]:
        if told.data.get("idp_webhook_scheme") == "standard":
            for secret in value:
                try:
                    decoded = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
                except ValueError:
                    decoded = b""
                if not decoded:
                    raise ValueError("for the scheme standard it must be base64, after whsec_ as a rule")
        return value

    @field_validator("idp_directory_password", "idp_directory_api_key", "better_auth_secret")
    @classmethod
    def _is_not_blank(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("it is set, and blank")
        return value

    @field_validator("required_scope")
    @classmethod
    def _are_scopes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [scope for scope in value if not _SCOPE.match(scope)]:
            raise ValueError(f"{', '.join(wrong)} cannot be a scope: ASCII without quotes and backslashes")
        return value

    @field_validator("idp_directory_url")
    @classmethod
    def _is_without_query(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(_check_http_url(value)).query:
            raise ValueError("it must have no query")
        return value

    @field_validator("idp_directory")
    @classmethod
    def _has_credentials(cls, value: str | None, told: ValidationInfo) -> str | None:
        needed = {"better-auth": ("url", "email", "password"), "auther": ("url", "api_key")}.get(value or "", ())
        names = [f"idp_directory_{name}" for name in needed]
        # one that is wrong is not among the data, and is told of itself
        if missing := [name.upper() for name in names if name in told.data and told.data[name] is None]:
            raise ValueError(f"{value} needs {', '.join(names).upper()}; unset: {', '.join(missing)}")
        return value

    @field_validator("better_auth_secret")
    @classmethod
    def _is_there_for_sessions(cls, value: SecretStr | None, told: ValidationInfo) -> SecretStr | None:
        if value is None and told.data.get("auth_mode") in ("dual", "legacy"):
            raise ValueError(f"it is required where AUTH_MODE is {told.data['auth_mode']}; the old app has it")
        return value

    @field_validator("legacy_cookie_prefix")
    @classmethod
    def _is_of_cookies(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value) or value.startswith("__"):
            raise ValueError("it must be what the cookies begin with, without __Secure-: better-auth")
        return value

    @field_validator("legacy_trusted_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(_check_http_url(origin))
            if f"{parts.scheme}://{parts.netloc}" != origin:
                raise ValueError(f"{origin} is not an origin: https://app.example.com, with nothing behind it")
        return value

    @field_validator("path_prefix")
    @classmethod
    def _is_path(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value):
            raise ValueError("it must be a path such as /api")
        return value

    @field_validator("required_typ")
    @classmethod
    def _is_of_access_tokens(cls, value: str | None) -> str | None:
        if value is not None and value.lower().removeprefix("application/") not in ("jwt", "at+jwt"):
            raise ValueError("it must be JWT or at+jwt")
        return value

    @field_validator("app_owned_fields")
    @classmethod
    def _are_ownable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in value if name not in ("name", "image")]:
            raise ValueError(f"{', '.join(wrong)} cannot be owned by the app; choose from name, image")
        return value

    @model_validator(mode="before")
    @classmethod
    def _lower_where_case_means_nothing(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name in _WITHOUT_CASE:
                if isinstance(values.get(name), str):
                    values[name] = values[name].strip().lower()
        return values


_S = TypeVar("_S", bound=DatabaseSettings)


def load(kind: Callable[..., _S], env_file: Path | str | None = ".env") -> _S:
    """Read settings from the environment and `env_file`.

    Raises:
        SettingsError: one sentence a fault, all of them.
    """
    try:
        return kind(_env_file=env_file)
    except UnicodeDecodeError:
        raise SettingsError((f"{env_file}: it is not UTF-8; save it as that.",)) from None
    except OSError as error:
        raise SettingsError((f"{env_file}: it cannot be read: {error.strerror}.",)) from None
    except ValidationError as error:
        raise SettingsError(
            tuple(dict.fromkeys(_sentence(fault) for fault in error.errors(include_input=False)))
        ) from None


def _sentence(fault: Any) -> str:
    name = str(fault["loc"][0]).upper() if fault["loc"] else "The settings"
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, InvalidURL):
        return f"{name}: {cause}."
    message = str(fault["msg"])
    text = str(cause) if cause is not None else message[0].lower() + message[1:]
    return f"{name}: {text.rstrip('.')}."
