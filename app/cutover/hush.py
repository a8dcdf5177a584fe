"""Silence: what an UPDATE of a table would set off or run into is switched off for the moment, and on again.

The promise: after the second statement everything is as it was before the first, comments and validity included, in the
table and in those that inherit from it.
"""

from __future__ import annotations

from sqlalchemy import Connection

from app.cutover.catalog import literal, quoted

LANGUAGE = "plpgsql"
"""What the blocks are written in."""
_LOUD = "shadow.loud"
"""Run-time parameter with the SQL that restores what was silenced."""


def hushed(table: str) -> tuple[str, str]:
    """Return what silences, and what restores, all that an UPDATE of a table would set off or run into.

    Nobody changes these rows: triggers and rules of the app's must not see it, and a row that violates a NOT VALID
    check, which holds for changes only, must not be in the way; nor a publication that could not tell rows apart.
    What there is is looked up when it runs, so that undo knows what came and what went since.

    Args:
        table: its name as SQL.
    """
    # a check takes those along that only inherit it; those that have one of their own too keep it, until it is dropped
    # in its turn, and are made first, so that those above merge with them
    quiet = f"""
DECLARE
    hushed CONSTANT regclass := {literal(table)};
    found record;
    loud text := '';
BEGIN
    FOR found IN
        WITH RECURSIVE family (member, depth) AS (
            SELECT hushed, 0
            UNION ALL
            SELECT inhrelid::regclass, depth + 1 FROM pg_inherits JOIN family ON inhparent = member
        ),
        each (member, depth) AS (SELECT member, max(depth) FROM family GROUP BY member),
        checks AS (
            SELECT c.oid, member, depth, conname, convalidated, obj_description(c.oid, 'pg_constraint') AS comment,
                (conislocal OR coninhcount = 0) AND coninhcount = (
                    SELECT count(*)
                    FROM pg_inherits JOIN each above ON inhparent = above.member
                    JOIN pg_constraint p ON p.conrelid = inhparent AND p.conname = c.conname AND p.contype = c.contype
                    WHERE inhrelid = c.conrelid AND NOT p.connoinherit
                ) AS own
            FROM pg_constraint c JOIN each ON conrelid = member
            WHERE contype IN ('c', 'n')
        )
        SELECT format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL', member) AS quiet,
            format('ALTER TABLE ONLY %s REPLICA IDENTITY NOTHING', member) AS loud, depth
        FROM each JOIN pg_class ON oid = member AND relreplident = 'n'
        UNION ALL
        SELECT format('ALTER TABLE ONLY %s DISABLE %s %I', member, kind, name),
            format('ALTER TABLE ONLY %s ENABLE %s %s %I', member, CASE enabled WHEN 'A' THEN 'ALWAYS' END, kind, name),
            depth
        FROM (
            SELECT member, depth, 'TRIGGER', tgname, tgenabled
            FROM each JOIN pg_trigger ON tgrelid = member AND NOT tgisinternal
            UNION ALL
            SELECT hushed, 0, 'RULE', rulename, ev_enabled FROM pg_rewrite WHERE ev_class = hushed
        ) AS one (member, depth, kind, name, enabled)
        WHERE enabled IN ('O', 'A')
        UNION ALL
        SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', member, conname),
            concat_ws(
                '; ',
                format('ALTER TABLE %s ADD CONSTRAINT %I %s', member, conname, pg_get_constraintdef(oid)),
                format('COMMENT ON CONSTRAINT %I ON %s IS ', conname, member) || quote_literal(comment)
            ),
            depth
        FROM checks WHERE own AND NOT convalidated
        UNION ALL
        SELECT NULL,
            concat_ws(
                '; ',
                CASE WHEN convalidated THEN format('ALTER TABLE %s VALIDATE CONSTRAINT %I', member, conname) END,
                format('COMMENT ON CONSTRAINT %I ON %s IS ', conname, member) || quote_literal(comment)
            ),
            -1
        FROM checks below
        WHERE NOT own AND (convalidated OR comment IS NOT NULL)
            AND EXISTS (SELECT FROM checks above WHERE above.conname = below.conname AND own AND NOT convalidated)
        ORDER BY depth
    LOOP
        IF found.quiet IS NOT NULL THEN
            EXECUTE found.quiet;
        END IF;
        loud := found.loud || ';' || loud;
    END LOOP;
    PERFORM set_config({literal(_LOUD)}, loud, true);
END """
    return f"DO {in_dollars(quiet)}", _LOUDLY


# where the table is gone, nothing was silenced; and what was restored is not restored again
_LOUDLY = f"""DO $loud$ BEGIN
    EXECUTE coalesce(current_setting({literal(_LOUD)}, true), '');
    PERFORM set_config({literal(_LOUD)}, '', true);
END $loud$"""


def in_dollars(body: str) -> str:
    """Return a text between dollars that do not end it early: names that are in it may hold any."""
    tag = "hush"
    while f"${tag}$" in body:
        tag += "_"
    return f"${tag}${body}${tag}$"


def language_lacks(connection: Connection) -> str | None:
    """Return the SQL that lets the role that looks run such blocks; None where it may."""
    found = connection.exec_driver_sql(
        f"""SELECT pg_get_userbyid(lanowner)::text AS owner, has_language_privilege(oid, 'USAGE') AS given,
        current_user::text AS role FROM pg_language WHERE lanname = {literal(LANGUAGE)}"""
    ).one_or_none()
    if found is None:
        return f"CREATE EXTENSION {LANGUAGE};"
    if found.given:
        return None
    return (
        f"-- as {found.owner}, to which the language belongs, or a superuser:\n"
        f"GRANT USAGE ON LANGUAGE {LANGUAGE} TO {quoted(found.role)};"
    )
