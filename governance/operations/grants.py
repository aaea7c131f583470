"""Grants in use: finding the one that an attempt may run under, listing and revoking."""

from dataclasses import dataclass, fields, replace

from sqlalchemy import RowMapping

from governance.core.events import Event
from governance.core.grants import UseGrant, Wanted
from governance.core.principals import Principal
from governance.errors import InvalidOption, NotFound, StateConflict
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.principals import require
from governance.operations.sessions import in_force
from governance.store import grants
from governance.store.events import append_in


@dataclass(frozen=True, slots=True)
class GrantLine:
    """A grant as people see it; `state` is lasting, used_up, over or revoked."""

    id: str
    state: str
    rule: str
    action_name: str
    agent_id: str | None
    user: str | None
    session_id: str | None
    resource: str | None
    uses: int
    max_uses: int | None
    cost_micros: int
    max_cost_micros: int | None
    until_us: int | None
    created_us: int
    created_by: str
    ticket_id: str


def find_grant(gov: Governance, wanted: Wanted, used_before: str | None) -> UseGrant | None:
    """The oldest grant that covers `wanted`; another attempt of an action uses the one it has used once only."""
    for grant in grants.usable(gov.store, wanted, used_before):
        uses = 0 if grant.id == used_before else wanted.uses
        asked = replace(wanted, uses=uses)
        if grant.covers(asked):
            return UseGrant(grant.id, uses, asked.cost_micros)
    return None


def list_grants(gov: Governance, *, everything: bool, limit: int) -> list[GrantLine]:
    now_us = gov.clock.now_us()
    return [_line(row) for row in grants.listing(gov.store, everything=everything, now_us=now_us, limit=limit)]


def revoke(gov: Governance, grant_id: str, *, by: Principal, reason: str) -> None:
    """Ends a grant; what was admitted under it goes on. Raises NotFound, StateConflict, InvalidOption, NotAllowed."""
    require(by, "approver")
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for the trail")
    found = grants.find(gov.store, grant_id)
    if found is None:
        raise NotFound("grant", grant_id, "acp grants list shows the ones that last")
    now_us = gov.clock.now_us()
    event = Event(
        session_id=found["session_id"] or in_force(gov, CONTROL_STREAM, now_us).session.id,
        kind="grant.revoked",
        actor=by.actor,
        at_us=now_us,
        payload={"grant": grant_id, "reason": reason, "uses": found["uses"], "cost_micros": found["cost_micros"]},
    )
    with gov.store.transaction() as connection:
        if not grants.revoke(connection, grant_id, by=by.actor, reason=reason, at_us=now_us):
            raise StateConflict("grant", grant_id, "revoked", "revoked again", "acp grants list --all shows by whom")
        append_in(connection, event)


def _line(row: RowMapping) -> GrantLine:
    if row["revoked_us"] is not None:
        state = "revoked"
    elif row["over"]:
        state = "over"
    elif row["used_up"]:
        state = "used_up"
    else:
        state = "lasting"
    names = [field.name for field in fields(GrantLine) if field.name != "state"]
    return GrantLine(state=state, **{name: row[name] for name in names})
