"""What rests on views over users: retire takes it along, and an undo right after it brings all of it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import Outcome, migrate, plan, shadow
from tests.cutover.witness import Witness, apart_from_names_of_partitions

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

Load = Callable[[str], Witness]

V1 = 'CREATE VIEW v1 AS SELECT id, email FROM "user";'
COUNTS = "LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM v1; END;"
DOCS = "CREATE TABLE docs (owner text, n bigint); ALTER TABLE docs ENABLE ROW LEVEL SECURITY;"
ON_VIEWS = {
    "a materialized view": f"{V1} CREATE MATERIALIZED VIEW mv AS SELECT * FROM v1; CREATE UNIQUE INDEX one ON mv (id)",
    "a materialized view on another, and a view on that": 'CREATE MATERIALIZED VIEW m1 AS SELECT id FROM "user";'
    "CREATE MATERIALIZED VIEW m2 AS SELECT id FROM m1; CREATE VIEW v3 AS SELECT * FROM m2",
    "a function with an SQL body": f"{V1} CREATE FUNCTION f() RETURNS bigint {COUNTS}",
    "a view on such a function, and a default": f"{V1} CREATE FUNCTION f() RETURNS bigint {COUNTS}"
    "CREATE VIEW v5 AS SELECT f(); CREATE TABLE counted (n bigint DEFAULT f())",
    "a procedure with an SQL body": f"{V1} CREATE TABLE log (n bigint);"
    "CREATE PROCEDURE note() LANGUAGE sql BEGIN ATOMIC INSERT INTO log SELECT count(*) FROM v1; END",
    "a function that returns its rows": f"{V1} CREATE FUNCTION f() RETURNS SETOF v1 LANGUAGE sql AS 'SELECT * FROM v1'",
    "a function that takes a row of it": f"{V1} CREATE FUNCTION f(x v1) RETURNS text LANGUAGE sql AS 'SELECT x.email'",
    "a policy of another table": f"{V1} {DOCS} CREATE POLICY p ON docs USING (owner IN (SELECT email FROM v1))",
    "a policy of users": f'{V1} ALTER TABLE "user" ENABLE ROW LEVEL SECURITY;'
    'CREATE POLICY p ON "user" USING (email IN (SELECT email FROM v1))',
    "a rule of another table": f"{V1} {DOCS} CREATE RULE r AS ON INSERT TO docs DO ALSO SELECT count(*) FROM v1",
    "a rule of users": f'{V1} CREATE RULE r AS ON DELETE TO "user" DO ALSO SELECT count(*) FROM v1',
    "a rule of a view on nothing": f"{V1} CREATE VIEW v9 AS SELECT 1 AS one;"
    "CREATE RULE r AS ON INSERT TO v9 DO INSTEAD SELECT count(*) FROM v1",
    "a default of users": f"{V1} CREATE FUNCTION f() RETURNS bigint {COUNTS}"
    'ALTER TABLE "user" ADD n bigint DEFAULT f()',
    "a trigger with a condition": f"{V1} {DOCS} CREATE FUNCTION f() RETURNS bigint {COUNTS}"
    "CREATE TRIGGER t BEFORE INSERT ON docs FOR EACH ROW WHEN (NEW.n > f()) "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
}
"""Over a view of ids, which change their type."""


def undone(database: Witness) -> Outcome:
    return shadow(database.url, "undo", "--yes")


def there_and_back(database: Witness) -> None:
    """Adopt, retire and undo; the portrait is then that of after adopt."""
    assert migrate(database.url, "adopt").code == 0
    before = database.portrait()
    done = migrate(database.url, "retire")
    assert done.code == 0, done.text
    back = undone(database)
    assert back.code == 0, back.text
    assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(before)


class TestRightAfterRetire:
    @pytest.mark.parametrize("what", ON_VIEWS)
    def test_what_rests_on_a_view_comes_back_with_it(self, load: Load, what: str) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(ON_VIEWS[what])
        there_and_back(database)

    @pytest.mark.parametrize(
        ("name", "users", "made"),
        [
            (
                "drizzle_plural",
                "public.users",
                "CREATE VIEW rec AS SELECT id, created_at FROM users;"
                "CREATE FUNCTION f() RETURNS SETOF rec LANGUAGE sql AS 'SELECT * FROM rec';"
                "CREATE MATERIALIZED VIEW many AS SELECT count(*) FROM rec; CREATE VIEW over AS SELECT * FROM many",
            ),
            *(
                (
                    name,
                    'public."user"',
                    'CREATE VIEW rec AS SELECT id, email, "createdAt" FROM "user";'
                    "CREATE MATERIALIZED VIEW many AS SELECT count(*) FROM rec",
                )
                for name in ("soft_delete_singular", "prisma_like")
            ),
            (
                "soft_delete_singular",
                'public."user"',
                'CREATE VIEW live AS SELECT id FROM "user" WHERE "deletedAt" IS NULL;'
                f"{DOCS} CREATE POLICY p ON docs USING (owner IN (SELECT id FROM live))",
            ),
        ],
    )
    def test_also_where_moments_alone_change_their_type(self, load: Load, name: str, users: str, made: str) -> None:
        database = replace(load(name), users=users)
        database.run(made)
        there_and_back(database)

    def test_nothing_is_refused_that_reads_ids_through_views_of_other_tables(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(
            'CREATE TABLE mem (person uuid REFERENCES "user" (id), org int);'
            "CREATE VIEW mine AS SELECT org FROM mem WHERE person IS NOT NULL;"
            "CREATE VIEW ours AS SELECT org FROM mine;"
            f"{DOCS} CREATE POLICY p ON docs USING (n IN (SELECT org FROM ours))"
        )
        assert plan(database.url, "retire").findings("does-not-follow") == []
        there_and_back(database)


@pytest.fixture
def retired(load_retired: Callable[..., Witness]) -> Witness:
    """A database after retire, in which much is carried along."""
    made = f"{V1} CREATE MATERIALIZED VIEW mv AS SELECT * FROM v1; CREATE FUNCTION f() RETURNS bigint {COUNTS} {DOCS}"
    return load_retired("uuid_kysely", made, "--compat-view")


class TestWhatCameSinceOnWhatIsCarried:
    @pytest.mark.parametrize(
        ("since", "named"),
        [
            ("CREATE VIEW late AS SELECT * FROM v1", "view public.late rests on public.v1"),
            ("CREATE VIEW late AS SELECT * FROM mv", "view public.late rests on public.mv"),
            ("CREATE VIEW late AS SELECT f()", "view public.late rests on public.f()"),
            ("CREATE POLICY p ON docs USING (n < f())", "policy p on public.docs rests on public.f()"),
            ("ALTER TABLE docs ALTER n SET DEFAULT f()", "docs.n rests on public.f()"),
            ("CREATE POLICY p ON docs USING (owner IN (SELECT email FROM mv))", "policy p on public.docs rests on"),
        ],
    )
    def test_it_is_named_with_its_drop(self, retired: Witness, since: str, named: str) -> None:
        retired.run(since)
        refused = undone(retired)
        assert refused.code == 2, refused.text
        assert "statement-refused" not in refused.text
        assert refused.text.count("refuse ") == refused.text.count("refuse undo-finds-objects") == 1, refused.text
        assert named in refused.text
        retired.run(refused.text.split(" → ")[1].partition(" Refused.")[0])
        back = undone(retired)
        assert back.code == 0, back.text

    def test_a_view_that_reads_the_one_of_the_old_names_since_is_in_its_way(self, retired: Witness) -> None:
        """It is carried, and dropped after that."""
        retired.run('CREATE OR REPLACE VIEW v1 AS SELECT id, email FROM "user"')
        refused = undone(retired)
        assert refused.code == 2, refused.text
        assert "statement-refused" not in refused.text
        assert 'view public.v1 rests on public."user"' in refused.text
