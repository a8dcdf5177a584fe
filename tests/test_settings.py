"""Settings: every fault at once, by name, and no secret in any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import SettingsError
from app.settings import DatabaseSettings, Settings, load

GOOD = {"IDP_ISSUER": "https://idp.example", "IDP_AUDIENCE": "https://api.example"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with nothing of ours but what is needed."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def faults(kind: type[DatabaseSettings] = Settings) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(kind, env_file=None)
    return caught.value.faults


class TestDefaults:
    def test_issuer_and_audience_are_enough(self, environment: pytest.MonkeyPatch) -> None:
        settings = load(Settings, env_file=None)
        assert settings.idp_issuer == ("https://idp.example",)
        assert settings.idp_algorithms == ("RS256", "PS256", "ES256", "ES384", "EdDSA")
        assert (settings.auth_mode, settings.path_prefix, settings.leeway_seconds) == ("idp", "", 30)
        assert (settings.database_url, settings.database_schema) == (None, "public")
        assert (settings.accept_id_tokens, settings.provision_machine_tokens) == (False, False)

    def test_the_migrations_need_neither(self, environment: pytest.MonkeyPatch) -> None:
        environment.delenv("IDP_ISSUER")
        environment.delenv("IDP_AUDIENCE")
        assert load(DatabaseSettings, env_file=None).database_schema == "public"

    def test_an_empty_setting_is_an_unset_one(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("IDP_JWKS_URL", "")
        environment.setenv("LEEWAY_SECONDS", "")
        assert load(Settings, env_file=None).idp_jwks_url is None


class TestForms:
    def test_lists_are_comma_separated(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("IDP_AUDIENCE", " one, two ,,three")
        environment.setenv("APP_OWNED_FIELDS", "name,image")
        settings = load(Settings, env_file=None)
        assert settings.idp_audience == ("one", "two", "three")
        assert settings.app_owned_fields == ("name", "image")

    def test_case_is_of_no_consequence_where_it_means_nothing(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("LOG_LEVEL", "DEBUG")
        environment.setenv("AUTH_MODE", "IDP")
        assert load(Settings, env_file=None).log_level == "debug"

    def test_a_prefix_loses_its_last_slash(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("PATH_PREFIX", "/api/")
        assert load(Settings, env_file=None).path_prefix == "/api"

    def test_the_file_is_read_and_the_environment_wins(self, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("LOG_LEVEL=error\nPATH_PREFIX=/from-file\nSOMETHING_ELSE=1\n")
        environment.setenv("LOG_LEVEL", "warning")
        settings = load(Settings, env_file=file)
        assert (settings.log_level, settings.path_prefix) == ("warning", "/from-file")


class TestFaults:
    def test_all_are_reported_at_once_each_with_its_name(self, environment: pytest.MonkeyPatch) -> None:
        wrong = {
            "DATABASE_URL": "mysql://u:sesame@h/d",
            "DATABASE_SCHEMA": "x; DROP SCHEMA public",
            "IDP_ISSUER": "",
            "IDP_AUDIENCE": "",
            "IDP_JWKS_URL": "http://idp.example/jwks",
            "IDP_ALGORITHMS": "RS256,HS256",
            "IDP_USERINFO_URL": "ftp://idp.example",
            "IDP_ACCOUNT_URL": "https://u:sesame@idp.example",
            "IDP_WEBHOOK_SECRET": "sesame1,sesame2,sesame3",
            "IDP_WEBHOOK_SCHEME": "hmac",
            "AUTH_MODE": "both",
            "PATH_PREFIX": "api",
            "PUBLIC_URL": "example.com",
            "REQUIRED_TYP": "id+jwt",
            "ACCEPT_ID_TOKENS": "perhaps",
            "LEEWAY_SECONDS": "301",
            "APP_OWNED_FIELDS": "email",
            "LOG_FORMAT": "xml",
            "LOG_LEVEL": "loud",
        }
        for name, value in wrong.items():
            environment.setenv(name, value)
        found = faults()
        assert {fault.partition(":")[0] for fault in found} == set(wrong)
        assert len(found) == len(wrong)
        assert "sesame" not in "\n".join(found)
        assert all(fault.endswith(".") and "\n" not in fault for fault in found)

    @pytest.mark.parametrize("symmetric", ["HS256", "none", "RS1", "rs256", "dir"])
    def test_no_algorithm_that_could_be_forged_is_accepted(
        self, environment: pytest.MonkeyPatch, symmetric: str
    ) -> None:
        environment.setenv("IDP_ALGORITHMS", f"RS256,{symmetric}")
        (fault,) = faults()
        assert fault.startswith("IDP_ALGORITHMS: ")
        assert symmetric in fault

    @pytest.mark.parametrize(
        "url", ["https://idp.example", "http://localhost:3000", "http://127.0.0.1:1", "http://[::1]"]
    )
    def test_plain_http_is_for_loopback(self, environment: pytest.MonkeyPatch, url: str) -> None:
        environment.setenv("IDP_JWKS_URL", url)
        assert load(Settings, env_file=None).idp_jwks_url == url

    @pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+jwt"])
    def test_the_types_of_access_tokens_can_be_demanded(self, environment: pytest.MonkeyPatch, typ: str) -> None:
        environment.setenv("REQUIRED_TYP", typ)
        assert load(Settings, env_file=None).required_typ == typ


class TestSecrets:
    def test_they_are_not_shown(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("DATABASE_URL", "postgresql://u:sesame@h/d")
        environment.setenv("IDP_WEBHOOK_SECRET", "whsec_sesame")
        settings = load(Settings, env_file=None)
        assert "sesame" not in f"{settings!r} {settings}"
        assert settings.database_url is not None
        assert settings.database_url.get_secret_value() == "postgresql://u:sesame@h/d"
