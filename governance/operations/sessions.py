"""The session in force: opened by whoever needs its window first, with the policy version that process has loaded."""

from dataclasses import dataclass

from governance.core.plans import StreamPlan
from governance.core.policy import Policy
from governance.core.sessions import Session, accounts, opening, session_id
from governance.core.windows import Window, window_at
from governance.errors import NotFound
from governance.operations.context import Governance, KeptSession
from governance.policy_file import parse_policy
from governance.store import sessions as store_sessions

_KEPT_SESSIONS = 256


@dataclass(frozen=True, slots=True)
class InForce:
    """A session with the policy version pinned to it and its stream's plan; `epoch` as of which it is known to be."""

    session: Session
    policy: Policy
    plan: StreamPlan
    epoch: int | None


def in_force(gov: Governance, stream: str, now_us: int) -> InForce:
    """The session of `stream` at `now_us`, opened if nobody has.

    A session keeps the window it was opened with, unless it is turned early; when a policy changes the length, the next
    one begins where it ends.
    """
    epoch = gov.boards[0].epoch if gov.boards else None
    kept = gov.sessions.get(stream)
    if kept is None or kept.epoch != epoch or not kept.session.window.start_us <= now_us < kept.session.window.end_us:
        session = store_sessions.at(gov.store, stream, now_us) or open_at(gov, stream, now_us, now_us)
        if len(gov.sessions) >= _KEPT_SESSIONS:
            gov.sessions.clear()
        kept = gov.sessions[stream] = KeptSession(session, epoch)
    policy = pinned_policy(gov, kept.session.policy_hash)
    return InForce(kept.session, policy, policy.plan_for(stream), epoch)


def pinned_policy(gov: Governance, policy_hash: str) -> Policy:
    """A policy version by its content hash, from the store when this process did not load it itself."""
    if policy_hash == gov.policy.hash:
        return gov.policy
    policy = gov.policies.get(policy_hash)
    if policy is None:
        source = store_sessions.policy_source(gov.store, policy_hash)
        if source is None:
            raise NotFound("policy", policy_hash, "the session that pins it was opened by another database")
        policy = gov.policies[policy_hash] = parse_policy(source, path=f"policy {policy_hash[:12]}")
    return policy


def session_policy(gov: Governance, session_id: str) -> Policy:
    """The policy version that a session was opened with. Raises NotFound."""
    session = store_sessions.find(gov.store, session_id)
    if session is None:
        raise NotFound("session", session_id, "its history was pruned")
    return pinned_policy(gov, session.policy_hash)


def open_at(gov: Governance, stream: str, at_us: int, now_us: int) -> Session:
    """The session of `stream` at `at_us`, opened with this process's policy unless it is open.

    It fills the aligned window as far as other sessions of the stream leave room.
    """
    plan = gov.policy.plan_for(stream)
    aligned = window_at(plan.window, at_us)
    before_us = store_sessions.last_end(gov.store, stream, at_us)
    after_us = store_sessions.next_start(gov.store, stream, at_us)
    window = Window(max(aligned.start_us, before_us or 0), min(aligned.end_us, after_us or aligned.end_us))
    session = Session(session_id(stream, window), stream, window, gov.policy.hash)
    store_sessions.keep_policy(gov.store, gov.policy, gov.policy_source, now_us)
    event = opening(session, plan.limits, actor="governance", at_us=now_us)
    return store_sessions.open_once(gov.store, session, accounts(session, plan.limits, plan.stripes), event)
