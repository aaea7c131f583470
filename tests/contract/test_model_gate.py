"""An action that declares a model is admitted only when it may use it; a refusal is in the trail twice."""

import json
from typing import Any

from governance.core.policy import Risk
from governance.operations import audit
from governance.operations.answers import Denied
from tests.support.governed import Desk


def told(desk: Desk, action_id: str) -> dict[str, dict[str, Any]]:
    found = desk.gov.store.read("SELECT kind, payload FROM events WHERE action_id = :id ORDER BY id", {"id": action_id})
    return {kind: json.loads(payload) for kind, payload in found}


def test_a_model_that_is_not_the_callers_denies_the_action(desk: Desk) -> None:
    made = desk.submit(model="large-1", user="u1", team="t2", agent_id="desk-1")
    answer = desk.arrive(made)
    assert isinstance(answer, Denied)
    assert answer.rule == "model:premium"
    assert "large-1 is premium" in answer.reason
    trail = told(desk, made.action_id)
    assert set(trail) == {"action.submitted", "action.denied", "model.denied"}
    assert trail["model.denied"] == {
        "model": "large-1",
        "rule": "model:premium",
        "reason": answer.reason,
        "user": "u1",
        "team": "t2",
        "agent": "desk-1",
    }
    assert desk.account("cost_micros")["held"] == 0
    assert audit.verify(desk.gov).problems == ()
    # Nobody writes it twice: whoever asks again hears the same.
    assert desk.arrive(made, redelivered=True) == answer
    unknown = desk.arrive(desk.submit(model="other"))
    assert isinstance(unknown, Denied)
    assert unknown.rule == "model:unknown"


def test_a_model_that_is_admits_it_and_an_override_is_reported(desk: Desk) -> None:
    for allowed in ({"model": "small-1"}, {"model": "large-1", "team": "t1"}, {"model": None}):
        made = desk.submit(**allowed)
        desk.admitted(made)
        assert "model_override" not in told(desk, made.action_id)["action.admitted"]
    trial = desk.submit(model="secret-1", user="u9")
    desk.admitted(trial)
    assert told(desk, trial.action_id)["action.admitted"]["model_override"] == {
        "id": "trial",
        "effect": "allow",
        "reason": "a trial",
        "until": "2028-01-01T00:00:00Z",
    }
    desk.gov.clock.pass_s(366 * 24 * 3600)  # type: ignore[attr-defined]
    assert isinstance(desk.arrive(desk.submit(model="secret-1", user="u9")), Denied)


def test_a_person_is_asked_before_the_model_is(desk: Desk) -> None:
    """The order of the gates: what a person would decide about is parked, and the model is asked when it runs."""
    made = desk.submit(model="large-1", risk=Risk.HIGH)
    assert desk.state(made) == "parked"
