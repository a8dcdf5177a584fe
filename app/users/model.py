"""The shadow row as SQLAlchemy sees it: one table `users`, keyed by the provider's `sub`; and two beside it, of which
events came and whom the provider has shut out.

The promise: the columns here are the target of the cutover, no more and no fewer; the app's own columns stay in the
table unseen. The schema is not fixed: the connection's search_path decides. Beside an old app `users` is a view over
its table, or that table itself, with the types and the nulls that are there.

A model of your own hangs on the user in three lines:

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect, Index, MetaData, String, Text, TypeDecorator, false, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base of this app's models; constraints are named as PostgreSQL itself names them."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "ix": "%(table_name)s_%(column_0_name)s_idx",
        }
    )


class Moment(TypeDecorator[datetime]):
    """A time with its zone, also where the column of an old app has none: there it is UTC.

    PostgreSQL writes and compares such columns in the zone of the connection, which has to be UTC.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class User(Base):
    """A user of the identity provider, as far as this app knows them."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    """The provider's `sub`, verbatim."""
    name: Mapped[str] = mapped_column(Text)
    """Mirrored. Empty while no token has said it."""
    email: Mapped[str] = mapped_column(Text, unique=True)
    """Mirrored. `<sub>@placeholder.invalid` while no address is known, or another user has it."""
    email_verified: Mapped[bool] = mapped_column(server_default=false())
    """Mirrored, and only together with the address it was said of."""
    image: Mapped[str | None] = mapped_column(Text)
    """Mirrored. The URL of a picture."""
    onboarding_completed_at: Mapped[datetime | None] = mapped_column(Moment)
    """The app's own."""
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Moment, server_default=func.now(), onupdate=func.now())
    deleted_at: Mapped[datetime | None] = mapped_column(Moment)
    """The app's own: soft delete. No token brings the user back."""
    identity_updated_at: Mapped[datetime | None] = mapped_column(Moment)
    """When the provider last said what is mirrored here; null is older than anything."""


class ReceivedEvent(Base):
    """An event of the provider that came. Nothing of what it said is kept, but for whom and when."""

    __tablename__ = "shadow_events"
    __table_args__ = (Index(None, "sub"),)

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    """The delivery's own, the same on every retry."""
    type: Mapped[str] = mapped_column(Text)
    """As sent."""
    sub: Mapped[str | None] = mapped_column(String(255))
    stated_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    outcome: Mapped[str] = mapped_column(Text)


class Standing(Base):
    """Whether the provider has shut a user out. Also of a `sub` without a row; so no foreign key leads to users."""

    __tablename__ = "shadow_standing"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    """The provider's `sub`, verbatim."""
    disabled: Mapped[bool]
    """Banned or deactivated."""
    stated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    """When the provider last said so."""
    until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When a ban runs out by itself; null for one that does not."""
