"""`acp run` as people start it: a real fleet in processes of its own, its effects, its summary, and its end."""

import fcntl
import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from acp_tasks.agents.scripted_model import ScriptedModel
from acp_tasks.cli.run import SHIPPED
from tests.support.fleet import ROOT, eventually
from tests.support.place import Ended, Place, alive, killed_at_last, leftovers, on_a_terminal, working

pytestmark = pytest.mark.fleet

CASES = [json.loads(line) for line in SHIPPED.read_text().splitlines()]
PRIORITIES = Counter(case["priority"] for case in CASES)
ANSWERED = PRIORITIES["low"] + PRIORITIES["medium"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Ended]:
    """The shipped cases, run once."""
    place = Place(tmp_path_factory.mktemp("shipped"))
    return place, place.acp("run", "--horizon", "hour", "--json")


def case(case_id: str, **changes: object) -> str:
    return json.dumps({"case_id": case_id, "priority": "low", "subject": "s", "body": "b", **changes})


def written(place: Place, *lines: str) -> str:
    path = place.folder / "mine.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_the_shipped_cases_are_worked_through(shipped: tuple[Place, Ended]) -> None:
    place, ended = shipped
    assert ended.code == 0, ended.err
    summary = ended.json
    assert summary["ok"]
    assert summary["actions"] == {
        "denied": PRIORITIES["critical"],
        "parked": PRIORITIES["high"],
        "succeeded": ANSWERED,
    }
    assert summary["denials"] == {"never-close-accounts": PRIORITIES["critical"]}
    assert summary["cases"] == {"read": len(CASES), "skipped": 0, "repeated": 0, "carried": 0}
    assert summary["sessions"] == len(summary["session_ids"]) >= 1
    assert summary["runs"] == {"deferred": PRIORITIES["high"], "succeeded": ANSWERED + PRIORITIES["critical"]}
    # The replies, and what the model was asked about every case.
    assert ANSWERED * 4000 < summary["spent_micros"] < ANSWERED * 4000 + len(CASES) * 2000
    assert summary["audit"]["ok"]
    assert summary["audit"]["problems"] == []
    assert summary["audit"]["events"] >= len(CASES) + 2 * ANSWERED
    assert summary["effects"] == ANSWERED
    assert summary["flower"].startswith("http://127.0.0.1:")
    assert place.environment()["ACP_MODEL_URL"].startswith("http://127.0.0.1:")
    assert (place.state / "logs" / "model.log").exists()
    assert 0 < summary["duration_s"] < 90
    assert summary["stuck"] == []
    assert len(summary["tickets"]) == PRIORITIES["high"]
    assert ended.out.count("\n") == 1
    assert ended.err.count("never-close-accounts: an account is closed by its owner") == PRIORITIES["critical"]
    assert ended.err.count("refunds-need-a-person: a refund pays money out") == PRIORITIES["high"]
    assert f"{2 * ANSWERED + PRIORITIES['critical']} done" in ended.err
    for log in (place.state / "logs").glob("*.log"):
        assert "Traceback" not in log.read_text()


def test_each_effect_is_in_the_outbox_once(shipped: tuple[Place, Ended]) -> None:
    place, _ = shipped
    replies = [line for line in place.outbox() if line["effect"] == "reply"]
    assert Counter(line["command_id"].rpartition(":")[0] for line in replies) == {
        f"case:{case['case_id']}:agent": 1 for case in CASES if case["priority"] in ("low", "medium")
    }


def test_a_second_run_carries_out_what_was_approved_and_repeats_nothing(shipped: tuple[Place, Ended]) -> None:
    place, first = shipped
    ticket, refused = first.json["tickets"][:2]
    for command, id in (("approve", ticket["id"]), ("deny", refused["id"])):
        told = place.acp("approvals", command, id, "--reason", "looked", "--json", environment=place.environment())
        assert told.code == 0, told.err
        assert told.json["decisions"][0]["published"] is False
    second = place.acp("run", "--json")
    assert second.code == 0, second.err
    summary = second.json
    assert summary["cases"] == {"read": len(CASES), "skipped": 0, "repeated": len(CASES), "carried": 2}
    assert summary["effects"] == 1
    assert summary["actions"] == {
        "denied": PRIORITIES["critical"] + 1,
        "parked": PRIORITIES["high"] - 2,
        "succeeded": ANSWERED + 1,
    }
    assert summary["runs"] == {
        "deferred": PRIORITIES["high"] - 2,
        "succeeded": ANSWERED + PRIORITIES["critical"] + 2,
    }
    assert [line["action_id"] for line in place.outbox() if line["effect"] == "refund"] == [ticket["action_id"]]
    commands = [line["command_id"] for line in place.outbox()]
    assert len(commands) == len(set(commands)) == ANSWERED + 1


def test_a_bad_line_is_reported_counted_and_skipped(place: Place) -> None:
    cases = written(place, case("c1"), '{"case_id": "c2"', case("c3", prio="x"), case("c1", body="other"), case("c4"))
    ended = place.acp("run", "--no-agent", "--workers", "1", "--concurrency", "1", "--cases", cases)
    assert ended.code == 0, ended.err
    assert "line 2 of" in ended.err
    assert "skipped: not JSON at column 17" in ended.err
    assert "unknown key 'prio': expected case_id, priority" in ended.err
    assert "line 4" in ended.err
    assert "2 read, 0 of them a repeat, 3 lines skipped" in ended.out
    assert "audit verified" in ended.out
    assert sorted(line["command_id"] for line in place.outbox()) == ["case:c1:case.reply", "case:c4:case.reply"]


