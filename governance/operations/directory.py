"""The directory of users, teams and orgs: replaced as a whole by a file, and asked whom an action is charged to."""

from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection

from governance.core.digest import canonical_json
from governance.core.directory import Directory
from governance.core.events import Event
from governance.core.identity import Identity, Membership, Resolved, resolve
from governance.core.principals import OPERATOR, Principal, require
from governance.errors import NotFound
from governance.operations.commanded import TakenError, fingerprint, first_answer
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.sessions import in_force
from governance.store import commands
from governance.store import directory as store_directory
from governance.store.events import append_in

# Users of whom a process remembers where they belong.
_REMEMBERED_MAX: Final = 10_000
_KIND: Final = "identities.load"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A directory that was put in place of the one before; `repeated` when the same command_id had done it."""

    hash: str
    hash_before: str | None
    orgs: int
    teams: int
    users: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class DirectoryLine:
    """The directory that is in force."""

    hash: str
    orgs: int
    teams: int
    users: int
    loaded_us: int
    loaded_by: str


@dataclass(frozen=True, slots=True)
class MemberLine:
    """A user with their team and its org; None where an org has no team, or a team no user."""

    org: str
    team: str | None
    user: str | None


def load(gov: Governance, directory: Directory, *, by: Principal, command_id: str | None = None) -> Loaded:
    """Replaces the directory as a whole; admissions from its commit on go by it. Raises NotAllowed, CommandConflict."""
    require(by, OPERATOR)
    digest = fingerprint(_KIND, directory.hash, by.name)
    first = _earlier(gov, command_id, digest)
    if first is not None:
        return first
    now_us = gov.clock.now_us()
    session_id = in_force(gov, CONTROL_STREAM, now_us).session.id
    loaded: list[Loaded] = []

    def tell(connection: Connection, hash_before: str | None) -> None:
        told = Loaded(directory.hash, hash_before, len(directory.orgs), len(directory.teams), len(directory.users))
        payload = {name: value for name, value in asdict(told).items() if name != "repeated"}
        if command_id is not None and not commands.claim(
            connection, command_id, _KIND, digest, canonical_json(payload), now_us
        ):
            raise TakenError
        append_in(connection, Event(session_id, "identities.loaded", by.actor, now_us, payload=payload))
        loaded.append(told)

    try:
        store_directory.replace(gov.store, directory, by=by.actor, at_us=now_us, also=tell)
    except TakenError:
        first = _earlier(gov, command_id, digest)
        assert first is not None
        return first
    return loaded[0]


def identity_of(gov: Governance, claimed: Identity) -> Resolved:
    """Whom a claim is charged to, as far as this process remembers the directory."""
    remembered = gov.directory
    if remembered.epoch == 0 or (claimed.user is None and claimed.team is None):
        return resolve(claimed, Membership())
    found = remembered.memberships.get((claimed.user, claimed.team))
    return identity_now(gov, claimed) if found is None else resolve(claimed, found[1])


def identity_at(gov: Governance, claimed: Identity, epoch: int) -> Resolved | None:
    """Whom a claim is charged to by the directory of `epoch` (0: none was loaded); None: this process does not know."""
    if epoch == 0 or (claimed.user is None and claimed.team is None):
        return resolve(claimed, Membership())
    found = gov.directory.memberships.get((claimed.user, claimed.team))
    if found is None or found[0] != epoch:
        identity_now(gov, claimed)
        return None
    return resolve(claimed, found[1])


def identity_now(gov: Governance, claimed: Identity) -> Resolved:
    """Whom a claim is charged to, by the directory that is in force."""
    if claimed.user is None and claimed.team is None:
        return resolve(claimed, Membership())
    epoch, known = store_directory.membership(gov.store, claimed)
    gov.directory.seen(epoch)
    if len(gov.directory.memberships) >= _REMEMBERED_MAX:
        gov.directory.memberships.clear()
    gov.directory.memberships[claimed.user, claimed.team] = epoch, known
    return resolve(claimed, known)


def in_place(gov: Governance) -> DirectoryLine | None:
    """The directory that is in force; None when none was ever loaded."""
    row = store_directory.latest(gov.store)
    if row is None:
        return None
    return DirectoryLine(row["hash"], row["orgs"], row["teams"], row["users"], row["loaded_us"], row["loaded_by"])


def list_members(gov: Governance, *, org: str | None, team: str | None, limit: int) -> list[MemberLine]:
    """By org, team and user."""
    return [MemberLine(*row) for row in store_directory.members(gov.store, org=org, team=team, limit=limit)]


def show_identity(gov: Governance, claimed: Identity) -> Resolved:
    """Whom an action that claims this would be charged to. Raises NotFound when the directory knows none of it."""
    _, known = store_directory.membership(gov.store, claimed)
    if known == Membership():
        name = claimed.user or claimed.team or ""
        raise NotFound("user" if claimed.user else "team", name, "acp identities list shows whom the directory knows")
    return resolve(claimed, known)


def _earlier(gov: Governance, command_id: str | None, digest: str) -> Loaded | None:
    said = first_answer(gov, command_id, digest)
    return None if said is None else Loaded(**said, repeated=True)
