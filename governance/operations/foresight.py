"""A first look that costs no round trip: what a message says of its action is taken for the row.

The gates decide on it as on any snapshot. Only an admission is written, and only if the row says the same, the epoch is
the one that this process knows everything of, and every hold fits; else the action is gathered and decided anew. So a
message that lies, or that is not all there is to know, costs a round trip and nothing else.
"""

from typing import Final

from governance.core.actions import State, Submission
from governance.core.board import Board
from governance.core.budgets import Charges
from governance.core.changes import ActionRef
from governance.core.ledger import Account
from governance.core.sessions import account_ids
from governance.operations.context import Governance
from governance.operations.directory import identity_at
from governance.operations.sessions import InForce
from governance.store.action_rows import ActionRow
from governance.store.actions import Gathered

_REMEMBERED_MAX: Final = 4096


def foreseen(gov: Governance, said: Submission, force: InForce, charges: Charges, board: Board) -> Gathered | None:
    """What a gathering would find if the row is as `said` and the accounts as they were last seen; None: unknown."""
    if gov.signing is not None:
        # A signature is of the message as it was submitted, which only the row has.
        return None
    ids = [*account_ids(force.session.id), *charges.accounts]
    accounts = tuple(gov.accounts[id_] for id_ in ids if id_ in gov.accounts)
    if len(accounts) < len(ids):
        return None
    resolved = identity_at(gov, said.claimed, board.directory_epoch)
    if resolved is None:
        return None
    return Gathered(_row(said.charged_to(resolved), force.session.id), resolved, False, accounts, board.epoch)


def remember(gov: Governance, accounts: tuple[Account, ...]) -> None:
    """How accounts stood when they were last seen."""
    if len(gov.accounts) >= _REMEMBERED_MAX:
        gov.accounts.clear()
    for account in accounts:
        gov.accounts[account.id] = account


def _row(said: Submission, session_id: str) -> ActionRow:
    """The row as it was submitted; without the message to publish again, which no decision looks at."""
    return ActionRow(
        ref=ActionRef(said.action_id, session_id, State.QUEUED, 0),
        command_id=said.command_id,
        name=said.name,
        digest=said.digest,
        stream=said.stream,
        idempotent=said.idempotent,
        direct=False,
        risk=said.risk,
        resource=said.resource,
        model=said.model,
        agent_id=said.agent_id,
        user=said.user,
        team=said.team,
        org=said.org,
        filled=said.filled,
        signature=None,
        cost_micros=said.cost_micros,
        tokens=said.tokens,
        correlation_id=said.correlation_id,
        message="",
        rule=None,
        reason=None,
        guidance=None,
        suggest=None,
        result=None,
        error_type=None,
        error=None,
        not_before_us=None,
        expires_us=None,
        lease_worker=None,
        lease_child=None,
        created_us=0,
        started_us=None,
        published_us=0,
        publish_count=1,
        delivered_us=None,
        grant_id=None,
        switch_id=None,
        ticket=None,
    )
