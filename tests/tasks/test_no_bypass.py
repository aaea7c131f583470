"""There is no way to a governed body past governance."""

import subprocess
import sys
from typing import Any

import celery
import pytest
from celery.exceptions import Retry
from celery.worker import WorkController

from acp_tasks import current_run
from acp_tasks.install import opted_out, ungoverned
from governance.errors import (
    ActionDenied,
    ArgumentsNotJson,
    ArgumentsTooLarge,
    CommandConflict,
    InvalidAmount,
    InvalidOption,
    NoCurrentRun,
    ResourceTemplateInvalid,
)
from tests.support.fleet import ROOT, Shop, eventually, failure

WAIT_S = 20


def rows(shop: Shop, action_id: str) -> list[tuple[str, ...]]:
    found = shop.gov.store.read("SELECT state, rule FROM actions WHERE id = :id", {"id": action_id})
    return [tuple(row) for row in found]


def test_a_message_that_nobody_submitted_is_submitted_by_the_worker(shop: Shop) -> None:
    result = shop.tasks.app.send_task("t.add", (7, 8))
    assert result.get(timeout=WAIT_S) == 15
    assert rows(shop, result.id) == [("succeeded", "routine")]


def test_a_forged_message_is_denied_like_any_other(shop: Shop) -> None:
    error = failure(shop.tasks.app.send_task("t.never"))
    assert isinstance(error, ActionDenied)


def test_a_forged_message_waits_for_approval_and_resumes(shop: Shop) -> None:
    result = shop.tasks.app.send_task("t.ask", ("c1", 3))
    eventually(lambda: result.state == "AWAITING_APPROVAL", "the forged message is parked")
    shop.approve(result.id)
    assert result.get(timeout=WAIT_S) == 3


def test_a_foreign_producer_may_name_its_command_in_the_header(shop: Shop) -> None:
    header = {"acp": {"command_id": "from-go-1", "agent_id": "go", "identity": {"user": "u7"}}}
    first = shop.tasks.app.send_task("t.add", (1, 1), headers=header)
    assert first.get(timeout=WAIT_S) == 2
    again = shop.tasks.app.send_task("t.add", (1, 1), headers=header)
    assert again.get(timeout=WAIT_S) == 2
    found = shop.gov.store.read("""SELECT id, agent_id, "user" FROM actions WHERE command_id = 'from-go-1'""", {})
    assert [tuple(row) for row in found] == [(first.id, "go", "u7")]


def test_an_approved_id_cannot_carry_other_arguments(shop: Shop) -> None:
    result = shop.tasks.ask.delay("c1", 5)
    eventually(lambda: result.state == "AWAITING_APPROVAL", "parked")
    forged = shop.tasks.app.send_task("t.ask", ("c1", 5000), task_id=result.id)
    shop.approve(forged.id)
    assert result.get(timeout=WAIT_S) == 5


def test_a_direct_call_is_admitted_or_refused(shop: Shop) -> None:
    assert shop.tasks.add(3, 4) == 7
    with pytest.raises(ActionDenied, match="enqueue the task with delay"):
        shop.tasks.ask("c1")
    with pytest.raises(ActionDenied, match="too dangerous"):
        shop.tasks.never()
    counted = shop.gov.store.read(
        "SELECT count(*) FROM actions a JOIN workers w ON a.name = 't.add' AND w.id LIKE 'direct@%'", {}
    )
    assert counted[0][0] > 0


def test_an_eager_call_is_admitted_or_refused(shop: Shop) -> None:
    result = shop.tasks.add.apply((3, 4))
    assert result.get() == 7
    assert rows(shop, result.id) == [("succeeded", "routine")]
    assert isinstance(shop.tasks.ask.apply(("c1",)).result, ActionDenied)


def test_a_direct_call_that_asks_for_a_retry_is_not_run_by_a_worker(shop: Shop) -> None:
    with pytest.raises(Retry):
        shop.tasks.tries(str(shop.folder))
    found = shop.gov.store.read("SELECT state, direct FROM actions WHERE name = 't.tries'", {})
    assert [(row[0], bool(row[1])) for row in found] == [("failed", True)]
    assert shop.effects().count("tried") == 1