def test_strict_stops_at_a_bad_line_before_anything_happens(place: Place) -> None:
    ended = place.acp("run", "--strict", "--cases", written(place, case("c1"), case("c2", priority="asap")), "--json")
    assert ended.code == 2
    assert "line 2: priority='asap': Input should be 'low', 'medium', 'high' or 'critical'" in ended.err
    assert ended.json["error"] == "CasesInvalid"
    assert not place.state.exists()


def test_a_run_asks_the_model_at_the_url_that_it_is_given_and_starts_none(place: Place) -> None:
    cases = written(place, case("c1"), case("c2", priority="critical"))
    with ScriptedModel(seed=5) as model:
        ended = place.acp("run", "--workers", "1", "--cases", cases, "--model-url", model.url, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["runs"] == {"succeeded": 2}
    assert ended.json["actions"] == {"denied": 1, "succeeded": 1}
    # Each case is read, a tool is called, and what that answered is told.
    told = Counter(sum(message["role"] == "tool" for message in request["messages"]) for request in model.requests)
    assert told == {0: 2, 1: 2}
    assert place.environment()["ACP_MODEL_URL"] == model.url
    assert not (place.state / "logs" / "model.log").exists()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--cases", "missing.jsonl"], 2, "the cases file missing.jsonl is not usable: No such file or directory"),
        (["--cases", "/dev/null"], 2, "it is empty"),
        (["--state-dir", "policy.yaml"], 5, "the state directory policy.yaml cannot be written"),
        (["--state-dir", "policy.yaml/below"], 5, "the state directory policy.yaml/below cannot be written"),
        (["--policy", "missing.yaml"], 2, "the policy missing.yaml is refused"),
        (["--broker", "redis://:hush@127.0.0.1:1/0"], 5, "the broker redis://127.0.0.1:1/0 does not answer"),
        (["--broker", "memory://"], 2, "a broker that other processes reach"),
        (["--broker", "carrier-pigeon://"], 5, "expected redis://"),
        (["--db", "oracle://x"], 5, "oracle is not supported"),
        (["--db", "postgresql://x:hush@127.0.0.1:1/y"], 5, "does not answer"),
        (["--workers", "0"], 2, "--workers"),
        (["--horizon", "year"], 2, "--horizon"),
    ],
)
def test_what_cannot_work_is_named_before_anything_is_enqueued(
    place: Place, args: list[str], code: int, words: str
) -> None:
    ended = place.acp("run", *args)
    assert (ended.code, words in ended.err) == (code, True), ended.err
    assert "hush" not in ended.err
    assert not (place.state / "logs" / "worker-desk1.log").exists()


def test_one_run_at_a_time_works_in_a_state_directory(place: Place) -> None:
    place.state.mkdir()
    with (place.state / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        ended = place.acp("run")
    assert ended.code == 1
    assert "in use by another run (pid 4711)" in ended.err
    assert "--state-dir" in ended.err


def test_a_program_that_does_not_start_is_named_with_its_last_words(place: Place) -> None:
    broken = place.folder / "broken"
    broken.mkdir()
    code = "import os, sys\nif 'beat' in sys.orig_argv:\n    os.write(2, b'no luck today')\n    os._exit(1)\n"
    (broken / "sitecustomize.py").write_text(code)
    ended = place.acp("run", environment={"PYTHONPATH": f"{broken}:{ROOT}"})
    assert ended.code == 5
    assert "beat ended with 1 before ready; the end of" in ended.err
    assert "no luck today" in ended.err
    eventually(lambda: not leftovers(place), "nothing is left")


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_every_process(place: Place, sign: signal.Signals, code: int) -> None:
    cases = written(place, *(case(f"c{n}") for n in range(150)))
    process = place.start("run", "--no-agent", "--workers", "1", "--cases", cases)
    with killed_at_last(process):
        family = eventually(lambda: working(process.pid, place), "a fleet at work")
        process.send_signal(sign)
        _, err = process.communicate(timeout=40)
    assert process.returncode == code, err
    assert "Traceback" not in err
    eventually(lambda: not [one for one in family if alive(one)], "every process has ended")


@pytest.mark.postgres
def test_a_run_on_postgres_is_shown_live_on_a_terminal(walkable_folder: Path) -> None:
    place = Place(walkable_folder)
    cases = written(place, case("c1"), case("c2", priority="high", amount_usd=5), case("c3", priority="critical"))
    ended, screen = on_a_terminal(place, "run", "--db", "postgres", "--workers", "1", "--cases", cases)
    assert ended.code == 0, screen
    assert "1 denied, 1 parked, 1 succeeded" in ended.out
    assert "decide while a run is at work" in ended.out
    assert "audit verified" in ended.out
    assert "\x1b[?25h" in screen, "the cursor is back"
    for words in ("starting: broker, database", "never-close-accounts: an account", " of $15.00"):
        assert words in screen
    assert not leftovers(place)
