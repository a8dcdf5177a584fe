"""The requests of the demonstration: what a client of the API would ask, and what became of the rows.

The promise: nothing of the server's code is used; what is seen over HTTP is compared with what psql sees.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from threading import Barrier
from typing import Any

import httpx

from scripts.demo_parts import FIXTURES, Database, Record, Unmet

CROWD = 200
"""First requests of one sub at once."""


@dataclass(frozen=True)
class Client:
    """A client of the API, which gets its tokens from the provider."""

    api: httpx.Client
    idp: httpx.Client
    database: Database

    def token(self, sub: str, **asked: Any) -> str:
        """Have the provider mint a token."""
        answer = self.idp.post("/dev/token", json={"sub": sub, **asked})
        return str(expect(answer, 200)["token"])

    def me(self, token: str, method: str = "GET", body: object = None) -> httpx.Response:
        """Ask for /me as the bearer of a token."""
        return self.api.request(method, "/me", json=body, headers={"Authorization": f"Bearer {token}"})

    def row(self, sub: str) -> dict[str, Any]:
        """Return a user's row as it is in the database."""
        return self.database.users()[sub]


def expect(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Return the body of an answer that has this status and, if it is a problem, this code."""
    body: dict[str, Any] = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    if answer.status_code != status or (code is not None and body.get("code") != code):
        asked = f"{answer.request.method} {answer.request.url.path}"
        raise Unmet(f"{asked} answered {answer.status_code} {body.get('code', '')} {body.get('detail', '')}".rstrip())
    return body


def challenge_of(answer: httpx.Response) -> str:
    """Return the challenge of a 401 (RFC 6750 section 3)."""
    challenge = str(answer.headers.get("WWW-Authenticate", ""))
    if not challenge.startswith("Bearer"):
        raise Unmet(f"WWW-Authenticate is {challenge!r}")
    return challenge


def visit(record: Record, client: Client) -> None:
    """Make the requests a client would."""
    old = json.loads((FIXTURES / "plural_snake.creds.json").read_text())["users"][0]["id"]
    row = client.row(old)
    told = {"email": row["email"], "email_verified": row["email_verified"], "name": row["name"]}
    told |= {"picture": row["image"]} if row["image"] else {}
    token = client.token(old, claims=told)
    new = f"demo_{time.time_ns():x}"
    new_token = client.token(new, kind="session", claims={"email": f"{new}@example.com", "name": "Grace Hopper"})

    def old_user_reads_me() -> str:
        count = len(client.database.users())
        user = expect(client.me(token), 200)["user"]
        same = {"id": "id", "email": "email", "name": "name", "emailVerified": "email_verified", "image": "image"}
        wrong = [name for name, column in same.items() if user[name] != row[column]]
        if datetime.fromisoformat(user["createdAt"]) != datetime.fromisoformat(row["created_at"]):
            wrong.append("createdAt")
        now = client.row(old)
        wrong += [name for name in row if name != "identity_updated_at" and now[name] != row[name]]
        if wrong or len(client.database.users()) != count:
            raise Unmet(f"{', '.join(wrong)} differ; {len(client.database.users()) - count} rows more")
        return f"{user['name']} <{user['email']}>, since {user['createdAt'][:10]}; the row is untouched"

    def new_sub_appears() -> str:
        before = set(client.database.users())
        user = expect(client.me(new_token), 200)["user"]
        expect(client.me(new_token), 200)
        if user["id"] != new or set(client.database.users()) - before != {new}:
            raise Unmet(f"id {user['id']}, rows more: {set(client.database.users()) - before}")
        return "one row more, and one only"

    def bad_signature_is_refused() -> str:
        answer = client.me(client.token(old, broken="signature"))
        expect(answer, 401, "invalid_token")
        if 'error="invalid_token"' not in challenge_of(answer):
            raise Unmet(challenge_of(answer))
        return '401, WWW-Authenticate: Bearer ... error="invalid_token"'

    def nobody_is_asked_to_sign_in() -> str:
        answer = client.api.get("/me")
        expect(answer, 401)
        if "error" in challenge_of(answer):
            raise Unmet(challenge_of(answer))
        return "401, a challenge without an error"

    def own_field_is_patched() -> str:
        at = "2026-01-02T03:04:05.678Z"
        user = expect(client.me(token, "PATCH", {"onboardingCompletedAt": at}), 200)["user"]
        for seen in (user["onboardingCompletedAt"], client.row(old)["onboarding_completed_at"]):
            if seen is None or datetime.fromisoformat(seen) != datetime.fromisoformat(at):
                raise Unmet(f"{seen} instead of {at}")
        return f"onboardingCompletedAt is {at}, in the answer and in the row"

    def identity_field_is_refused() -> str:
        expect(client.me(token, "PATCH", {"email": "someone.else@example.com"}), 422, "identity_field")
        if client.row(old)["email"] != row["email"]:
            raise Unmet(f"the row's e-mail is {client.row(old)['email']}")
        return "422 identity_field, the row keeps its e-mail"

    def deleted_stays_deleted() -> str:
        if expect(client.me(new_token, "DELETE"), 200) != {"success": True}:
            raise Unmet("DELETE /me did not answer success")
        expect(client.me(client.token(new)), 403, "account_deleted")
        if client.row(new)["deleted_at"] is None:
            raise Unmet("the row has no deleted_at")
        return "200, then 403 account_deleted with any token; the row stays, with deleted_at"

    def crowd_gives_one_row() -> str:
        before = set(client.database.users())
        one = client.token(f"{new}_crowd", alg="ES256", claims={"email": f"{new}_crowd@example.com", "name": "Crowd"})
        together = Barrier(CROWD)

        def ask(_: int) -> httpx.Response:
            together.wait()
            return client.me(one)

        with ThreadPoolExecutor(CROWD) as pool:
            answers = list(pool.map(ask, range(CROWD)))
        for answer in answers:
            expect(answer, 200)
        if (more := set(client.database.users()) - before) != {f"{new}_crowd"}:
            raise Unmet(f"rows more: {more}")
        return f"{CROWD} times 200, one row"

    def rotation_breaks_nothing() -> str:
        expect(client.idp.post("/dev/rotate"), 200)
        expect(client.me(client.token(old, claims=told)), 200)
        expect(client.me(token), 200)
        for algorithm in ("ES256", "EdDSA"):
            expect(client.me(client.token(old, alg=algorithm, claims=told)), 200)
        return "new keys are good at once (RS256, ES256, EdDSA), and the old token still is"

    def outage_is_survived() -> str:
        expect(client.idp.post("/dev/outage", json={"on": True}), 200)
        try:
            expect(client.idp.get("/api/auth/jwks"), 503)
            expect(client.me(client.token(old, claims=told)), 200)
            expect(client.me(client.token(old, claims=told, broken="signature")), 401, "invalid_token")
        finally:
            client.idp.post("/dev/outage", json={"on": False})
        return "keys answer 503; a good token is still good, a bad one still bad"

    record.part("The requests")
    record.step("A user of the old database reads /me and is the same row", old_user_reads_me)
    record.step("A sub never seen before appears", new_sub_appears)
    record.step("A token with a bad signature is refused", bad_signature_is_refused)
    record.step("No credentials: a challenge, and no error", nobody_is_asked_to_sign_in)
    record.step("PATCH of a field that the app owns", own_field_is_patched)
    record.step("PATCH of a field that the provider owns is refused", identity_field_is_refused)
    record.step("DELETE, and then the door is shut", deleted_stays_deleted)
    record.step(f"{CROWD} first requests at once", crowd_gives_one_row)
    record.step("The provider rotates its keys", rotation_breaks_nothing)
    record.step("The provider's keys cannot be had", outage_is_survived)
