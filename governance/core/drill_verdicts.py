"""What a drill's plan and its trail prove together, step by step. Zero of anything proves nothing, so it fails."""

import json
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final

from governance.core.actions import State
from governance.core.approvals import Chain
from governance.core.drills import BacklogPlan, Figure, Findings, KillPlan, Placed, RecoveryPlan, Step, Trail
from governance.core.events import StoredEvent

_NAMED_MAX: Final = 5


def judge_kill(plan: KillPlan, canaries: Trail, bystanders: Trail, threshold_ms: int) -> Findings:
    """What the two sessions of a kill drill prove: the one that was stopped, and the one beside it."""
    engaged = canaries.first("switch.engaged")
    ran = [placed for placed in plan.canaries if _ran_before(canaries, placed, engaged)]
    stops_ms = [ms for placed in ran if (ms := _stop_ms(canaries, placed, engaged)) is not None]
    p99_ms = percentile(stops_ms, 0.99)
    through = [placed for placed in plan.bystanders if _ran_before(bystanders, placed, engaged)]
    return Findings(
        steps=(
            _a_canary_on_every_worker(plan, ran),
            _all_stopped(canaries, ran, stops_ms),
            _in_time(p99_ms, threshold_ms),
            _nothing_started_after(plan, canaries, engaged),
            _other_work_went_on(plan, bystanders, engaged),
            _holds_freed((canaries, bystanders)),
            _trail_holds((canaries, bystanders)),
        ),
        figures=(
            Figure("workers", len(plan.workers), "workers"),
            Figure("workers that acknowledged", plan.acknowledged, "workers"),
            Figure("canaries", len(ran), "actions"),
            Figure("stop, median", percentile(stops_ms, 0.5), "ms"),
            Figure("stop, p99", p99_ms, "ms"),
            Figure("bystanders that ran through it", len(through), "actions"),
            Figure("bystanders that ran after it", len(plan.bystanders) - len(through), "actions"),
        ),
    )


def judge_backlog(plan: BacklogPlan, trail: Trail, threshold_ms: int) -> Findings:
    """What the session of a backlog drill proves about requests that nobody answers."""
    opened = [
        action_id
        for action_id in plan.tickets
        if _state_after(trail.first("action.submitted", action_id)) is State.PARKED
    ]
    up_ms = [ms for action_id in opened for ms in _escalations_ms(trail, action_id, plan.chain)]
    denied_ms = [ms for action_id in opened if (ms := _denial_ms(trail, action_id, plan.chain)) is not None]
    steps_wanted = len(opened) * (len(plan.chain.levels) - 1)
    attempts = [event for event in trail.events if event.kind == "action.admitted"]
    return Findings(
        steps=(
            _enough("the requests were opened", len(opened), plan.wanted, "requests wait for a person"),
            _on_time("every level was asked when it was due", up_ms, steps_wanted, threshold_ms, "escalations"),
            _on_time("nobody answered, so it was denied", denied_ms, len(opened), threshold_ms, "denials"),
            Step("no worker slot was used", bool(opened) and not attempts, f"{len(attempts)} attempts began"),
            # What waits for a person has no hold, and leaves none.
            Step(
                "nothing was held",
                bool(opened) and not trail.holds_taken and not trail.held,
                f"{trail.holds_taken} taken, {trail.held} still held",
            ),
            _trail_holds((trail,)),
        ),
        figures=(
            Figure("requests", len(opened), "requests"),
            Figure("escalations", len(up_ms), "steps"),
            Figure("escalation after it was due, p99", percentile(up_ms, 0.99), "ms"),
            Figure("denials", len(denied_ms), "requests"),
            Figure("denial after it was due, p99", percentile(denied_ms, 0.99), "ms"),
        ),
    )


