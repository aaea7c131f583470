"""Who belongs where: the directory of users, teams and orgs, and what was loaded into it when."""

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, Table, Text

from governance.store.schema.base import metadata

orgs = Table("orgs", metadata, Column("id", Text, primary_key=True))

teams = Table(
    "teams",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org", Text, ForeignKey("orgs.id"), nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("team", Text, ForeignKey("teams.id"), nullable=False),
)

# Every load of the directory; the latest is what the three tables say. Each takes the next epoch, so that an admission
# that read an earlier directory is not written.
directories = Table(
    "directories",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", Text, nullable=False),  # of its content
    Column("orgs", Integer, nullable=False),
    Column("teams", Integer, nullable=False),
    Column("users", Integer, nullable=False),
    Column("loaded_us", BigInteger, nullable=False),
    Column("loaded_by", Text, nullable=False),
)
