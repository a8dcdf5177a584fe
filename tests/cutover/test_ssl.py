"""A real server that takes nobody without TLS: the whole way through it, and what is said where it cannot be had."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.db import create_engine
from tests.cutover.commands import ACCEPTED, Outcome, alembic, migrate, shadow
from tests.cutover.obstacles import hand_over
from tests.cutover.witness import Witness
from tests.postgres import SYSTEM, Server, SystemServer
from tests.serving import free_port

pytestmark = pytest.mark.skipif(not SYSTEM, reason="no PostgreSQL with TLS (Debian: apt-get install postgresql)")

NOT_BUILT = "SSL is not supported by this build"
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def certify(folder: Path, name: str) -> Path:
    """Make a certificate for the loopback address that is signed by nobody but itself, its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


class TLSServer(SystemServer):
    """A server of the machine's own that listens on a port, and takes nobody who does not speak TLS."""

    certificate: Path

    def start(self) -> Server:
        data, port = self.folder / "data", free_port()
        self._run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        self.certificate = certify(self.folder, "server")
        for path in (self.certificate, self.certificate.with_suffix(".key")):
            path.chmod(0o600)
            shutil.chown(path, self.user or path.owner())
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
        settings = (
            "listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={self.folder}", "fsync=off",
            "ssl=on", f"ssl_cert_file={self.certificate}", f"ssl_key_file={self.certificate.with_suffix('.key')}",
        )  # fmt: skip
        options = " ".join(f"-c {setting}" for setting in settings)
        self._run("pg_ctl", "-w", "-D", str(data), "-l", str(self.folder / "log"), "-o", options, "start")
        return Server(self.name, self.programs, f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=require")


@dataclass(frozen=True)
class Secured:
    """A database of a server that takes TLS alone, as its owner sees it, and the certificate the server shows."""

    database: Witness
    """As the superuser sees it."""
    url: str
    """For the owner, who wants TLS and believes whoever answers."""
    certificate: Path

    def through(self, mode: str, root: Path | str | None = None) -> str:
        """Return the owner's address with another sslmode, and the certificate to trust."""
        trusted = f"&sslrootcert={root}" if root else ""
        return self.url.replace("sslmode=require", f"sslmode={mode}") + trusted


@pytest.fixture(scope="module")
def tls() -> Iterator[tuple[Server, Path]]:
    """A server that takes TLS alone, and its certificate."""
    server = TLSServer(SYSTEM[-1])
    try:
        started = server.start()
    except subprocess.CalledProcessError:
        if NOT_BUILT in (server.folder / "log").read_text():
            pytest.skip(f"{SYSTEM[-1]}: {NOT_BUILT}")
        raise
    yield started, server.certificate
    server.stop()


@pytest.fixture
def secured(tls: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Secured]:
    """A database in the layout of Auther's template that belongs to a role without privileges."""
    # what a person trusts by ~/.postgresql/root.crt is none of the test's
    monkeypatch.setenv("HOME", str(tmp_path))
    server, certificate = tls
    database = Witness(server, server.make_database("plural_snake"))
    server.execute("CREATE ROLE owner LOGIN")
    hand_over(database, "owner")
    yield Secured(database, database.seen_by("owner"), certificate)
    server.drop_database(database.url)
    server.execute("DROP ROLE owner")


def said(failed: Outcome) -> str:
    """Return the one line in which a command said why it failed."""
    assert failed.code == 1, failed.text
    assert failed.out == ""
    (line,) = failed.err.splitlines()
    return line


def ways(url: str) -> tuple[Outcome, ...]:
    """Go each of the ways in that would change something."""
    return migrate(url, "adopt"), shadow(url, "undo", "--yes"), alembic(url, "upgrade", "0001_adopt")


class TestTheOwner:
    def test_goes_the_whole_way_there_and_back_and_there_again(self, secured: Secured) -> None:
        database, url = secured.database, secured.url
        before = database.portrait()
        for there in ("adopt", "retire"):
            assert (migrate(url, there, "--accept", ACCEPTED).code, there) == (0, there)
            assert shadow(url, "verify").code == 0
        for _ in range(2):
            assert shadow(url, "undo", "--yes").code == 0
        assert database.portrait() == before
        for there in ("retire", "drop"):
            assert (migrate(url, there, "--accept", ACCEPTED).code, there) == (0, there)
            assert shadow(url, "verify").code == 0
        assert "public.sessions" not in database.tables()
        assert database.ask("SELECT id, email FROM users ORDER BY id") == [
            {"id": user["id"], "email": user["email"]} for user in before.users
        ]

    @pytest.mark.anyio
    async def test_is_encrypted_all_the_way_where_the_server_asks(self, secured: Secured) -> None:
        # as the server does it
        engine = create_engine(secured.url, server_settings={"search_path": "public"})
        async with engine.connect() as connection:
            row = (await connection.exec_driver_sql(f"SELECT current_user, ({ENCRYPTED})")).one()
        await engine.dispose()
        assert tuple(row) == ("owner", True)


class TestWhoIsTrusted:
    @pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
    def test_the_right_root_opens_the_way(self, secured: Secured, mode: str) -> None:
        assert migrate(secured.through(mode, secured.certificate), "adopt").code == 0

    def test_the_systems_roots_do_where_libpq_takes_them(
        self, secured: Secured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(secured.certificate))
        assert migrate(secured.through("verify-full", "system"), "adopt").code == 0

    @pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
    def test_the_wrong_root_is_said_in_a_line(self, secured: Secured, tmp_path: Path, mode: str) -> None:
        for failed in ways(secured.through(mode, certify(tmp_path, "another"))):
            line = said(failed)
            assert "certificate is not trusted: self-signed certificate" in line
            assert "sslrootcert" in line

    def test_another_name_than_the_certificates_is_said_in_a_line(self, secured: Secured) -> None:
        url = secured.through("verify-full", secured.certificate).replace("127.0.0.1", "localhost")
        for failed in ways(url):
            assert "not valid for 'localhost'" in said(failed)

    def test_a_root_that_is_no_file_is_named(self, secured: Secured, tmp_path: Path) -> None:
        for failed in ways(secured.through("verify-full", tmp_path / "nowhere.crt")):
            assert f"sslrootcert says {tmp_path}/nowhere.crt, which is no file" in said(failed)

    def test_no_root_at_all_is_said_in_a_line(self, secured: Secured) -> None:
        for failed in ways(secured.through("verify-full")):
            assert "root.crt" in said(failed)


class TestWithoutTLS:
    def test_the_servers_own_words_are_in_the_line(self, secured: Secured) -> None:
        for failed in ways(secured.through("disable")):
            line = said(failed)
            assert "no encryption" in line
            assert "sslmode" in line

    @pytest.mark.parametrize("mode", ["allow", "prefer"])
    def test_who_leaves_it_open_is_let_in(self, secured: Secured, mode: str) -> None:
        assert migrate(secured.through(mode), "adopt").code == 0
