"""A grant for a session is for the one that is open when it is given, not for the one that was asked in."""

from governance.core.grants import GrantTerms
from governance.core.policy import Risk
from governance.operations import decide
from tests.support.governed import ANN, Desk, ManualClock


def test_a_grant_given_in_the_next_window_lasts_in_it(desk: Desk) -> None:
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    made = desk.submit(risk=Risk.HIGH)
    decide.extend(desk.gov, made.action_id, by=ANN, seconds=7200, reason="at lunch")
    clock.pass_s(3600)
    decide.approve(desk.gov, made.action_id, by=ANN, reason="fine", grant=GrantTerms(for_session=True))
    granted = desk.submit(risk=Risk.HIGH)
    assert desk.state(granted) == "queued"
    desk.admitted(granted)
    clock.pass_s(3600)
    assert desk.state(desk.submit(risk=Risk.HIGH)) == "parked"
