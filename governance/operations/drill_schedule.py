"""When drills are due, and what is said of those that failed, never ended, or did not take place.

The cadence counts from the last drill of a kind, whoever started it; a new fleet's first is one cadence after its
first session, so that nobody's installation begins with a kill switch.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping

from governance.core.drills import Findings, Kind, Step, parse_report
from governance.core.switches import Scope
from governance.operations import notify
from governance.operations.clearing import release
from governance.operations.context import Governance
from governance.operations.drills import DRILL, GIVEN_UP_S, Drill, finish, raise_failed, trail, unfinished
from governance.operations.switches import engaged_in
from governance.store import drills

#: Of its cadence; then a drill that should have finished is missed.
OVERDUE: Final = 1.5


@dataclass(frozen=True, slots=True)
class Watched:
    """What a look at the drills did: the ids of the overdue and failed ones' alerts, and actions to be published."""

    overdue: tuple[str, ...]
    resumed: tuple[str, ...]


def due(gov: Governance, every_s: float) -> Kind | None:
    """The drill to start now, one at a time; None when none is due. `every_s` is in real seconds, 0 is never."""
    if every_s <= 0 or drills.listing(gov.store, kind=None, finished=False, limit=1):
        return None
    now_us = gov.clock.now_us()
    for kind in Kind:
        last = _last(gov, kind)
        since_us = drills.fleet_began_us(gov.store) if last is None else last["started_us"]
        if since_us is not None and now_us - since_us >= gov.clock.span_us(every_s):
            return kind
    return None


def watch(gov: Governance, every_s: float) -> Watched:
    """Gives up drills whose process is gone, and raises the alerts that are missing."""
    resumed: list[str] = []
    for drill in unfinished(gov, for_s=GIVEN_UP_S):
        resumed += _give_up(gov, drill)
    for kind in Kind:
        last = _last(gov, kind, finished=True)
        if last is not None and not last["passed"]:
            # Whoever finished it may have died before the alert.
            raise_failed(gov, parse_report(last["report"]))
    overdue = [kind for kind in Kind if every_s > 0 and _overdue(gov, kind, every_s)]
    return Watched(tuple(str(kind) for kind in overdue), tuple(resumed))


def _give_up(gov: Governance, drill: Drill) -> list[str]:
    """Closes it as failed and releases its switch; the ids to be published."""
    step = Step("it ran to its end", False, f"it did not within {GIVEN_UP_S:g} s: whoever ran it is gone")
    evidence = trail(gov, drill.session.id).evidence
    finish(gov, drill, Findings((step,)), [evidence] if evidence is not None else [])
    resumed: list[str] = []
    for switch_id in engaged_in(gov, Scope.SESSION, drill.session.id):
        resumed += release(gov, switch_id, reason="its drill was given up", by=DRILL)
    return resumed


def _overdue(gov: Governance, kind: Kind, every_s: float) -> bool:
    last = _last(gov, kind, finished=True)
    since_us = drills.fleet_began_us(gov.store) if last is None else last["finished_us"]
    if since_us is None or gov.clock.now_us() - since_us <= gov.clock.span_us(OVERDUE * every_s):
        return False
    notify.alert(
        gov,
        f"drill-overdue:{kind}:{last['id'] if last is not None else 'first'}",
        "drill.overdue",
        {"kind": str(kind), "last": last["id"] if last is not None else None, "since_us": since_us, "every_s": every_s},
    )
    return True


def _last(gov: Governance, kind: Kind, finished: bool | None = None) -> RowMapping | None:
    found = drills.listing(gov.store, kind=str(kind), finished=finished, limit=1)
    return found[0] if found else None