def judge_recovery(plan: RecoveryPlan, trail: Trail, threshold_ms: int) -> Findings:
    """What the session of a recovery drill proves: two attempts vanished with their child, and what became of them."""
    found_ms = [ms for one in (plan.repeatable, plan.unrepeatable) if one and (ms := _found_ms(trail, one)) is not None]
    again_ms = _again_ms(trail, plan.repeatable)
    return Findings(
        steps=(
            _children_found(plan, found_ms),
            _ran_again(trail, plan.repeatable, again_ms, threshold_ms),
            _asked_a_person(trail, plan.unrepeatable),
            _holds_freed((trail,)),
            _trail_holds((trail,)),
        ),
        figures=(
            Figure("children lost and found", len(found_ms), "children"),
            Figure("found after, at most", max(found_ms, default=None), "ms"),
            Figure("at work again after", again_ms, "ms"),
        ),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of them do not exceed; None of none."""
    return sorted(values)[ceil(share * len(values)) - 1] if values else None


def _ran_before(trail: Trail, placed: Placed, engaged: StoredEvent | None) -> bool:
    """Whether it was running, on the worker it was sent to, when the switch was engaged."""
    admitted = trail.first("action.admitted", placed.action_id)
    if admitted is None or engaged is None or admitted.actor != f"worker:{placed.worker_id}":
        return False
    end = trail.end(placed.action_id)
    # Event ids are given inside the transactions that exclude each other, so they order what happened.
    return admitted.id < engaged.id and (end is None or end.id == admitted.id or end.id > engaged.id)


def _stop_ms(trail: Trail, placed: Placed, engaged: StoredEvent | None) -> float | None:
    end = trail.end(placed.action_id)
    if engaged is None or end is None or end.state is not State.CANCELLED:
        return None
    return trail.ms(engaged.at_us, end.at_us)


def _a_canary_on_every_worker(plan: KillPlan, ran: Sequence[Placed]) -> Step:
    name = "a canary ran on every live worker"
    if not plan.workers:
        return Step(name, False, "there is no live worker: start one, then run the drill again")
    reached = {placed.worker_id for placed in ran}
    missed = [
        f"{worker}: {plan.problems.get(worker, 'its canaries did not start')}"
        for worker in plan.workers
        if worker not in reached
    ]
    return Step(name, not missed, _named(missed) or f"{len(ran)} canaries on {len(plan.workers)} workers")


def _all_stopped(trail: Trail, ran: Sequence[Placed], stops_ms: Sequence[float]) -> Step:
    name = "every canary was stopped"
    others = [
        f"{placed.action_id} is {_state_after(trail.end(placed.action_id))}"
        for placed in ran
        if _state_after(trail.end(placed.action_id)) is not State.CANCELLED
    ]
    detail = _named(others) or f"{len(stops_ms)} ended as cancelled"
    return Step(name, bool(ran) and len(stops_ms) == len(ran), detail if ran else "none was running")


def _in_time(p99_ms: float | None, threshold_ms: int) -> Step:
    name = "the stop was in time"
    if p99_ms is None:
        return Step(name, False, "nothing was stopped, so nothing was measured")
    return Step(name, p99_ms <= threshold_ms, f"p99 {p99_ms:.0f} ms, at most {threshold_ms} ms")


def _nothing_started_after(plan: KillPlan, trail: Trail, engaged: StoredEvent | None) -> Step:
    name = "nothing started after the engagement"
    if engaged is None:
        return Step(name, False, "the switch was not engaged")
    later = [e.action_id or "" for e in trail.events if e.kind == "action.admitted" and e.id > engaged.id]
    if later:
        return Step(name, False, f"{_named(later)} started")
    ends = [_state_after(trail.end(action_id)) for action_id in plan.latecomers]
    refused = [state for state in ends if state is State.CANCELLED]
    passed = bool(ends) and len(refused) == len(ends)
    return Step(name, passed, f"{len(refused)} of {len(ends)} that were sent afterwards were cancelled")


def _other_work_went_on(plan: KillPlan, trail: Trail, engaged: StoredEvent | None) -> Step:
    name = "other work went on"
    if plan.cancelled_elsewhere:
        return Step(name, False, f"the switch ended {plan.cancelled_elsewhere} actions outside the drill")
    ended = {placed: trail.end(placed.action_id) for placed in plan.bystanders}
    held_up = [
        f"{placed.action_id} on {placed.worker_id} is {_state_after(end)}"
        for placed, end in ended.items()
        if end is None or engaged is None or end.state is not State.SUCCEEDED or end.id < engaged.id
    ]
    without = sorted(set(plan.workers) - plan.problems.keys() - {placed.worker_id for placed in plan.bystanders})
    wrong = held_up + [f"{worker} had no bystander" for worker in without]
    passed = bool(plan.bystanders) and not wrong
    return Step(name, passed, _named(wrong) or f"{len(ended)} bystanders succeeded after the engagement")


def _holds_freed(trails: Sequence[Trail]) -> Step:
    """There have to have been holds."""
    taken, held = sum(trail.holds_taken for trail in trails), sum(trail.held for trail in trails)
    return Step("every hold was freed", taken > 0 and held == 0, f"{taken} taken, {held} still held")


def _trail_holds(trails: Sequence[Trail]) -> Step:
    problems = [problem for trail in trails for problem in trail.problems]
    problems += [f"session {trail.session_id} has no events" for trail in trails if not trail.events]
    count = sum(len(trail.events) for trail in trails)
    return Step("the trail verifies", bool(trails) and not problems, _named(problems) or f"{count} sealed events")


def _escalations_ms(trail: Trail, action_id: str, chain: Chain) -> Iterator[float]:
    """How long after it was due each level was asked."""
    asked = trail.first("action.submitted", action_id)
    for event in trail.of(action_id):
        if event.kind == "ticket.escalated" and asked is not None:
            level = int(json.loads(event.payload)["level"])
            due_us = asked.at_us + sum(one.within_us for one in chain.levels[:level])
            yield trail.ms(due_us, event.at_us)


def _denial_ms(trail: Trail, action_id: str, chain: Chain) -> float | None:
    asked, denied = trail.first("action.submitted", action_id), trail.first("action.denied", action_id)
    return trail.ms(asked.at_us + chain.timeout_us, denied.at_us) if asked is not None and denied is not None else None


def _attempts(trail: Trail, action_id: str | None) -> list[StoredEvent]:
    return [event for event in trail.events if event.kind == "action.admitted" and event.action_id == action_id]


def _found_ms(trail: Trail, action_id: str) -> float | None:
    """How long after its first attempt began it was given up, in the child that it was placed in."""
    attempts, reclaimed = _attempts(trail, action_id), trail.first("action.reclaimed", action_id)
    if not attempts or reclaimed is None or reclaimed.attempt != attempts[0].attempt:
        return None
    return trail.ms(attempts[0].at_us, reclaimed.at_us)


def _again_ms(trail: Trail, action_id: str | None) -> float | None:
    attempts = _attempts(trail, action_id)
    return trail.ms(attempts[0].at_us, attempts[1].at_us) if len(attempts) > 1 else None


def _children_found(plan: RecoveryPlan, found_ms: Sequence[float]) -> Step:
    name = "two children were killed, and it was found"
    if plan.worker_id is None:
        return Step(name, False, plan.problem)
    return Step(name, len(found_ms) == 2, f"{len(found_ms)} of 2 vanished attempts were found on {plan.worker_id}")


def _ran_again(trail: Trail, action_id: str | None, again_ms: float | None, threshold_ms: int) -> Step:
    name = "what may run twice ran again in time"
    if again_ms is None:
        return Step(name, False, "there was no second attempt: does beat run, and a worker for its jobs?")
    attempts, end = _attempts(trail, action_id), trail.end(action_id or "")
    detail = f"the second attempt began {again_ms:.0f} ms after the first, at most {threshold_ms} ms"
    if len(attempts) != 2 or _state_after(end) is not State.SUCCEEDED:
        return Step(name, False, f"{len(attempts)} attempts, and it is {_state_after(end)}")
    return Step(name, again_ms <= threshold_ms, detail)


def _asked_a_person(trail: Trail, action_id: str | None) -> Step:
    name = "what must not run twice came into doubt"
    reclaimed = trail.first("action.reclaimed", action_id) if action_id is not None else None
    attempts = len(_attempts(trail, action_id))
    passed = attempts == 1 and _state_after(reclaimed) is State.IN_DOUBT
    return Step(name, passed, f"{attempts} attempts, then {_state_after(reclaimed) or 'nothing'}")


def _enough(name: str, found: int, wanted: int, what: str) -> Step:
    return Step(name, 0 < found == wanted, f"{found} of {wanted} {what}")


def _on_time(name: str, late_ms: Sequence[float], wanted: int, threshold_ms: int, what: str) -> Step:
    if len(late_ms) != wanted or not wanted:
        return Step(name, False, f"{len(late_ms)} of {wanted} {what}: does beat run, and a worker for its jobs?")
    early = sum(1 for ms in late_ms if ms < 0)
    if early:
        return Step(name, False, f"{early} {what} came before they were due: somebody answered the drill's requests")
    return Step(name, max(late_ms) <= threshold_ms, f"{wanted} {what}, the last {max(late_ms):.0f} ms after it was due")


def _state_after(event: StoredEvent | None) -> State | None:
    return event.state if event is not None else None


def _named(found: Sequence[str]) -> str:
    more = f"; and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
    return "; ".join(found[:_NAMED_MAX]) + more
