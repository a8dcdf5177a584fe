"""What has to be known before anything is touched: which rules concern which action, and all of them in one pass.

The promise: refusals come first, and no rule is left out because another one spoke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from app.cutover.findings import OVERRULABLE, Action, Finding, Level, Options, Situation
from app.cutover.rules import around, keys, objects, types, users

Rule = Callable[[Situation], Iterator[Finding]]
RULES: dict[Action, tuple[Rule, ...]] = {
    "adopt": (
        around.schema_exists,
        around.privileges,
        users.id_is_primary_key,
        users.email_is_unique,
        users.required_columns,
        types.beside_the_old_app,
        keys.foreign_keys_to_email,
        users.colliding_emails,
        keys.unvalidated_foreign_keys,
        around.long_transactions,
    ),
    "retire": (
        around.decisions_apply,
        around.privileges,
        around.may_make_schema,
        keys.foreign_keys_into_going_tables,
        keys.foreign_keys_into_going_columns,
        keys.foreign_keys_of_going_columns,
        objects.dependents,
        objects.released_objects,
        types.ids_are_rewritten,
        types.partition_keys,
        types.objects_over_new_types,
        types.users_get_names,
        types.ids_without_key,
        objects.sequences_of_going_columns,
        objects.replica_identity,
        objects.functions,
        objects.constraints_over_going_columns,
        objects.publications,
        users.columns_by_name,
        around.identities("warn"),
        around.live_sessions,
        around.backup,
    ),
    "drop": (
        around.privileges,
        around.left_over,
        keys.foreign_keys_into_going_tables,
        objects.dependents,
        objects.publications,
        around.identities("refuse"),
        around.backup,
    ),
}


def examine(situation: Situation) -> tuple[Finding, ...]:
    """Apply every rule that concerns the actions about to be taken."""
    if situation.layout.doubts:
        return tuple(
            Finding(doubt.code, "refuse", doubt.subject, doubt.message, doubt.remedy)
            for doubt in situation.layout.doubts
        )
    found: list[Finding] = []
    for action, rules in RULES.items():
        if action in situation.actions:
            for rule in rules:
                found += [_accepted(finding, situation.options) for finding in rule(situation)]
    order: dict[Level, int] = {"refuse": 0, "warn": 1, "info": 2}
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: order[finding.level]))


def _accepted(finding: Finding, options: Options) -> Finding:
    if finding.level == "refuse" and finding.code in OVERRULABLE and finding.code in options.accept:
        return replace(finding, level="warn", message=f"{finding.message} Accepted.")
    return finding
