"""Who may decide in a local stack: its owner, by a token that only they can read."""

from pathlib import Path

import pytest

from acp_tasks.fleet.owner import let_owner_decide
from acp_tasks.token_file import keep_token, kept_token
from governance.core.principals import Principal
from governance.errors import NotAuthenticated, StateDirUnusable
from governance.operations.principals import authenticate, create_token, list_tokens, revoke_token
from tests.support.governed import Desk, ManualClock, make_governance

ROOT = Principal("root", frozenset({"admin"}))


@pytest.fixture
def desk(sqlite_url: str) -> Desk:
    return Desk(make_governance(sqlite_url, clock=ManualClock()))


def test_a_token_is_made_once_and_only_its_owner_can_read_it(desk: Desk, tmp_path: Path) -> None:
    assert let_owner_decide(desk.gov, tmp_path, owns_database=True)
    text = kept_token(tmp_path)
    assert text is not None
    assert "admin" in authenticate(desk.gov, text).roles
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert let_owner_decide(desk.gov, tmp_path, owns_database=True)
    assert kept_token(tmp_path) == text
    assert len(list_tokens(desk.gov)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_token_that_others_can_read_or_write_counts_for_nothing(desk: Desk, tmp_path: Path, mode: int) -> None:
    let_owner_decide(desk.gov, tmp_path, owns_database=True)
    (tmp_path / "token").chmod(mode)
    with pytest.raises(NotAuthenticated, match="chmod 600"):
        kept_token(tmp_path)
    with pytest.raises(NotAuthenticated, match="chmod 600"):
        let_owner_decide(desk.gov, tmp_path, owns_database=True)


def test_a_token_that_was_revoked_is_made_anew(desk: Desk, tmp_path: Path) -> None:
    let_owner_decide(desk.gov, tmp_path, owns_database=True)
    revoke_token(desk.gov, list_tokens(desk.gov)[0].id, by=ROOT)
    assert let_owner_decide(desk.gov, tmp_path, owns_database=True)
    text = kept_token(tmp_path)
    assert text is not None
    assert authenticate(desk.gov, text).roles == {"admin"}


def test_in_a_database_of_others_nobody_makes_themselves_an_admin(desk: Desk, tmp_path: Path) -> None:
    create_token(desk.gov, principal="root", roles=["admin"], by=None)
    assert not let_owner_decide(desk.gov, tmp_path, owns_database=False)
    assert kept_token(tmp_path) is None
    assert [line.principal for line in list_tokens(desk.gov)] == ["root"]


def test_a_database_of_others_without_an_admin_gets_its_first(desk: Desk, tmp_path: Path) -> None:
    assert let_owner_decide(desk.gov, tmp_path, owns_database=False)
    assert kept_token(tmp_path)


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "token.tmp").mkdir()
    with pytest.raises(StateDirUnusable, match=str(tmp_path)):
        keep_token(tmp_path, "acp_x_y")
