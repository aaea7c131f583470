"""Settings: every problem at once, named as the variable it is; passwords never shown."""

from pathlib import Path

import pytest

from governance.config import load_settings
from governance.errors import SettingsInvalid
from governance.store import migrate
from governance.store.engine import Store


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "ACP_DATABASE_URL",
        "DATABASE_URL",
        "ACP_BROKER_URL",
        "CELERY_BROKER_URL",
        "REDIS_URL",
        "ACP_STATE_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_default_is_a_sqlite_file_in_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACP_STATE_DIR", "/somewhere")
    settings = load_settings()
    assert settings.store_url == "sqlite:////somewhere/governance.db"
    assert settings.results_url == settings.broker_url == "redis://127.0.0.1:6379/0"


def test_our_own_name_wins_over_the_general_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://general")
    assert load_settings().broker_url == "redis://general"
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://celery")
    assert load_settings().broker_url == "redis://celery"
    monkeypatch.setenv("ACP_BROKER_URL", "redis://own")
    assert load_settings().broker_url == "redis://own"
    monkeypatch.setenv("DATABASE_URL", "postgresql://general/db")
    assert load_settings().store_url == "postgresql://general/db"
    monkeypatch.setenv("ACP_DATABASE_URL", "postgresql://own/db")
    assert load_settings().store_url == "postgresql://own/db"


def test_a_file_and_a_secrets_directory_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ACP_RELAY_S=7\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "ACP_DATABASE_URL").write_text("postgresql://acp:secret@db/acp")
    monkeypatch.setenv("ACP_SECRETS_DIR", str(secrets))
    settings = load_settings()
    assert settings.relay_s == 7
    assert settings.masked()["database_url"] == "postgresql://acp:***@db/acp"


def test_every_problem_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACP_DATABASE_URL", "mysql://user:secret@db/x")
    monkeypatch.setenv("ACP_TIME_SCALE", "0")
    monkeypatch.setenv("ACP_BROKER_URL", "kafka://user:secret@there")
    monkeypatch.setenv("ACP_SOFT_TIME_LIMIT_S", "4000")
    monkeypatch.setenv("ACP_LEASE_S", "4")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    said = str(caught.value)
    assert "ACP_DATABASE_URL=mysql://user:***@db/x: mysql is not supported" in said
    assert "ACP_TIME_SCALE=0" in said
    assert "ACP_BROKER_URL=kafka://user:***@there: expected redis://" in said
    assert "expected less than ACP_TIME_LIMIT_S (3600)" in said
    assert "expected at least twice ACP_HEARTBEAT_S (3)" in said
    assert "secret" not in said


def test_levels_of_a_budget_are_percents_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().alert_budget_percents == (50, 80, 100)
    monkeypatch.setenv("ACP_ALERT_BUDGET_PERCENT", "90 10 90")
    assert load_settings().alert_budget_percents == (10, 90)
    monkeypatch.setenv("ACP_ALERT_BUDGET_PERCENT", "")
    assert load_settings().alert_budget_percents == ()
    monkeypatch.setenv("ACP_ALERT_BUDGET_PERCENT", "50,80")
    with pytest.raises(SettingsInvalid, match=r"ACP_ALERT_BUDGET_PERCENT=50,80: expected whole percents from 1 to 100"):
        load_settings()


def test_apprise_urls_are_shown_without_what_may_be_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACP_APPRISE_URLS", "slack://hush/hush mailto://me:hush@post.example")
    settings = load_settings()
    assert settings.masked()["apprise_urls"] == "slack://*** mailto://***"
    assert "hush" not in repr(settings)


def test_the_embedded_database_is_in_the_state_directory_whatever_that_is_called(tmp_path: Path) -> None:
    odd = tmp_path / "a b%20c?x=1#2"
    odd.mkdir()
    store = Store(load_settings(state_dir=odd).store_url)
    migrate.upgrade(store)
    store.close()
    assert (odd / "governance.db").exists()
