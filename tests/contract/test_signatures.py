"""With keys, an admission runs what was signed and nothing else, whatever the database says by then."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from governance.core.policy import Risk
from governance.core.signing import Keyring
from governance.operations import audit, decide
from governance.operations.answers import Admitted, Denied, Dropped
from governance.operations.decide import EditedArguments
from governance.operations.directory import load
from governance.operations.submit import submit
from tests.contract.test_identity import FIRST
from tests.support.governed import ANN, Desk, make_governance, submission

KEYS = Keyring({"k2": b"the second secret", "k1": b"the first secret"})


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = replace(make_governance(database_url), signing=KEYS)
    yield Desk(gov)
    gov.store.close()


@pytest.mark.parametrize(
    "change",
    [
        *("org = 'o2'", "org = 'o2', filled = 'org'", "cost_micros = 0", "stream = 'small'", "risk = 'medium'"),
        *("agent_id = 'x'", "model = 'x'", "message = '{}'", "signature = NULL", "signature = 'k9|a|b|c'"),
        *("direct = true", "digest = 'other'", "resource = 'file-1'", "command_id = 'c2'"),
    ],
)
def test_a_row_that_was_changed_does_not_run(desk: Desk, change: str) -> None:
    made = desk.submit(user="u1", org="o1")
    desk.gov.store.run(f"UPDATE actions SET {change} WHERE id = :id", {"id": made.action_id})
    digest = "other" if "digest" in change else made.digest
    told = desk.arrive(made, digest=digest)
    assert isinstance(told, Denied), told
    assert told.rule == "signature"
    kinds = desk.gov.store.read("SELECT kind FROM events WHERE action_id = :id ORDER BY id", {"id": made.action_id})
    assert [row[0] for row in kinds] == ["action.submitted", "action.denied"]
    assert desk.gov.store.read("SELECT count(*) FROM entries", {})[0][0] == 0


def test_what_is_signed_runs_also_by_an_older_key_and_with_a_directory(desk: Desk) -> None:
    load(desk.gov, FIRST, by=ANN)
    old = replace(desk.gov, signing=Keyring({"k1": KEYS.secrets["k1"]}))
    made = submission(user="u1")
    submit(old, made)
    load(desk.gov, FIRST, by=ANN)
    assert isinstance(desk.arrive(made), Admitted)
    unsigned = submission(user="u1")
    submit(replace(desk.gov, signing=None), unsigned)
    told = desk.arrive(unsigned)
    assert isinstance(told, Denied)
    assert (told.rule, told.reason) == ("signature", "nobody signed it")
    stranger = submission(user="u1")
    submit(replace(desk.gov, signing=Keyring({"k2": b"a guess at the second"})), stranger)
    assert isinstance(desk.arrive(stranger), Denied)
    assert audit.verify(desk.gov).problems == ()


def test_arguments_that_an_approver_put_in_place_run_on_the_decision(desk: Desk) -> None:
    asked = desk.submit(risk=Risk.HIGH)
    decide.approve(desk.gov, asked.action_id, by=ANN, reason="less", edit=EditedArguments("{1}", "edited", "case:2"))
    assert isinstance(desk.arrive(asked, digest="edited"), Admitted)


def test_a_forged_message_does_not_move_the_action_that_it_names(desk: Desk) -> None:
    made = desk.submit()
    dropped = desk.arrive(made, forged="it is not signed")
    assert isinstance(dropped, Dropped)
    assert isinstance(desk.arrive(made, command_id="another"), Dropped)
    assert isinstance(desk.arrive(made, command_id=made.command_id), Admitted)
