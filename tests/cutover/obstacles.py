"""Obstacles: what an app's own history may have left in the way, how it is found, and how it is got out of the way."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cutover.commands import ACCEPTED, Outcome
from tests.cutover.witness import Witness

WHOLE = ("drop", "--accept", ACCEPTED)
"""What follows `--to` for the whole way."""


@dataclass(frozen=True)
class Obstacle:
    """Something of the app's own that is in the way.

    Args:
        what: it, in words.
        sql: how it came to be.
        code: the finding's.
        names: what its message must name.
        remedy: "sql" or "flags", as the finding's remedy is; else what a person gives who has read it.
    """

    what: str
    sql: str
    code: str
    names: tuple[str, ...]
    remedy: str = "sql"


OBSTACLES = (
    Obstacle(
        "a foreign key into sessions",
        "CREATE TABLE devices (id int, session_id varchar(255) REFERENCES sessions ON DELETE SET NULL);"
        "INSERT INTO devices SELECT 1, id FROM sessions",
        "foreign-key-into-auth-table",
        ("devices_session_id_fkey", "public.devices", "session_id", "public.sessions"),
        "flags",
    ),
    Obstacle(
        "a foreign key into accounts, under odd names",
        'CREATE SCHEMA "My App"; CREATE TABLE "My App"."Ledger ""x""" '
        '("Account Id" varchar(255) CONSTRAINT "Account\'s" REFERENCES accounts)',
        "foreign-key-into-auth-table",
        ("Account's", '"My App"."Ledger ""x"""', "Account Id", "public.accounts"),
        'ALTER TABLE "My App"."Ledger ""x""" DROP CONSTRAINT "Account\'s"',
    ),
    Obstacle(
        "a view on a table that goes",
        "CREATE VIEW online AS SELECT user_id FROM sessions WHERE expires_at > now()",
        "dependent-view",
        ("public.online", "public.sessions"),
    ),
    Obstacle(
        "a materialized view on a table that goes",
        "CREATE MATERIALIZED VIEW providers AS SELECT provider_id, count(*) FROM accounts GROUP BY 1",
        "dependent-materialized-view",
        ("public.providers", "public.accounts"),
    ),
    Obstacle(
        "a view on a column of users that goes",
        "CREATE VIEW active AS SELECT id FROM users WHERE status = 'active'",
        "dependent-view",
        ("public.active", "public.users.status"),
    ),
    Obstacle(
        "a materialized view on a column of users that goes",
        'CREATE MATERIALIZED VIEW "By Role" AS SELECT unnest(role_slugs) AS slug FROM users',
        "dependent-materialized-view",
        ('public."By Role"', "public.users.role_slugs"),
    ),
    Obstacle(
        "a function with an SQL body",
        "CREATE FUNCTION online() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM sessions; END",
        "dependent-function",
        ("public.online()", "public.sessions"),
    ),
    Obstacle(
        "a trigger function on users that reads a column that goes",
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.status <> OLD.status THEN RAISE NOTICE 'x'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER audited BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION audit()",
        "function-body",
        ("audit()", "users.status"),
        "CREATE OR REPLACE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
    ),
    Obstacle(
        "a trigger on an update of a column that goes",
        "CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
        'CREATE TRIGGER "told on change" BEFORE UPDATE OF status ON users FOR EACH ROW EXECUTE FUNCTION quiet()',
        "dependent-trigger",
        ("told on change", "public.users.status"),
    ),
    Obstacle(
        "a policy of an app's table that reads a table that goes",
        "ALTER TABLE files ENABLE ROW LEVEL SECURITY; CREATE POLICY signed_in ON files AS RESTRICTIVE "
        "USING (owner_id IN (SELECT user_id FROM sessions))",
        "dependent-policy",
        ("signed_in", "public.files", "public.sessions"),
    ),
    Obstacle(
        "a policy of users that reads a column that goes",
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY active ON users USING (status = 'active')",
        "dependent-policy",
        ("active", "public.users.status"),
    ),
    Obstacle(
        "a generated column over a column that goes",
        "ALTER TABLE users ADD is_locked boolean GENERATED ALWAYS AS (failed_login_attempts > 5) STORED",
        "dependent-default-value",
        ("is_locked", "public.users.failed_login_attempts"),
    ),
    Obstacle(
        "a default that calls a sequence which a table that goes owns",
        "CREATE SEQUENCE numbers OWNED BY sessions.id; ALTER TABLE files ADD number bigint DEFAULT nextval('numbers')",
        "dependent-default-value",
        ("public.files.number", "public.sessions"),
    ),
    Obstacle(
        "a column of a table's row type",
        "CREATE TABLE revoked (at timestamptz, was sessions); INSERT INTO revoked SELECT now(), s FROM sessions s",
        "dependent-table-column",
        ("public.revoked.was", "public.sessions"),
    ),
    Obstacle(
        "a table that inherits",
        "CREATE TABLE old_sessions () INHERITS (sessions); INSERT INTO old_sessions SELECT * FROM ONLY sessions",
        "dependent-table",
        ("public.old_sessions", "public.sessions"),
    ),
    Obstacle(
        "a publication",
        'CREATE PUBLICATION "to the warehouse" FOR TABLE accounts, files',
        "publication",
        ("public.accounts", "to the warehouse"),
    ),
    Obstacle(
        "a publication of columns that go",
        "CREATE PUBLICATION narrow FOR TABLE users (id, status)",
        "dependent-publication-relation",
        ("narrow", "public.users.status"),
    ),
    Obstacle(
        "a rule",
        "CREATE RULE signed_out AS ON DELETE TO push_tokens DO ALSO DELETE FROM sessions WHERE user_id = OLD.user_id",
        "dependent-rule",
        ("signed_out", "public.push_tokens", "public.sessions"),
    ),
    Obstacle(
        "statistics over a column that goes",
        "CREATE STATISTICS by_status ON status, locked_until FROM users",
        "dependent-statistics-object",
        ("by_status", "public.users.status"),
    ),
    Obstacle(
        "a unique constraint over columns that go and stay",
        "ALTER TABLE users ADD CONSTRAINT once UNIQUE (email, status)",
        "constraint-spans-column",
        ("once", "status", "email"),
        "--accept constraint-spans-column",
    ),
    Obstacle(
        "a check over columns that go and stay",
        "ALTER TABLE users ADD CONSTRAINT who CHECK (deactivated_at IS NULL OR image IS NULL OR name <> '')",
        "constraint-spans-column",
        ("who", "deactivated_at", "image", "name"),
        "flags",
    ),
    Obstacle(
        "a unique index over columns that go and stay",
        "CREATE UNIQUE INDEX once ON users (lower(email), status)",
        "constraint-spans-column",
        ("once", "status", "email"),
        "--accept constraint-spans-column",
    ),
    Obstacle(
        "a foreign key to users (username)",
        "ALTER TABLE users ADD username text UNIQUE, ADD display_username text; UPDATE users SET username = id;"
        "CREATE TABLE pages (of text CONSTRAINT pages_of REFERENCES users (username));"
        "INSERT INTO pages SELECT id FROM users",
        "foreign-key-into-column",
        ("pages_of", "public.pages", "username"),
        "flags",
    ),
    Obstacle(
        "a foreign key to users (email) that does not follow",
        "CREATE TABLE letters (recipient text CONSTRAINT letters_to REFERENCES users (email) ON DELETE CASCADE)",
        "foreign-key-to-email",
        ("letters_to", "public.letters", "email"),
    ),
    Obstacle(
        "a deferrable foreign key to users (email) that does not follow",
        "CREATE TABLE letters (recipient text CONSTRAINT letters_to REFERENCES users (email) DEFERRABLE)",
        "foreign-key-to-email",
        ("letters_to", "public.letters", "email"),
    ),
    Obstacle(
        "a foreign key to users (email) that would follow by emptying itself",
        "CREATE TABLE letters (recipient text CONSTRAINT letters_to REFERENCES users (email) ON UPDATE SET NULL)",
        "foreign-key-to-email",
        ("letters_to", "public.letters", "email"),
    ),
    Obstacle(
        "a required column that the server does not know",
        "ALTER TABLE users ADD tenant text; UPDATE users SET tenant = 't'; ALTER TABLE users ALTER tenant SET NOT NULL",
        "required-column",
        ("users.tenant", "text"),
        "ALTER TABLE users ALTER tenant SET DEFAULT 't'",
    ),
    Obstacle(
        "a required column, accepted",
        "ALTER TABLE users ADD tenant text; UPDATE users SET tenant = 't'; ALTER TABLE users ALTER tenant SET NOT NULL",
        "required-column",
        ("users.tenant", "text"),
        "--accept required-column",
    ),
    Obstacle(
        "an e-mail that is not unique",
        "ALTER TABLE users DROP CONSTRAINT users_email_unique",
        "email-not-unique",
        ("users.email",),
    ),
    Obstacle(
        "an e-mail that is unique at the end of the transaction only",
        "ALTER TABLE users DROP CONSTRAINT users_email_unique;"
        "ALTER TABLE users ADD CONSTRAINT late UNIQUE (email) DEFERRABLE INITIALLY DEFERRED",
        "email-not-unique",
        ("users.email",),
        "ALTER TABLE users DROP CONSTRAINT late, ADD UNIQUE (email)",
    ),
    Obstacle(
        "an id that is not the primary key",
        "ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE",
        "id-not-primary-key",
        ("users.id",),
    ),
    Obstacle(
        "an id that is the primary key together with another column",
        "ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE; ALTER TABLE users ADD PRIMARY KEY (id, email)",
        "id-not-primary-key",
        ("users.id", "PRIMARY KEY (id, email)"),
    ),
    Obstacle(
        "a column that goes and comes from a table above",
        "CREATE TABLE moderated (status text); ALTER TABLE users ADD moderation text; ALTER TABLE users INHERIT "
        "moderated",
        "inherited-column",
        ("public.users", "status", "public.moderated"),
    ),
    Obstacle(
        "a primary key that holds at the end of the transaction only",
        "ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE; ALTER TABLE users ADD CONSTRAINT users_pkey "
        "PRIMARY KEY (id) DEFERRABLE",
        "id-not-primary-key",
        ("users.id",),
    ),
    Obstacle(
        "an address that is unique at the end only, under the name that the remedy would give",
        "ALTER TABLE users DROP CONSTRAINT users_email_unique;"
        "ALTER TABLE users ADD CONSTRAINT users_email_unique UNIQUE (email) DEFERRABLE",
        "email-not-unique",
        ("users.email",),
    ),
    Obstacle(
        "a partitioned table that refers to an address",
        "CREATE TABLE letters (recipient text CONSTRAINT letters_to REFERENCES users (email), at date) "
        "PARTITION BY RANGE (at);"
        "CREATE TABLE letters_old PARTITION OF letters FOR VALUES FROM (MINVALUE) TO ('2020-01-01')",
        "foreign-key-to-email",
        ("letters_to", "public.letters", "email"),
    ),
    Obstacle(
        "a schema of the name that is needed",
        "CREATE SCHEMA retired_auth; CREATE TABLE retired_auth.of_last_year ()",
        "schema-taken",
        ("retired_auth",),
    ),
    Obstacle(
        "two tables for one role",
        "CREATE TABLE session AS TABLE sessions",
        "role-ambiguous",
        ("public.session", "public.sessions"),
        "--map sessions=public.sessions",
    ),
)


def refusals(planned: Outcome, code: str) -> list[dict[str, str]]:
    """Return the refusals of a code in a plan."""
    return [found for found in planned.findings(code) if found["level"] == "refuse"]


def hand_over(database: Witness, owner: str, but: tuple[str, ...] = ()) -> None:
    """Give the database's tables to a role that is no superuser, as a managed service would have it."""
    database.run(
        f"GRANT CREATE ON DATABASE {database.name} TO {owner}; GRANT USAGE, CREATE ON SCHEMA public TO {owner}"
    )
    for name in sorted(database.tables()):
        schema, _, table = name.partition(".")
        if schema == "public" and table not in but:
            database.run(f'ALTER TABLE public."{table}" OWNER TO {owner}')
