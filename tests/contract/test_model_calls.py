"""A call of a model: who may is asked at each one, what it may use is held before it, what it used is kept."""

from pathlib import Path

import pytest

from governance.core.ledger import Unit
from governance.core.model_calls import CallFlag, ModelCall
from governance.core.models import ModelAllowed, Tier
from governance.core.prices import TokensUsed
from governance.core.switches import Mode, Scope
from governance.middleware.allowance import Allowance, SetAside
from governance.middleware.call import Call
from governance.middleware.spool import Spool
from governance.operations import audit, switches
from governance.operations.admit import Arrival
from governance.operations.answers import Admitted
from governance.operations.finish import Finish, Succeeded, finish
from governance.operations.model_calls import MayCall, MayNotCall, NotOwned, ask, no_room, record
from governance.operations.reports import show_action
from governance.operations.sessions import session_policy
from governance.operations.top_up import Gone, NoRoom
from tests.support import books
from tests.support.charged import told
from tests.support.governed import ANN, LEASE, POLICY, Desk, make_governance
from tests.support.pruned import later, prune

BUDGET = 'budgets: [{id: team, identity: {team: "*"}, period: daily, max_tokens: 500, allowed_models: ["small-*"]}]'
BUDGETED = POLICY.replace("models:\n", f"{BUDGET}\nmodels:\n")


def call_of(desk: Desk, run: Admitted, folder: Path) -> Call:
    arrival = Arrival(run.ref.id, run.action.stream, run.action.digest, {}, redelivered=False)
    return Call(desk.gov, Spool(folder), arrival, LEASE, admission=run)


def asked(desk: Desk, run: Admitted, model: str) -> MayCall | MayNotCall | NotOwned:
    policy = session_policy(desk.gov, run.ref.session_id)
    return ask(desk.gov, run, policy, model, input_tokens=10, api_url=None)


def kinds(desk: Desk, run: Admitted) -> list[str]:
    found = desk.gov.store.read("SELECT kind FROM events WHERE action_id = :id ORDER BY id", {"id": run.ref.id})
    return [row[0] for row in found]


def end(desk: Desk, call: Call) -> None:
    run = call.running()
    finish(
        desk.gov,
        Finish(
            run.ref,
            run.holds,
            Succeeded("null"),
            call.add_up(),
            "test",
            desk.gov.clock.now_us(),
            call.topped_up,
        ),
    )


def test_each_call_is_asked_for_by_the_policy_of_its_session_and_the_switches_of_now(desk: Desk) -> None:
    run = desk.admitted(desk.submit(team="t1"))
    found = asked(desk, run, "small-1")
    assert isinstance(found, MayCall)
    assert found.access == ModelAllowed("small-1", Tier.STANDARD)
    assert found.prices is not None
    assert found.prices.output == 4_000_000
    refused = asked(desk, run, "secret-1")
    assert isinstance(refused, MayNotCall)
    assert refused.rule == "model:restricted"
    assert kinds(desk, run)[-1] == "model.denied"
    switches.engage(desk.gov, Scope.MODEL, "small-?", mode=Mode.PAUSE, reason="it raves", by=ANN)
    assert asked(desk, run, "small-1") == MayNotCall("switch:model:small-?", "it raves")
    assert isinstance(asked(desk, run, "small-10"), MayCall)
    desk.finish(run)
    assert isinstance(asked(desk, run, "small-10"), NotOwned)
    assert isinstance(asked(desk, run, "secret-1"), NotOwned)
    assert audit.verify(desk.gov).problems == ()


def test_a_budget_is_for_the_models_that_it_names(database_url: str) -> None:
    gov = make_governance(database_url, policy=BUDGETED)
    desk = Desk(gov)
    run = desk.admitted(desk.submit(team="t1"))
    refused = asked(desk, run, "large-1")
    assert isinstance(refused, MayNotCall)
    assert refused.rule == "budget:team"
    assert isinstance(asked(desk, run, "small-1"), MayCall)
    assert isinstance(asked(desk, desk.admitted(desk.submit()), "small-1"), MayCall)
    gov.store.close()


def test_what_a_call_costs_depends_on_how_long_its_input_was_and_not_on_the_estimate(database_url: str) -> None:
    gov = make_governance(database_url, policy=POLICY.replace('standard: "small-*"', "standard: gemini-2.5-pro"))
    desk = Desk(gov)
    run = desk.admitted(desk.submit())
    policy = session_policy(gov, run.ref.session_id)
    found = ask(gov, run, policy, "gemini-2.5-pro", input_tokens=300_000, api_url=None)
    assert isinstance(found, MayCall)
    assert found.prices == found.prices_for(300_000)
    long, short = found.prices, found.prices_for(100_000)
    assert long is not None
    assert short is not None
    assert long.input == 2 * short.input
    gov.store.close()


