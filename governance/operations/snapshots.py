"""What the gates of an admission look at: one snapshot of the action, its session, its accounts and the rules."""

from governance.core import admit as core
from governance.core import signing
from governance.core.board import Board
from governance.core.budgets import Charges, model_patterns
from governance.core.grants import UseGrant, Wanted
from governance.core.ledger import estimate
from governance.core.models import ModelAccess, ModelGovernor
from governance.core.policy import ActionFacts, Park, Risk, Verdict, decide
from governance.core.switches import stopping
from governance.operations.context import Governance
from governance.operations.grants import find_grant
from governance.operations.sessions import InForce
from governance.operations.switches import payer_of, subject_of
from governance.store.action_rows import ActionRow
from governance.store.actions import Gathered


def snapshot(
    gov: Governance,
    gathered: Gathered,
    force: InForce,
    charges: Charges,
    board: Board,
    facts: ActionFacts,
    now_us: int,
    *,
    can_wait: bool,
) -> core.Snapshot:
    """What the gates look at. `facts` are the action's own, with the arguments that its message would run."""
    action = gathered.action
    verdict = decide(force.policy, facts)
    return core.Snapshot(
        action=action.ref,
        digest=action.digest,
        session=force.session,
        unsigned=_unsigned(gov, action),
        identity=gathered.identity,
        required=force.policy.require_identity,
        switch=stopping(board.engaged, subject_of(action, force.session.id)),
        verdict=verdict,
        ticket=action.ticket,
        grant=_grant(gov, action, force, verdict, facts.resource, now_us),
        payer=payer_of(action),
        charges=charges,
        access=_access(action, force, charges, now_us),
        accounts=gathered.accounts,
        amounts=estimate(action.cost_micros, action.tokens),
        on_exhausted=force.plan.on_exhausted,
        expires_us=action.expires_us,
        can_wait=can_wait,
        now_us=now_us,
    )


def _access(action: ActionRow, force: InForce, charges: Charges, now_us: int) -> ModelAccess | None:
    """Whether the action may use the model that it declares; None when it declares none."""
    if action.model is None:
        return None
    governor = ModelGovernor(force.policy.models, now_us, model_patterns(charges.charges))
    return governor.check_access(action.model, payer_of(action), Risk(action.risk))


def _unsigned(gov: Governance, action: ActionRow) -> str | None:
    """Why the row is not what was signed; None when it is, or no signature is asked for."""
    if gov.signing is None:
        return None
    return signing.problem(gov.signing, action.signature, action.signable, action.ticket)


def _grant(
    gov: Governance, action: ActionRow, force: InForce, verdict: Verdict, resource: str | None, now_us: int
) -> UseGrant | None:
    """The grant that stands for a ticket; looked for only where a ticket is wanted and does not stand."""
    if not isinstance(verdict, Park) or core.ticket_stands(
        action.ticket, verdict, action.digest, force.session.policy_hash
    ):
        return None
    return find_grant(
        gov,
        Wanted(
            rule=verdict.rule,
            chain_hash=verdict.chain.hash,
            action_name=action.name,
            agent_id=action.agent_id,
            user=action.user,
            session_id=force.session.id,
            resource=resource,
            uses=1,
            cost_micros=action.cost_micros,
            now_us=now_us,
        ),
        used_before=action.grant_id,
    )
