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

    @pytest.mark.parametrize("written", ["read write", "read,write", "read, write"])
    def test_scopes_are_separated_by_commas_or_as_a_token_has_them(
        self, environment: pytest.MonkeyPatch, written: str
    ) -> None:
        environment.setenv("REQUIRED_SCOPE", written)
        assert load(Settings, env_file=None).required_scope == ("read", "write")

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

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("IDP_ISSUER", "https://idp.example:99999"),
            ("IDP_ISSUER", "https://idp..example"),
            ("IDP_ISSUER", "https://[::1"),
            ("IDP_JWKS_URL", "https://idp.example:abc/j"),
            ("IDP_JWKS_URL", "https://idp.example:0/j"),
            ("IDP_USERINFO_URL", "https://idp.example/\u00df"),
            ("IDP_ACCOUNT_URL", "https://idp.ex\u00e4mple"),
            ("PUBLIC_URL", "https://api.example/a b"),
            ("LEGACY_TRUSTED_ORIGINS", "https://app.example:abc"),
            ("REQUIRED_SCOPE", 'read,"write"'),
            ("REQUIRED_SCOPE", " , "),
            ("IDP_WEBHOOK_SECRET", " , "),
            ("IDP_WEBHOOK_SECRET", " "),
            ("BETTER_AUTH_SECRET", " "),
            ("IDP_DIRECTORY_API_KEY", "  "),
            ("DATABASE_DIRECT_URL", "postgresql://u:sesame@h:5432/d"),
        ],
    )
    def test_what_would_only_fail_later_or_count_as_unset_is_one(
        self, environment: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        environment.setenv(name, value)
        (fault,) = faults()
        assert fault.startswith(f"{name}: ")
        assert "sesame" not in fault

    @pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_DIRECT_URL"])
    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("postgresql://u:sesame@h:port/d", "port"),
            ("postgresql://u:sesame@h1:1,h2:70000/d", "port"),
            ("postgresql://u:ses@me@h/d", "%40"),
            ("postgresql://u:sesame@h/d?sslmode=weird", "verify-full"),
            ("postgresql://u:sesame@h/d?nonsense=1", "nonsense"),
            ("postgresql://h/d?user=u&password=ses&ame=1", "a parameter"),
            ("postgresql://u:12?sesame=c@h/d", "a parameter"),
            ("host=h user=u password=sesame sslmode=weird", "verify-full"),
            ("host=h:x password=sesame://x port=y", "port"),
        ],
    )
    def test_an_address_that_could_not_be_connected_to_is_one_without_its_password(
        self, environment: pytest.MonkeyPatch, name: str, address: str, said: str
    ) -> None:
        environment.setenv("DATABASE_URL", "postgresql://h/d")
        environment.setenv(name, address)
        (fault,) = faults(DatabaseSettings)
        assert fault.startswith(f"{name}: ")
        assert said in fault
        for part in ("sesame", "ame", "me@"):
            assert part not in fault.replace("parameter", "").replace("name", "")

    def test_a_file_that_is_no_utf_8_is_one(self, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_bytes(b"IDP_ACCOUNT_URL=https://x/\xff\n")
        with pytest.raises(SettingsError) as caught:
            load(Settings, env_file=file)
        assert caught.value.faults == (f"{file}: it is not UTF-8; save it as that.",)


class TestDirectAddress:
    def test_is_what_the_cutover_connects_to(self, environment: pytest.MonkeyPatch) -> None:
        assert load(DatabaseSettings, env_file=None).cutover_address() is None
        environment.setenv("DATABASE_URL", "postgresql://pooler/d")
        assert load(DatabaseSettings, env_file=None).cutover_address() == ("postgresql://pooler/d", "DATABASE_URL")
        environment.setenv("DATABASE_DIRECT_URL", "postgresql://h/d")
        assert load(DatabaseSettings, env_file=None).cutover_address() == ("postgresql://h/d", "DATABASE_DIRECT_URL")


class TestSecrets:
    def test_they_are_not_shown(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("DATABASE_URL", "postgresql://u:sesame@h/d")
        environment.setenv("IDP_WEBHOOK_SECRET", "whsec_sesame")
        settings = load(Settings, env_file=None)
        assert "sesame" not in f"{settings!r} {settings}"
        assert settings.database_url is not None
        assert settings.database_url.get_secret_value() == "postgresql://u:sesame@h/d"
