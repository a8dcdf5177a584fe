"""The shadow row on a real PostgreSQL under many requests at once: no error, one row a sub, one holder an address."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.idp.claims import Claims
from app.users.identity import AddressLost, ShadowRules, ShadowUser
from app.users.shadow import edit, provision, soft_delete
from tests.users.stated import MONDAY, SCALE, claims

pytestmark = pytest.mark.anyio
RULES = ShadowRules()


async def emails(engine: AsyncEngine) -> dict[str, str]:
    async with engine.connect() as connection:
        return {row.id: row.email for row in await connection.execute(text("SELECT id, email FROM users"))}


async def deadlocks(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        of_this = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int((await connection.execute(text(of_this))).scalar_one())


async def test_identical_first_requests_make_one_row(engine: AsyncEngine) -> None:
    users = await asyncio.gather(*(provision(engine, claims(), RULES) for _ in range(200)))
    assert len(set(users)) == 1
    assert await emails(engine) == {"ada": "ada@example.com"}


async def test_first_requests_with_differing_tokens_end_with_the_newest(engine: AsyncEngine) -> None:
    tokens = [claims(iat=MONDAY + n, email=f"ada{n}@example.com", name=f"Ada {n}") for n in range(100)]
    await asyncio.gather(*(provision(engine, token, RULES) for token in tokens))
    assert await emails(engine) == {"ada": "ada99@example.com"}


async def test_the_newest_of_several_at_once_counts_also_where_it_repeats_what_there_was(engine: AsyncEngine) -> None:
    """Compared with the row as it was, it changes the picture alone; the name that another one writes is older."""
    for n in range(60):
        first, older, newest = (MONDAY + 60 * n + second for second in (0, 10, 15))
        was = {"name": "Ada", "image": "https://x.example/1", "email_verified": False}
        await provision(engine, claims(iat=first, **was), RULES)
        stated = [
            claims(iat=older, **(was | {"name": "Byron", "email_verified": True})),
            claims(iat=newest, **(was | {"image": "https://x.example/2"})),
        ]
        random.Random(n).shuffle(stated)
        await asyncio.gather(*(provision(engine, each, RULES) for each in stated))
        async with engine.connect() as connection:
            (row,) = await connection.execute(text("SELECT name, image, email_verified FROM users"))
        assert tuple(row) == ("Ada", "https://x.example/2", False), n


@pytest.mark.parametrize("second", [lambda _: 0, lambda n: n, lambda n: -n], ids=["same", "rising", "falling"])
async def test_conflicting_first_requests_make_a_row_each_and_one_holder(
    engine: AsyncEngine, second: Callable[[int], int]
) -> None:
    lost: list[AddressLost] = []
    rules = ShadowRules(observe=lost.append)
    tokens = [claims(f"u{n}", email="it@example.com", iat=MONDAY + second(n)) for n in range(300)]
    await asyncio.gather(*(provision(engine, token, rules) for token in tokens))
    found = await emails(engine)
    holders = [sub for sub, email in found.items() if email == "it@example.com"]
    assert len(holders) == 1
    assert found == {f"u{n}": f"u{n}@placeholder.invalid" for n in range(300)} | {holders[0]: "it@example.com"}
    if second(1):
        assert holders == [max(tokens, key=lambda token: token.iat or 0).sub]
    assert len(lost) == 299
    assert await deadlocks(engine) == 0


REQUESTS = int(8_000 * SCALE)


async def provision_all(engine: AsyncEngine, tokens: Iterable[Claims], rules: ShadowRules) -> list[ShadowUser]:
    """Send a request with each token, a hundred at a time, over the ten connections of the pool."""
    free = asyncio.Semaphore(100)

    async def send(token: Claims) -> ShadowUser:
        async with free:
            return await provision(engine, token, rules)

    return await asyncio.gather(*(send(token) for token in tokens))


async def test_thousands_of_identical_first_requests_make_one_row(engine: AsyncEngine) -> None:
    users = await provision_all(engine, [claims()] * REQUESTS, RULES)
    assert len(set(users)) == 1
    assert await emails(engine) == {"ada": "ada@example.com"}
    assert await deadlocks(engine) == 0


async def test_thousands_of_conflicting_first_requests_make_a_row_each_and_the_newest_has_the_address(
    engine: AsyncEngine,
) -> None:
    lost: list[AddressLost] = []
    each = REQUESTS // 100
    # each address is asserted for a hundred users, first by whoever comes first, and never twice in one second
    tokens = [claims(f"u{at}-{n}", email=f"{at}@example.com", iat=MONDAY + n) for at in range(each) for n in range(100)]
    random.Random(4).shuffle(tokens)
    await provision_all(engine, tokens, ShadowRules(observe=lost.append))
    assert await emails(engine) == {
        f"u{at}-{n}": f"{at}@example.com" if n == 99 else f"u{at}-{n}@placeholder.invalid"
        for at in range(each)
        for n in range(100)
    }
    assert len(lost) == 99 * each
    assert await deadlocks(engine) == 0


async def test_users_who_swap_addresses_over_and_over_end_with_what_the_newest_tokens_say(engine: AsyncEngine) -> None:
    a, b = "a@example.com", "b@example.com"
    await asyncio.gather(provision(engine, claims("x", email=a), RULES), provision(engine, claims("y", email=b), RULES))
    for n in range(1, 41):
        mine, theirs = (b, a) if n % 2 else (a, b)
        iat = MONDAY + 10 * n
        await asyncio.gather(
            *(provision(engine, claims("x", email=mine, iat=iat), RULES) for _ in range(3)),
            *(provision(engine, claims("y", email=theirs, iat=iat), RULES) for _ in range(3)),
        )
        assert await emails(engine) == {"x": mine, "y": theirs}
    assert await deadlocks(engine) == 0


async def test_addresses_that_go_round_in_a_ring_do_not_deadlock(engine: AsyncEngine) -> None:
    size = 12
    for n in range(10):
        await asyncio.gather(
            *(
                provision(engine, claims(f"u{i}", email=f"{(i + n) % size}@example.com", iat=MONDAY + 10 * n), RULES)
                for i in range(size)
            )
        )
        held = [email for email in (await emails(engine)).values() if email.endswith("@example.com")]
        assert len(held) == len(set(held))
    assert await emails(engine) == {f"u{i}": f"{(i + 9) % size}@example.com" for i in range(size)}
    assert await deadlocks(engine) == 0


async def test_a_deletion_among_requests_is_final(engine: AsyncEngine) -> None:
    await provision(engine, claims(), RULES)
    results = await asyncio.gather(
        *(provision(engine, claims(iat=MONDAY + n, email=f"{n}@example.com"), RULES) for n in range(40)),
        soft_delete(engine, "ada"),
        *(edit(engine, "ada", {"onboarding_completed_at": None}) for _ in range(20)),
        return_exceptions=True,
    )
    assert {type(result).__name__ for result in results} <= {"ShadowUser", "NoneType", "AccountDeleted"}
    async with engine.connect() as connection:
        deleted = await connection.execute(text("SELECT deleted_at IS NOT NULL FROM users"))
        assert [tuple(row) for row in deleted] == [(True,)]
