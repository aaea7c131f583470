"""Calls of models inside actions, on one org's budgets: each holds what it may use before it is sent, or is refused."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from acp_tasks import bootstrap
from acp_tasks.agents.scripted_model import ScriptedModel
from acp_tasks.run import Run
from governance.clock import SystemClock
from governance.core.windows import Period
from governance.errors import ModelCallRefused
from governance.middleware.call import Call
from governance.middleware.spool import Spool
from governance.operations import audit, budgets, heartbeat, recover
from governance.operations.admit import Arrival
from governance.operations.finish import Finish, Settled, Succeeded, finish
from governance.operations.reconcile import reconcile
from tests.support import books
from tests.support.governed import ANN, LEASE, Desk, make_governance
from tests.support.racer import RACERS, killed, race
from tests.support.spenders import EACH

LIMIT = 200


@pytest.fixture
def racing(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, clock=SystemClock())
    yield Desk(gov)
    gov.store.close()


def set_each(desk: Desk) -> list[str]:
    """A budget of each kind and period, for an org of its own; the orgs."""
    orgs = []
    for period in Period:
        for kind, limit in (("tokens", {"max_tokens": LIMIT}), ("cost", {"max_cost_usd": f"{LIMIT / 10**6:.6f}"})):
            org = f"{period}-{kind}"
            budgets.set_budget(
                desk.gov, org, {"identity": {"org": org}, "period": period, **limit}, by=ANN, reason="race"
            )
            orgs.append(org)
    return orgs


def accounts(desk: Desk) -> list[tuple[int, int, int]]:
    found = desk.gov.store.read("SELECT limit_amount, posted, held FROM accounts WHERE scope = 'budget'", {})
    return [(row[0], row[1], row[2]) for row in found]


def test_eight_processes_call_models_for_exactly_what_a_budget_has(racing: Desk, database_url: str) -> None:
    """One more is killed in a call: all that it held counts, and is flagged."""
    orgs = set_each(racing)
    heartbeat.register(racing.gov, "racer-0", 1)
    killed(database_url, "die_calling", orgs[0])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(race, database_url, "call_models", ":".join(["1", *orgs]), RACERS)
        while not running.done():
            assert all(posted + held <= limit for limit, posted, held in accounts(racing))
            assert reconcile(racing.gov).findings == ()
        seen = running.result()
    for org in orgs:
        dead = 3 if org == orgs[0] else 0
        assert seen[f"{org} called"] == LIMIT // EACH - dead
        assert seen[f"{org} refused"] == 3 * RACERS - LIMIT // EACH + dead
    recover.child_gone(racing.gov, "racer-0", "1", "killed")
    assert accounts(racing) == [(LIMIT, LIMIT, 0)] * len(orgs)
    flagged = racing.gov.store.read(
        """SELECT e.kind, e.flag, e.posted_delta FROM entries e JOIN accounts a ON a.id = e.account_id
            WHERE a.scope = 'budget' AND e.flag IS NOT NULL""",
        {},
    )
    assert [tuple(row) for row in flagged] == [("expire", "unreported", 3 * EACH)]
    books.assert_agree(racing.gov)
    assert reconcile(racing.gov).findings == ()
    assert audit.verify(racing.gov).problems == ()


def test_eight_at_once_call_over_http_within_one_budget(
    racing: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the endpoint says that it used is posted: never more than the budget has, until it has none for a call."""
    limit = 1000
    config = {"identity": {"org": "acme"}, "period": "daily", "max_tokens": limit}
    budgets.set_budget(racing.gov, "org", config, by=ANN, reason="race")
    with ScriptedModel(seed=1) as model:
        monkeypatch.setenv("ACP_MODEL_URL", model.url)
        monkeypatch.setenv("ACP_DATABASE_URL", racing.gov.store.url.render_as_string(hide_password=False))
        monkeypatch.setenv("ACP_STATE_DIR", str(tmp_path))
        bootstrap.parts.cache_clear()
        try:
            with ThreadPoolExecutor(RACERS) as pool:
                called = sum(pool.map(lambda _: _talk(racing, tmp_path), range(RACERS)))
        finally:
            bootstrap.parts().gov.store.close()
            bootstrap.parts.cache_clear()
        assert called == len(model.requests) > 0
    ((_, posted, held),) = accounts(racing)
    assert held == 0
    assert posted <= limit
    used = racing.gov.store.read("SELECT sum(tokens_input + tokens_output), count(*) FROM model_calls", {})[0]
    assert (used[0], used[1]) == (posted, called)
    assert reconcile(racing.gov).findings == ()


def _talk(desk: Desk, folder: Path) -> int:
    """Calls in one action until it is refused; how many calls."""
    run = desk.admitted(desk.submit(org="acme", cost_micros=0, tokens=0))
    call = Call(
        desk.gov, Spool(folder), Arrival(run.ref.id, "default", "", {}, redelivered=False), LEASE, admission=run
    )
    model = Run(call, {}).model("small-1")
    called, refused = 0, None
    while refused is None:
        try:
            model.chat([{"role": "user", "content": "hello"}], max_tokens=20)
            called += 1
        except ModelCallRefused as problem:
            refused = problem.rule
    assert refused == "budget:org"
    usage, now_us = call.reported.usage(), desk.gov.clock.now_us()
    ending = Finish(run.ref, run.holds, Succeeded("null"), usage, "test", now_us, call.topped_up)
    assert isinstance(finish(desk.gov, ending), Settled)
    return called
