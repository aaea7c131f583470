"""The webhook's settings: nothing is told without them, and the secret is never shown."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

import acp_tasks.webhook as webhook
from acp_tasks import bootstrap
from acp_tasks.app import make_app
from acp_tasks.control import JOBS
from governance.config import load_settings
from governance.errors import SettingsInvalid

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, or so").decode()


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)

    def put(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"ACP_{name.upper()}", value)

    return put


def test_without_a_url_nothing_is_told(settings_of: Callable[..., None], sqlite_url: str) -> None:
    settings_of(database_url=sqlite_url)
    bootstrap.parts.cache_clear()
    try:
        gov = bootstrap.governance()
        # There is no database yet: it is not even asked.
        assert JOBS["acp.notices"](make_app(load_settings()), gov) == 0
    finally:
        bootstrap.parts.cache_clear()


def test_a_secret_is_wanted_and_never_shown(settings_of: Callable[..., None], tmp_path: Path) -> None:
    settings_of(webhook_url="https://hooks.example.com/acp")
    with pytest.raises(SettingsInvalid, match="ACP_WEBHOOK_SECRET=: expected a secret"):
        load_settings()
    (tmp_path / "ACP_WEBHOOK_SECRET").write_text(f"{SECRET}\n")
    settings_of(secrets_dir=str(tmp_path))
    settings = load_settings()
    assert settings.webhook_secret == SECRET
    receiver = webhook.receiver(settings)
    assert receiver is not None
    assert receiver.keys == (b"a secret of thirty-two bytes, or so",)
    for shown in (str(settings.masked()), repr(settings), repr(receiver)):
        assert SECRET not in shown
        assert "thirty-two" not in shown
    assert settings.masked()["webhook_secret"] == "***"


@pytest.mark.parametrize(
    ("url", "secret", "problem"),
    [
        ("ftp://example.com/x", "s", "ACP_WEBHOOK_URL=ftp://example.com/x: expected http://HOST/PATH or https://"),
        ("https://", "s", "ACP_WEBHOOK_URL=https://: expected http"),
        ("https://example.com/a b", "s", "percent-encoded"),
        ("https://example.com:port/", "s", "expected http"),
        ("https://me:hidden@example.com/", "s", "without a user or password"),
        ("https://example.com/", "whsec_hidden!", "ACP_WEBHOOK_SECRET=\\*\\*\\*: expected base64 after whsec_"),
        ("https://example.com/", "whsec_", "expected base64 after whsec_"),
        ("", "whsec_hidden!", "expected base64 after whsec_"),
    ],
)
def test_unusable_settings_say_what_is_wrong(
    settings_of: Callable[..., None], url: str, secret: str, problem: str
) -> None:
    settings_of(webhook_url=url, webhook_secret=secret)
    with pytest.raises(SettingsInvalid, match=problem) as caught:
        load_settings()
    assert "hidden" not in str(caught.value)
