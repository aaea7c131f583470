"""Cases files: every line is a case, or is reported with its number and what was expected."""

import json
from pathlib import Path

import pytest

from acp_tasks.agents.cases import LINE_BYTES_MAX, BadLine, Case, Priority, Read, read_cases, request_of
from acp_tasks.cli.run import SHIPPED
from governance.errors import CasesInvalid

GOOD = {"case_id": "c1", "priority": "low", "subject": "Where is it?", "body": "It is late."}


def written(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return path


def case(**changes: object) -> str:
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not None})


def problem(tmp_path: Path, line: str | bytes) -> str:
    [found] = read_cases(written(tmp_path, line))
    assert isinstance(found, BadLine), found
    assert found.line == 1
    return found.problem


def good(tmp_path: Path, line: str | bytes) -> Case:
    [found] = read_cases(written(tmp_path, line))
    assert isinstance(found, Read), found
    return found.case


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"priority": "urgent"}, "priority='urgent': Input should be 'low', 'medium', 'high' or 'critical'"),
        ({"subject": None}, "subject is missing"),
        ({"case_id": None, "body": None}, "case_id is missing; body is missing"),
        ({"case_id": 7}, "case_id=7: Input should be a valid string"),
        ({"case_id": " "}, "case_id=' ': expected printable characters"),
        ({"case_id": "a\nb"}, "expected printable characters"),
        ({"case_id": "c" * 101}, "at most 100 characters"),
        ({"prio": "low"}, "unknown key 'prio': expected case_id, priority, subject, body"),
        ({"priority": "high"}, "a case of priority high needs amount_usd"),
        ({"amount_usd": "-1"}, "amount_usd='-1': amount_usd='-1' is not an amount: expected 0 or more USD"),
        ({"amount_usd": 0}, "expected more than 0 USD"),
        ({"amount_usd": "ten"}, "USD as plain decimal text"),
        ({"amount_usd": float("nan")}, "a finite amount"),
        ({"amount_usd": True}, "not true or false"),
        ({"amount_usd": "0.0000001"}, "at most 6 decimals"),
        ({"user": ""}, "user='': expected printable characters"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    assert expected in problem(tmp_path, case(**changes))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"case_id": "c1",', "not JSON at column"),
        ("case c1, low", "not JSON at column 1"),
        ("[1, 2]", "expected a JSON object such as"),
        ("null", "expected a JSON object such as"),
        (b'{"case_id": "\xff"}', "not UTF-8 at byte 14"),
        ('{"case_id": "c1", "case_id": "c2"}', "key 'case_id' is there twice"),
        ("[" * 100_000, "nested too deeply"),
        (case(subject="x").replace('"x"', '"\\ud800"'), "surrogate"),
    ],
)
def test_a_line_that_is_no_case_is_told_apart(tmp_path: Path, line: str | bytes, expected: str) -> None:
    assert expected in problem(tmp_path, line)


def test_reading_goes_on_after_a_bad_line_and_counts_every_line(tmp_path: Path) -> None:
    path = written(tmp_path, case(), "", "nonsense", "x" * (LINE_BYTES_MAX + 5), case(case_id="c2"))
    found = list(read_cases(path))
    assert [(type(line), line.line) for line in found] == [(Read, 1), (BadLine, 3), (BadLine, 4), (Read, 5)]
    assert isinstance(found[2], BadLine)
    assert f"longer than {LINE_BYTES_MAX} bytes" in found[2].problem


def test_a_case_id_comes_again_with_the_same_content_only(tmp_path: Path) -> None:
    reordered = json.dumps(dict(reversed(GOOD.items())))
    first, same, other = read_cases(written(tmp_path, case(), reordered, case(body="Changed.")))
    assert isinstance(first, Read)
    assert isinstance(same, Read)
    assert isinstance(other, BadLine)
    assert other.problem.startswith("case_id 'c1' is on line 1 with other content")


@pytest.mark.parametrize("amount", ["12.5", "12.50", 12.5, "12.500000"])
def test_every_way_to_write_an_amount_is_one_amount(tmp_path: Path, amount: object) -> None:
    assert good(tmp_path, case(priority="high", amount_usd=amount)).amount_usd == "12.50"


def test_a_file_may_begin_with_a_byte_order_mark_and_end_without_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + case().encode() + b"\r\n" + case(case_id="c2").encode())
    assert [line.case.case_id for line in read_cases(path) if isinstance(line, Read)] == ["c1", "c2"]


def test_each_priority_asks_for_its_action(tmp_path: Path) -> None:
    def asked(priority: str, **changes: object) -> tuple[str, str]:
        request = request_of(good(tmp_path, case(priority=priority, **changes)))
        return request.action, request.command_id

    assert asked("low") == asked("medium", amount_usd="1") == ("case.reply", "case:c1:case.reply")
    assert asked("high", amount_usd="3") == ("case.refund", "case:c1:case.refund")
    assert asked("critical") == ("account.close", "case:c1:account.close")
    refund = request_of(good(tmp_path, case(priority="high", amount_usd=3)))
    assert refund.arguments == {"case_id": "c1", "amount_usd": "3.00"}


def test_who_pays_is_what_the_line_names(tmp_path: Path) -> None:
    assert good(tmp_path, case()).identity == {}
    assert good(tmp_path, case(user="u", org="o")).identity == {"user": "u", "org": "o"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CasesInvalid, match=r"missing\.jsonl is not usable: No such file"):
        next(read_cases(tmp_path / "missing.jsonl"))
    with pytest.raises(CasesInvalid, match="directory"):
        next(read_cases(tmp_path))


def test_the_shipped_cases_are_cases_of_every_priority() -> None:
    found = [line.case for line in read_cases(SHIPPED) if isinstance(line, Read)]
    assert len(found) == len(list(read_cases(SHIPPED)))
    assert {one.priority for one in found} == set(Priority)
