"""What a remedy drops it also shows as it is now: without the dashes it makes the same again, by pg_dump's word."""

from __future__ import annotations

import pytest

from tests.cutover.commands import plan
from tests.cutover.witness import Witness


def shown(remedy: str) -> str:
    """Return what a remedy shows of how an object is now, as somebody would paste it."""
    _, _, rest = remedy.partition("it is now:\n")
    return "\n".join(line.removeprefix("-- ") for line in rest.splitlines() if line.startswith("-- "))


OBJECTS = {
    "aggregate": "CREATE AGGREGATE every(sessions) (sfunc = array_append, stype = sessions[], initcond = '{}');"
    "COMMENT ON AGGREGATE every(sessions) IS 'all o''them'",
    "operator": "CREATE FUNCTION alike(sessions, sessions) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
    'CREATE SCHEMA "My"; CREATE OPERATOR "My".=== (LEFTARG = sessions, RIGHTARG = sessions, FUNCTION = alike,'
    ' COMMUTATOR = OPERATOR("My".===), RESTRICT = eqsel, JOIN = eqjoinsel, MERGES);'
    "COMMENT ON OPERATOR \"My\".=== (sessions, sessions) IS 'alike'",
    "cast": "CREATE FUNCTION as_text(sessions) RETURNS text LANGUAGE sql AS 'SELECT ($1).id';"
    "CREATE CAST (sessions AS text) WITH FUNCTION as_text(sessions) AS ASSIGNMENT;"
    "COMMENT ON CAST (sessions AS text) IS 'its id'",
    "operator-class": "CREATE OPERATOR CLASS rows FOR TYPE sessions USING gin AS STORAGE text;"
    "COMMENT ON OPERATOR CLASS rows USING gin IS 'none'",
    "type": "CREATE DOMAIN good AS sessions CONSTRAINT has_id CHECK ((VALUE).id <> '') CONSTRAINT always CHECK (true);"
    "COMMENT ON CONSTRAINT has_id ON DOMAIN good IS 'an id'; COMMENT ON DOMAIN good IS 'fine'",
    "domain-constraint": 'CREATE DOMAIN token AS jsonb CONSTRAINT "Has one" CHECK '
    "((jsonb_populate_record(NULL::sessions, VALUE)).token <> ''); "
    "COMMENT ON CONSTRAINT \"Has one\" ON DOMAIN token IS 'a token'",
    "table-constraint": "CREATE TABLE logs (said jsonb CONSTRAINT told CHECK "
    "((jsonb_populate_record(NULL::sessions, said)).token <> '')); COMMENT ON CONSTRAINT told ON logs IS 'a token'",
    "view": "CREATE VIEW online WITH (security_barrier) AS SELECT user_id FROM sessions;"
    "COMMENT ON VIEW online IS 'who is there'; GRANT SELECT ON online TO PUBLIC",
    "policy": "CREATE POLICY shown ON users FOR SELECT USING (status = 'active');"
    "COMMENT ON POLICY shown ON users IS 'active ones'",
    "rule": "CREATE TABLE calls (id text); CREATE RULE out AS ON DELETE TO calls DO ALSO DELETE FROM sessions;"
    "COMMENT ON RULE out ON calls IS 'out'; ALTER TABLE calls ENABLE ALWAYS RULE out",
    "statistics-object": "CREATE STATISTICS spread ON status, name FROM users; COMMENT ON STATISTICS spread IS 'two'",
    "function": "CREATE FUNCTION online() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM sessions; END;"
    "COMMENT ON FUNCTION online() IS 'how many'; REVOKE ALL ON FUNCTION online() FROM PUBLIC",
}


class TestShown:
    @pytest.mark.parametrize("kind", OBJECTS)
    def test_it_is_whole(self, database: Witness, kind: str) -> None:
        if kind == "function" and database.value("SELECT current_setting('server_version_num')::int AS v") < 140000:
            pytest.skip("no function had an SQL body of its own then")
        database.run(OBJECTS[kind])
        before = database.schema()
        (found,) = plan(database.url, "retire").findings(f"dependent-{kind}")
        database.run(found["remedy"])
        assert database.schema() != before
        database.run(shown(found["remedy"]))
        assert database.schema() == before
