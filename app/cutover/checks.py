"""What has to be known before anything is touched: which rules concern which action, and all of them in one pass.

The promise: refusals come first, and no rule is left out because another one spoke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from sqlalchemy import Connection

from app.cutover import received
from app.cutover.findings import OVERRULABLE, Action, Finding, Level, Options, Situation
from app.cutover.rules import (
    around,
    fills,
    in_use,
    keys,
    language,
    names,
    objects,
    others,
    strangers,
    types,
    users,
    values,
)
from app.cutover.surroundings import make_contact

Rule = Callable[[Situation], Iterator[Finding]]
OTHERS: tuple[Rule, ...] = (
    others.locks_held,
    others.long_transactions,
    others.prepared_transactions,
    others.replication_slots,
    others.subscriptions,
    others.event_triggers,
)
VALUES: tuple[Rule, ...] = (
    values.emails,
    values.ids,
    values.names,
    values.updated,
    values.infinite_timestamps,
    values.soft_deleted,
)
RULES: dict[Action, tuple[Rule, ...]] = {
    "adopt": (
        around.schema_exists,
        around.privileges,
        received.names_taken,
        users.id_is_primary_key,
        users.email_is_unique,
        users.required_columns,
        types.beside_the_old_app,
        keys.foreign_keys_to_email,
        keys.foreign_keys_that_ignore_case,
        users.colliding_emails,
        keys.unvalidated_foreign_keys,
        keys.violated_foreign_keys,
        names.name_of_users,
        objects.published_without_identity,
        *OTHERS,
        *VALUES,
    ),
    "retire": (
        around.decisions_apply,
        around.privileges,
        around.may_make_schema,
        language.language,
        keys.foreign_keys_into_going_tables,
        keys.foreign_keys_into_going_columns,
        keys.foreign_keys_of_going_columns,
        keys.violated_foreign_keys,
        objects.dependents,
        objects.released_objects,
        objects.put_on_the_view,
        types.view_is_there,
        types.ids_are_rewritten,
        types.partition_keys,
        types.typed_tables,
        types.objects_over_new_types,
        types.what_does_not_follow,
        types.users_get_names,
        types.ids_without_key,
        objects.sequences_of_going_columns,
        objects.replica_identity,
        objects.names_collide,
        names.name_of_users,
        names.sequences_collide,
        names.not_null_names,
        in_use.sequence_of_ids,
        objects.functions,
        objects.constraints_over_going_columns,
        objects.publications,
        users.columns_by_name,
        users.inherited_columns,
        *OTHERS,
        *VALUES,
        values.rate_limits,
        fills.values_not_taken,
        around.identities("warn"),
        around.live_sessions,
        around.backup,
    ),
    "drop": (
        around.privileges,
        around.left_over,
        strangers.in_retired_schema,
        in_use.kept_tables,
        in_use.kept_by_name,
        in_use.sequence_of_ids,
        *OTHERS,
        keys.foreign_keys_into_going_tables,
        objects.dependents,
        objects.publications,
        around.identities("refuse"),
        around.backup,
    ),
}


def examine(situation: Situation) -> tuple[Finding, ...]:
    """Apply every rule that concerns the actions about to be taken; where the layout is in doubt, say so instead."""
    found = list(others.connection(situation))
    if situation.layout.doubts:
        found += [
            Finding(doubt.code, "refuse", doubt.subject, doubt.message, doubt.remedy)
            for doubt in situation.layout.doubts
        ]
    else:
        for action, rules in RULES.items():
            if action in situation.actions:
                found += [finding for rule in rules for finding in rule(situation)]
    return in_order(found, situation.options)


def first_contact(connection: Connection, options: Options) -> tuple[Finding, ...]:
    """Return what the connection alone has to say: what must be known before a lock is taken over it."""
    database = connection.exec_driver_sql("SELECT current_database()").scalar_one()
    return in_order(others.of_contact(make_contact(connection), database), options)


def in_order(found: Iterable[Finding], options: Options) -> tuple[Finding, ...]:
    """Return each finding once, refusals first, and those that were accepted as warnings."""
    order: dict[Level, int] = {"refuse": 0, "warn": 1, "info": 2}
    accepted = dict.fromkeys(_accepted(finding, options) for finding in found)
    return tuple(sorted(accepted, key=lambda finding: order[finding.level]))


def _accepted(finding: Finding, options: Options) -> Finding:
    if finding.level == "refuse" and finding.code in OVERRULABLE and finding.code in options.accept:
        return replace(finding, level="warn", message=f"{finding.message} Accepted.")
    return finding