def test_an_eager_call_is_charged_and_repeated_like_any_other(shop: Shop) -> None:
    options = {"command_id": "eager-1", "identity": {"user": "u5"}, "cost_usd": "0.002"}
    first = shop.tasks.seen.apply((str(shop.folder),), **options)
    again = shop.tasks.seen.apply((str(shop.folder),), **options)
    assert again.get() == first.get()
    assert shop.effects().count("eager-1") == 1
    found = shop.gov.store.read("""SELECT "user", cost_micros FROM actions WHERE command_id = 'eager-1'""", {})
    assert [tuple(row) for row in found] == [("u5", 2000)]


def test_an_eager_retry_is_another_attempt(shop: Shop) -> None:
    assert shop.tasks.flaky.apply((2,)).get() == [2, 3]


def test_a_foreign_message_with_an_expiry_is_governed(shop: Shop) -> None:
    result = shop.tasks.app.send_task("t.add", (2, 3), expires=60)
    assert result.get(timeout=WAIT_S) == 5


def test_a_header_that_is_no_dict_is_refused(shop: Shop) -> None:
    error = failure(shop.tasks.app.send_task("t.add", (2, 3), headers={"acp": "root"}))
    assert isinstance(error, InvalidOption)


def test_starmap_and_chunks_admit_every_item(shop: Shop) -> None:
    before = shop.gov.store.read("SELECT count(*) FROM actions WHERE name = 't.add'", {})[0][0]
    assert shop.tasks.add.starmap([(1, 2), (3, 4)]).delay().get(timeout=WAIT_S) == [3, 7]
    assert shop.tasks.add.chunks([(1, 1), (2, 2), (3, 3)], 2).apply_async().get(timeout=WAIT_S) == [[2, 4], [6]]
    after = shop.gov.store.read("SELECT count(*) FROM actions WHERE name = 't.add'", {})[0][0]
    assert after - before == 5
    assert isinstance(failure(shop.tasks.never.starmap([(1,)]).delay()), ActionDenied)


def test_a_task_that_does_not_say_its_risk_is_taken_for_a_high_one(shop: Shop) -> None:
    result = shop.tasks.undeclared.delay()
    eventually(lambda: result.state == "AWAITING_APPROVAL", "parked")
    shop.deny(result.id)


def test_the_running_action_knows_itself(shop: Shop) -> None:
    result = shop.tasks.seen.apply_async((str(shop.folder),), command_id="look-1")
    told = result.get(timeout=WAIT_S)
    assert told == {"action_id": result.id, "command_id": "look-1", "attempt": 1, "should_stop": False}
    entries = shop.gov.store.read(
        """SELECT a.unit, e.posted_delta, e.flag FROM entries e JOIN accounts a ON a.id = e.account_id
            WHERE e.action_id = :id AND e.kind = 'post' ORDER BY a.unit""",
        {"id": result.id},
    )
    assert [tuple(entry) for entry in entries] == [
        ("actions", 1, None),
        ("cost_micros", 30_000, None),
        ("tokens", 30, None),
    ]
    kinds = shop.gov.store.read("SELECT kind FROM events WHERE action_id = :id ORDER BY id", {"id": result.id})
    assert [row[0] for row in kinds] == ["action.submitted", "action.admitted", "agent.looked", "action.succeeded"]


