"""The server over HTTP: the only room that imports litestar.

A route of your own is protected because it is there, and says by name what it needs:

    @get("/notes")
    async def notes(user: NamedDependency[ShadowUser], database: NamedDependency[AsyncEngine]) -> list[str]:
        async with database.begin() as connection:
            found = await connection.execute(select(Note.text).where(Note.user_id == user.id))
        return list(found.scalars())

    app = create_app(routes=[notes])

and by a guard what it demands: `guards=[requires_role("editor"), requires_scope("notes.read")]` (`app.api.guards`).

    principal   Principal     who is asking and what they may do; touches no database
    user        ShadowUser    their row, made or refreshed if need be
    database    AsyncEngine   for transactions of your own; what fails to commit there is a 500, not a success

For a session of the ORM: `async with AsyncSession(database) as session, session.begin(): ...`. `exclude_from_auth=True`
opens a route, and `security=PUBLIC` says so in the document. Errors of `app.errors` become problem details by
themselves; `responses=answers(...)` has them in the document.
"""