def test_a_call_sets_aside_what_it_may_use_and_holds_more_where_it_has_to(desk: Desk, tmp_path: Path) -> None:
    call = call_of(desk, desk.admitted(desk.submit(cost_micros=1000, tokens=100)), tmp_path)
    allowance = Allowance(call)
    assert isinstance(allowance.set_aside(600, 60), SetAside)
    assert (allowance.left(Unit.COST), allowance.left(Unit.TOKENS), call.topped_up) == (400, 40, False)
    allowance.use((600, 60), (100, 10))
    assert (allowance.left(Unit.COST), allowance.left(Unit.TOKENS)) == (900, 90)
    assert isinstance(allowance.set_aside(1900, 50), SetAside)
    assert call.topped_up
    assert desk.account("cost_micros")["held"] == 2000
    assert desk.account("tokens")["held"] == 100
    allowance.give_back(1900, 50)
    assert isinstance(allowance.set_aside(1900, 50), SetAside)
    allowance.use((1900, 50), (1900, 50), frozenset({Unit.TOKENS}))
    end(desk, call)
    # What is not known of the tokens counts with the whole hold; the money is known.
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 2000, "held": 0}
    assert desk.account("tokens") == {"limit": 100_000, "posted": 100, "held": 0}
    assert isinstance(allowance.set_aside(10_000, 0), Gone)
    books.assert_agree(desk.gov)


def test_a_call_that_used_nothing_costs_nothing_unless_the_action_declared_something(
    desk: Desk, tmp_path: Path
) -> None:
    call = call_of(desk, desk.admitted(desk.submit(cost_micros=0, tokens=10)), tmp_path)
    allowance = Allowance(call)
    assert isinstance(allowance.set_aside(500, 50), SetAside)
    allowance.give_back(500, 50)
    end(desk, call)
    assert desk.account("cost_micros")["posted"] == 0
    # Its body may have used the tokens that it declared, and has not said so.
    assert desk.account("tokens") == {"limit": 100_000, "posted": 50, "held": 0}


def test_what_is_still_set_aside_when_the_attempt_ends_counts_and_nothing_more_is(desk: Desk, tmp_path: Path) -> None:
    call = call_of(desk, desk.admitted(desk.submit(cost_micros=100, tokens=10)), tmp_path)
    allowance = Allowance(call)
    assert isinstance(allowance.set_aside(500, 50), SetAside)
    allowance.use((500, 50), (5, 5))
    assert isinstance(allowance.set_aside(700, 70), SetAside)
    end(desk, call)
    assert (desk.account("cost_micros")["posted"], desk.account("tokens")["posted"]) == (705, 75)
    flagged = desk.gov.store.read("SELECT DISTINCT flag FROM entries WHERE flag IS NOT NULL", {})
    assert [row[0] for row in flagged] == ["unreported"]
    # A thread that is late.
    assert isinstance(allowance.set_aside(0, 0), Gone)
    assert isinstance(allowance.set_aside(10_000, 10_000), Gone)
    assert desk.account("cost_micros")["held"] == 0
    books.assert_agree(desk.gov)


def test_a_budget_without_room_is_named_in_the_refusal_and_in_the_trail(desk: Desk, tmp_path: Path) -> None:
    run = desk.admitted(desk.submit(stream="small", cost_micros=0, tokens=0))
    short = Allowance(call_of(desk, run, tmp_path)).set_aside(0, 1001)
    assert isinstance(short, NoRoom)
    refused = no_room(desk.gov, run, "small-1", short)
    assert isinstance(refused, MayNotCall)
    assert refused.rule == "budget:tokens"
    assert "has 1000 tokens left, this needs 1001" in refused.reason
    assert kinds(desk, run)[-1] == "budget.exhausted"
    assert told(desk, "budget.exhausted")[-1]["model"] == "small-1"
    assert desk.account("tokens", "small")["held"] == 0


@pytest.mark.parametrize("flag", [None, CallFlag.UNPRICED])
def test_a_call_and_its_event_are_written_by_the_attempt_that_runs(desk: Desk, flag: CallFlag | None) -> None:
    run = desk.admitted(desk.submit(user="u9"))
    found = asked(desk, run, "small-1" if flag is None else "secret-1")
    assert isinstance(found, MayCall)
    call = ModelCall(desk.gov.new_id(), found.access, TokensUsed(10, 5, 2), 7, found.prices, flag, 1)
    assert record(desk.gov, run, call)
    kept = desk.gov.store.read("SELECT model, tier, override_id, tokens_input, price_input, flag FROM model_calls", {})
    if flag is None:
        assert [tuple(row) for row in kept] == [("small-1", "standard", None, 10, 1_000_000, None)]
    else:
        assert [tuple(row) for row in kept] == [("secret-1", "restricted", "trial", 10, None, "unpriced")]
    assert kinds(desk, run)[-1] == "model.called"
    (line,) = show_action(desk.gov, run.ref.id).model_calls
    assert (line.id, line.tokens_output, line.cost_micros, line.attempt) == (call.id, 5, 7, 1)
    desk.finish(run)
    late = ModelCall(desk.gov.new_id(), found.access, TokensUsed(1, 1), 1, found.prices, None, 1)
    assert not record(desk.gov, run, late)
    assert len(desk.gov.store.read("SELECT 1 FROM model_calls", {})) == 1
    assert audit.verify(desk.gov).problems == ()


def test_calls_go_with_the_history_of_their_action(desk: Desk) -> None:
    run = desk.admitted(desk.submit())
    found = asked(desk, run, "small-1")
    assert isinstance(found, MayCall)
    assert record(desk.gov, run, ModelCall(desk.gov.new_id(), found.access, TokensUsed(1, 1), 1, found.prices, None, 1))
    desk.finish(run)
    later(desk)
    assert [one.session_id for one in prune(desk).pruned] == [run.ref.session_id]
    assert desk.gov.store.read("SELECT 1 FROM model_calls", {}) == []
    assert audit.verify(desk.gov).problems == ()