def test_there_is_no_current_run_outside_a_body() -> None:
    with pytest.raises(NoCurrentRun, match="outside a governed action"):
        current_run()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"cost_usd": "-1"}, InvalidAmount, "cost_usd='-1'"),
        ({"cost_usd": float("nan")}, InvalidAmount, "cost_usd=nan"),
        ({"cost_usd": "a lot"}, InvalidAmount, "cost_usd='a lot'"),
        ({"tokens": -5}, InvalidAmount, "tokens=-5"),
        ({"command_id": ""}, InvalidOption, "command_id=''"),
        ({"stream": 7}, InvalidOption, "stream=7"),
        ({"identity": "me"}, InvalidOption, "identity='me'"),
        ({"identity": {"usr": "me"}}, InvalidOption, "user"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_written(
    shop: Shop, options: dict[str, object], error: type[Exception], says: str
) -> None:
    before = shop.gov.store.read("SELECT count(*) FROM actions", {})[0][0]
    with pytest.raises(error, match=says.replace("(", r"\(")):
        shop.tasks.add.apply_async((1, 1), **options)
    assert shop.gov.store.read("SELECT count(*) FROM actions", {})[0][0] == before


def test_bad_arguments_are_refused_before_anything_is_written(shop: Shop) -> None:
    before = shop.gov.store.read("SELECT count(*) FROM actions", {})[0][0]
    with pytest.raises(ArgumentsNotJson, match=r"arguments of t\.add are not JSON"):
        shop.tasks.add.delay(object(), 1)
    with pytest.raises(ArgumentsNotJson, match="not JSON"):
        shop.tasks.add.delay(float("nan"), 1)
    with pytest.raises(ArgumentsTooLarge, match="the limit is 262144"):
        shop.tasks.ask.delay("x" * 300_000)
    shop.tasks.add.apply_async((1, 1), command_id="mine")
    with pytest.raises(CommandConflict, match="mine"):
        shop.tasks.add.apply_async((1, 2), command_id="mine")
    assert shop.gov.store.read("SELECT count(*) FROM actions", {})[0][0] == before + 1


def test_a_resource_template_must_name_an_argument(shop: Shop) -> None:
    with pytest.raises(ResourceTemplateInvalid, match=r"t\.templated names 'order_id'.*\(case_id\)"):
        shop.tasks.templated.delay(case_id="c1")


@pytest.mark.parametrize(
    ("declaration", "says"),
    [
        ("@app.task(name='celery.mine', base=celery.Task)\ndef loose(): pass", "not governed: celery.mine"),
        ("@app.task(base=celery.Task, governed=True)\ndef loose(): pass", "not governed: loose.loose"),
        ("@app.task(base=celery.Task)\ndef loose(): pass", "not governed: loose.loose"),
        ("@app.task(risk='huge')\ndef loose(): pass", "low, medium, high or critical"),
        ("@app.task(risk='low', cost_usd='-2')\ndef loose(): pass", "cost_usd='-2'"),
        ("@app.task(risk='low', resource='x:{a.b}')\ndef loose(a): pass", "plain argument names"),
    ],
)
def test_a_worker_refuses_to_start_with_a_task_it_cannot_govern(shop: Shop, declaration: str, says: str) -> None:
    module = f"import celery\napp = celery.Celery('loose', task_cls='acp_tasks:GovernedTask')\n{declaration}\n"
    (shop.folder / "loose.py").write_text(module)
    workers = shop.gov.store.read("SELECT id FROM workers ORDER BY id", {})
    worker = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "loose", "-b", shop.environment["ACP_BROKER_URL"], "worker", "-c", "1"],
        cwd=shop.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**shop.environment, "PATH": "", "PYTHONPATH": f"{ROOT}:{shop.folder}"},
    )
    assert worker.returncode != 0
    assert says in worker.stdout + worker.stderr
    # It was a worker to nobody, and has published nothing.
    assert shop.gov.store.read("SELECT id FROM workers ORDER BY id", {}) == workers
    assert "takes traffic" not in worker.stdout + worker.stderr


def test_a_worker_inside_another_process_refuses_as_well() -> None:
    app: Any = celery.Celery("loose", broker="memory://", task_cls="acp_tasks:GovernedTask", set_as_current=False)

    @app.task(base=celery.Task, name="loose", shared=False)
    def loose() -> None:
        """It says nothing about governance."""

    app.finalize()
    with pytest.raises(SystemExit, match="not governed: loose"):
        WorkController(app=app)


def test_a_task_may_opt_out_visibly(shop: Shop) -> None:
    assert ungoverned(shop.tasks.app) == []
    assert "t.noted" in opted_out(shop.tasks.app)


def test_a_bound_tasks_arguments_are_named_as_they_are_passed(shop: Shop) -> None:
    """By position, too: the resource that rules and grants look at is the one that is touched."""
    sent = shop.tasks.path.delay(str(shop.folder), "public", "")
    assert sent.get(timeout=20) == "public"
    found = shop.gov.store.read("SELECT resource FROM actions WHERE id = :id", {"id": sent.id})
    assert found[0][0] == "file:public"


def test_a_retry_with_other_arguments_is_asked_about_what_it_touches_now(shop: Shop) -> None:
    sent = shop.tasks.path.delay(folder=str(shop.folder), path="open", later="secret")
    error = failure(sent)
    assert isinstance(error, ActionDenied)
    assert error.rule == "no-secrets"
    assert "touched open" in shop.effects()
    assert "touched secret" not in shop.effects()
    found = shop.gov.store.read("SELECT resource FROM actions WHERE id = :id", {"id": sent.id})
    assert found[0][0] == "file:secret"
