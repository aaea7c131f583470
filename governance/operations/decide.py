"""A person's decisions on requests: approve, deny, extend. A decision and an expiry that race have one winner: both
move the ticket from the same step.

The caller publishes what was released or denied afterwards; the relay does it if the caller cannot.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection

from governance.core.actions import State
from governance.core.approvals import Vote, parse_votes, votes_text
from governance.core.changes import Change
from governance.core.digest import storable
from governance.core.events import Event
from governance.core.grants import GrantTerms, OpenGrant, agreed
from governance.core.instants import SECOND_US, iso
from governance.core.principals import Principal
from governance.core.tickets import TicketState
from governance.core.transitions import Edit, asked_on, denied, released
from governance.core.windows import DAY_US
from governance.errors import InvalidOption
from governance.operations.commanded import Decided, commanded, earlier, fingerprint
from governance.operations.context import Governance
from governance.operations.requests import Asked, check_seen, find_asked
from governance.operations.sessions import in_force
from governance.store import grants
from governance.store.events import append_in

_EXTENSION_US_MAX = 366 * DAY_US
_DIGEST_LENGTH_MIN = 8


@dataclass(frozen=True, slots=True)
class EditedArguments:
    """Other arguments than the ones that were asked for: the message to publish, its digest, and its resource."""

    message: str
    digest: str
    resource: str | None


def approve(
    gov: Governance,
    ref: str,
    *,
    by: Principal,
    reason: str | None = None,
    command_id: str | None = None,
    seen: str | None = None,
    edit: EditedArguments | None = None,
    grant: GrantTerms | None = None,
) -> Decided:
    """Approves the pending ticket `ref` (its own id or its action's); the action is admitted anew, limits and all.

    With a quorum it is the last of the approvals that releases the action, and a grant is given if all of them ask for
    the same. Edited arguments are approved by whoever edits; earlier approvals were of other arguments and do not count
    any more. Raises as `approve_all`.
    """
    return approve_all(gov, [ref], by=by, reason=reason, command_id=command_id, seen=seen, edit=edit, grant=grant)[0]


def approve_all(
    gov: Governance,
    refs: Sequence[str],
    *,
    by: Principal,
    reason: str | None = None,
    command_id: str | None = None,
    seen: str | None = None,
    edit: EditedArguments | None = None,
    grant: GrantTerms | None = None,
) -> list[Decided]:
    """Approves all of `refs` or, when one of them cannot be, none.

    `seen` is how the digest begins of the arguments that were looked at; it has to be said once somebody edited them,
    except by whoever edits them all anew.

    Raises NotFound, NotAllowed, StateConflict, InvalidOption, CommandConflict.
    """
    reason = storable(reason) if reason else None
    digest = fingerprint("approve", list(refs), by.name, reason, edit and edit.digest, grant and _terms(grant))
    first = earlier(gov, command_id, digest)
    if first is not None:
        return first
    if seen is not None and (len(refs) != 1 or len(seen) < _DIGEST_LENGTH_MIN):
        raise InvalidOption("digest", seen, f"at least {_DIGEST_LENGTH_MIN} characters of the digest of one ticket")
    if edit is not None and len(refs) != 1:
        raise InvalidOption("edit", f"{len(refs)} tickets", "one ticket: other arguments are approved one by one")
    if grant is not None:
        if len(refs) != 1:
            expected = "one ticket: a grant is given with one approval; approve the others without its options"
            raise InvalidOption("grant", f"{len(refs)} tickets", expected)
        _check_terms(grant, gov.clock.now_us())
    asked = _find_all(gov, refs, by, reason, "approved")
    for one in asked if edit is None or seen is not None else ():
        check_seen(gov, one, seen)
    changes, decided, opened = [], [], []
    for one in asked:
        votes = _votes(one, edit, grant)
        change, votes_missing = _approval(one, edit, votes)
        given = _grant(gov, one, _agreed(votes, one.now_us)) if grant is not None and not votes_missing else None
        if given is not None:
            opened.append(given)
        changes.append(change)
        state = State.PARKED if votes_missing else State.QUEUED
        decided.append(Decided(one.action.ref.id, state, grant_id=given.id if given else None))

    def give(connection: Connection) -> None:
        for given in opened:
            grants.give(connection, given, by=by.actor, at_us=asked[0].now_us)
            append_in(connection, _given(asked, given, by))

    return commanded(gov, changes, decided, "approve", command_id, digest, give)


def deny(gov: Governance, ref: str, *, by: Principal, reason: str, command_id: str | None = None) -> Decided:
    """Denies the pending ticket `ref`; the reason reaches the caller of the action. Raises as `approve_all`."""
    return deny_all(gov, [ref], by=by, reason=reason, command_id=command_id)[0]


def deny_all(
    gov: Governance, refs: Sequence[str], *, by: Principal, reason: str, command_id: str | None = None
) -> list[Decided]:
    """Denies all of `refs` or, when one of them cannot be, none."""
    reason = storable(reason)
    digest = fingerprint("deny", list(refs), by.name, reason)
    first = earlier(gov, command_id, digest)
    if first is not None:
        return first
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for whoever asked for the action")
    asked = _find_all(gov, refs, by, reason, "denied")
    changes = [
        denied(
            one.action.ref,
            one.author,
            rule=one.ticket["rule"],
            reason=reason,
            ticket=one.move(TicketState.DENIED),
        )
        for one in asked
    ]
    decided = [Decided(one.action.ref.id, State.DENIED) for one in asked]
    return commanded(gov, changes, decided, "deny", command_id, digest)


def extend(
    gov: Governance, ref: str, *, by: Principal, seconds: float, reason: str, command_id: str | None = None
) -> Decided:
    """Gives the level that is asked now, and with it the request, `seconds` more. Raises as `approve_all`."""
    digest = fingerprint("extend", ref, by.name, seconds, reason)
    first = earlier(gov, command_id, digest)
    if first is not None:
        return first[0]
    more_us = int(seconds * SECOND_US)
    if not 0 < more_us <= _EXTENSION_US_MAX:
        raise InvalidOption("by", seconds, "more than 0 and at most 366 days")
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for the trail")
    one = find_asked(gov, ref, by, storable(reason), "extended")
    due_us, expires_us = one.ticket["due_us"] + more_us, one.ticket["expires_us"] + more_us
    change = asked_on(
        one.action.ref,
        one.author,
        kind="ticket.extended",
        ticket=one.move(TicketState.PENDING, due_us=due_us, expires_us=expires_us),
        payload={"due_us": due_us, "expires_us": expires_us, "reason": reason},
    )
    return commanded(gov, [change], [Decided(one.action.ref.id, State.PARKED)], "extend", command_id, digest)[0]


def _find_all(gov: Governance, refs: Sequence[str], by: Principal, reason: str | None, wanted: str) -> list[Asked]:
    """Each request once, whether it was named by its own id, its action's, or both."""
    found = (find_asked(gov, ref, by, reason, wanted) for ref in refs)
    return list({one.ticket["id"]: one for one in found}.values())


def _votes(one: Asked, edited: EditedArguments | None, grant: GrantTerms | None) -> tuple[Vote, ...]:
    """The approvals that count with this one: of other arguments none does any more."""
    before = () if _changes(one, edited) else parse_votes(one.ticket["votes"])
    return (*before, Vote(one.by.name, one.now_us, one.reason, grant))


def _changes(one: Asked, edited: EditedArguments | None) -> bool:
    return edited is not None and edited.digest != one.action.digest


def _approval(one: Asked, edited: EditedArguments | None, votes: tuple[Vote, ...]) -> tuple[Change, int]:
    """The change, and how many approvals are still missing after it."""
    edit = None
    if edited is not None and _changes(one, edited):
        edit = Edit(edited.message, edited.digest, one.action.digest, edited.resource)
    changed = {"votes": votes_text(votes), "digest": edit.digest if edit else None}
    missing = one.chain.approvals - len(votes)
    if missing <= 0:
        move = one.move(TicketState.APPROVED, **changed)
        return released(one.action.ref, one.author, cause="approved", ticket=move, edit=edit), 0
    payload: dict[str, object] = {"approvals": len(votes), "wanted": one.chain.approvals}
    if one.reason:
        payload["reason"] = one.reason
    if votes[-1].grant is not None:
        payload["grant"] = asdict(votes[-1].grant)
    if edit is not None:
        payload |= {"digest": edit.digest, "digest_before": edit.digest_before}
    move = one.move(TicketState.PENDING, **changed)
    change = asked_on(one.action.ref, one.author, kind="ticket.voted", ticket=move, payload=payload, edit=edit)
    return change, missing


def _agreed(votes: Sequence[Vote], now_us: int) -> GrantTerms:
    """What stands for as many people's click needs as many people. Raises InvalidOption."""
    terms = agreed([vote.grant for vote in votes])
    if terms is None:
        others = "; ".join(f"{vote.by} asked for {vote.grant or 'no grant'}" for vote in votes[:-1])
        expected = f"what all who approve ask for, or nothing ({others}): approve without a grant, or as they did"
        raise InvalidOption("grant", str(votes[-1].grant), expected)
    _check_terms(terms, now_us)
    return terms


def _check_terms(terms: GrantTerms, now_us: int) -> None:
    if not terms.for_session and terms.until_us is None:
        raise InvalidOption("grant", "without an end", "--for-session or --until: a grant does not last for ever")
    if terms.until_us is not None and terms.until_us <= now_us:
        raise InvalidOption("until", iso(terms.until_us), "an instant to come")
    for name, value in (("max-uses", terms.max_uses), ("max-cost-usd", terms.max_cost_micros)):
        if value is not None and value < 0:
            raise InvalidOption(name, value, "0 or more")


def _terms(terms: GrantTerms) -> list[object]:
    return [terms.for_session, terms.resource, terms.max_uses, terms.max_cost_micros, terms.until_us]


def _grant(gov: Governance, one: Asked, terms: GrantTerms) -> OpenGrant:
    ticket, action = one.ticket, one.action
    return OpenGrant(
        id=gov.new_id(),
        ticket_id=ticket["id"],
        rule=ticket["rule"],
        chain_hash=ticket["chain_hash"],
        action_name=action.name,
        agent_id=action.agent_id,
        user=action.user,
        # Not the session it was asked in: that may be over by now.
        session_id=in_force(gov, action.stream, one.now_us).session.id if terms.for_session else None,
        resource=terms.resource,
        max_uses=terms.max_uses,
        max_cost_micros=terms.max_cost_micros,
        until_us=terms.until_us,
    )


def _given(asked: Sequence[Asked], given: OpenGrant, by: Principal) -> Event:
    one = next(one for one in asked if one.ticket["id"] == given.ticket_id)
    return Event(
        session_id=one.action.ref.session_id,
        kind="grant.given",
        actor=by.actor,
        at_us=one.now_us,
        payload={
            "grant": given.id,
            "ticket": given.ticket_id,
            "rule": given.rule,
            "action_name": given.action_name,
            "session": given.session_id,
            "resource": given.resource,
            "max_uses": given.max_uses,
            "max_cost_micros": given.max_cost_micros,
            "until_us": given.until_us,
        },
    )
