"""The directory's file is taken as a whole or refused as a whole, with every problem where its author finds it."""

from pathlib import Path

import pytest

from governance.core.directory import Directory
from governance.directory_file import parse_directory, read_directory
from governance.errors import DirectoryInvalid

GOOD = """\
version: 1
orgs: [acme, globex]
teams: {support: acme, billing: globex}
users:
  u1: support
  ann@example.com: billing
"""


def problems(text: str) -> list[str]:
    with pytest.raises(DirectoryInvalid, match="refused as a whole") as caught:
        parse_directory(text)
    return caught.value.problems


def test_a_file_becomes_a_directory() -> None:
    directory = parse_directory(GOOD)
    assert directory == Directory(
        ("acme", "globex"),
        {"support": "acme", "billing": "globex"},
        {"u1": "support", "ann@example.com": "billing"},
    )
    again = "{users: {ann@example.com: billing, u1: support}, version: 1, orgs: [globex, acme],"
    assert parse_directory(again + " teams: {billing: globex, support: acme}}").hash == directory.hash
    assert parse_directory("version: 1").hash != directory.hash


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["line 1: it is empty: expected a mapping with version, orgs, teams, users"]),
        ("orgs: []", ["line 1: the key version is missing: expected a mapping with version, orgs, teams, users"]),
        ("version: 2", ["line 1, version: expected 1, the version of the format that this release reads"]),
        ("version: 1\norg: []", ["line 2, org: unknown key, expected one of version, orgs, teams, users"]),
        ("version: 1\norgs: acme", ["line 2, orgs: expected a list of names"]),
        ("version: 1\norgs: [a, a]", ["line 2, orgs[1]: the org a is here twice"]),
        ("version: 1\norgs: [7]", ["line 2, orgs[0]: expected a printable name of 1 to 200 characters without spaces"]),
        ("version: 1\nteams: {t: nowhere}", ["line 2, teams.t: the org nowhere is not among the file's orgs"]),
        ("version: 1\nusers: {u: 5}", ["line 2, users.u: the team 5 is not among the file's teams"]),
        ("version: 1\nusers:\n  u:\n", ["line 3, users.u: it is empty"]),
        ("version: 1\nusers: {' u': t}", ["line 2, users. u: expected a printable name"]),
        ("version: 1\nusers: [u]", ["line 2, users: expected a mapping, NAME: TEAM"]),
        ("version: 1\nusers: {u: [", ["line 2"]),
    ],
)
def test_a_file_with_an_error_is_refused_with_its_line(text: str, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(expected)
    for said, wanted in zip(found, expected, strict=True):
        assert said.startswith(wanted)


def test_every_problem_is_told_at_once() -> None:
    found = problems("version: 1\norgs: [a]\nteams: {t: b, s: a}\nusers:\n  u1: t\n  u2: x\n  u1: s\n")
    assert [said.partition(":")[0] for said in found] == ["line 3, teams.t", "line 6, users.u2", "line 7, users.u1"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DirectoryInvalid, match="the file cannot be read"):
        read_directory(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"version: 1\norgs: [\xe4]\n")
    with pytest.raises(DirectoryInvalid, match="line 2: byte 18 is not UTF-8"):
        read_directory(tmp_path / "latin.yaml")
