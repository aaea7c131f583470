"""Settings from the environment, a `.env` file and a secrets directory; every problem is reported at once."""

import base64
import os
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from governance.errors import SettingsInvalid

# What the relay and the lease timings were proved on, and what Celery itself calls stable.
_BROKERS = ("redis", "rediss", "unix", "sentinel", "amqp", "amqps", "memory")
_HIDDEN = "***"
_SIGNING_SECRET_LENGTH_MIN = 16
_SECRETS = ("ACP_SIGNING_KEYS", "ACP_WEBHOOK_SECRET", "ACP_APPRISE_URLS")


class Settings(BaseSettings):
    """What a process of the fleet needs to know. Names are `ACP_<FIELD>`; seconds are real seconds."""

    model_config = SettingsConfigDict(
        env_prefix="ACP_", env_file=".env", extra="ignore", populate_by_name=True, validate_default=True
    )

    database_url: str = Field(
        default="",
        validation_alias=AliasChoices("ACP_DATABASE_URL", "DATABASE_URL"),
        description="where the truth is",
    )
    broker_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("ACP_BROKER_URL", "CELERY_BROKER_URL", "REDIS_URL"),
        description="what wakes the workers",
    )
    result_backend: str = Field(default="", description="Celery's results; empty: the broker")
    policy: Path | None = Field(default=None, description="the policy file; empty: the packaged default")
    state_dir: Path = Field(default=Path(".acp"), description="spool and local files of this machine")
    time_scale: float = Field(default=1.0, gt=0, le=1_000_000, description="how much faster the fleet's clock runs")
    time_origin_us: int = Field(default=0, ge=0, description="the instant the scaled clock starts from")
    arguments_bytes_max: int = Field(default=256 * 1024, ge=1024, description="size limit of an action's arguments")
    attempts_max: int = Field(default=5, ge=1, description="attempts of an action whose workers keep dying")
    heartbeat_s: float = Field(default=3.0, gt=0, description="between two heartbeats of a worker")
    lease_s: float = Field(default=12.0, gt=0, description="silence after which a worker is suspected")
    relay_s: float = Field(default=30.0, gt=0, description="silence after which a message is published again")
    time_limit_s: float = Field(default=3600.0, gt=0, description="hard limit of one attempt")
    soft_time_limit_s: float = Field(default=3300.0, gt=0, description="soft limit of one attempt")
    drill_every_s: float = Field(default=7 * 24 * 3600.0, ge=0, description="between two drills of a kind; 0: never")
    checkpoint_every_s: float = Field(
        default=3600.0, ge=0, description="between two checkpoints of a stream that works; 0: agents' own only"
    )
    keep_days: int = Field(default=0, ge=0, description="days of the clock that history is kept; 0: for ever")
    pool_size: int = Field(default=5, ge=1, le=100, description="database connections of one process")
    webhook_url: str = Field(default="", description="where approvals and alerts are told; empty: nowhere")
    webhook_secret: str = Field(default="", repr=False, description="signs what is told; several while one is replaced")
    signing_keys: str = Field(
        default="", repr=False, description="ID:SECRET of who may submit, the one that signs first; empty: unsigned"
    )
    apprise_urls: str = Field(
        default="", repr=False, description="who else is told of alerts, as apprise URLs separated by spaces"
    )
    alert_approval_age_s: float = Field(default=900.0, ge=0, description="age of the oldest pending request; 0: never")
    alert_budget_percent: str = Field(default="50 80 100", description="levels of a budget's use; empty: never")
    alert_forecast_percent: int = Field(
        default=25, ge=0, le=100, description="of a budget, from which its exhaustion is forecast; 0: never"
    )
    alert_rate_factor: float = Field(default=3.0, gt=1, description="how much a rate has to grow within the hour")
    alert_denials_min: int = Field(default=10, ge=0, description="denials of a stream in the hour, at least; 0: never")
    alert_recoveries_min: int = Field(default=5, ge=0, description="recoveries in the hour, at least; 0: never")
    alert_exhausted_min: int = Field(default=1, ge=0, description="refusals by budgets in the hour, at least; 0: never")
    alert_model_denials_min: int = Field(default=1, ge=0, description="refused models in the hour, at least; 0: never")
    alert_beat_s: float = Field(default=120.0, ge=0, description="silence of beat; 0: never")
    alert_scan_s: float = Field(default=300.0, ge=0, description="since a scan came to its end; 0: never")
    usage_summary: Literal["", "daily", "weekly", "monthly"] = Field(
        default="weekly", description="how often limits are compared with what was used; empty: never"
    )
    model_url: str = Field(default="", description="the OpenAI-compatible endpoint of run.model(); empty: none")
    model_key_file: Path | None = Field(default=None, description="the file that holds the key for it; empty: no key")
    model_timeout_s: float = Field(default=120.0, gt=0, description="silence of it after which a call failed")
    horizon: str = Field(default="", description="the horizon whose agent loop this fleet runs; acp run sets it")
    tracing: bool = Field(default=False, description="spans by OpenTelemetry, with the extra otel")
    log_json: bool = Field(default=False, description="log lines as JSON")

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, value: str) -> str:
        if not value:
            return value
        try:
            backend = make_url(value).get_backend_name()
        except (ArgumentError, ValueError):
            raise ValueError("expected sqlite:///FILE or postgresql://USER@HOST/NAME") from None
        if backend not in ("sqlite", "postgresql"):
            raise ValueError(f"{backend} is not supported: expected sqlite:///FILE or postgresql://USER@HOST/NAME")
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker_url(cls, value: str) -> str:
        scheme = urlsplit(value).scheme
        if scheme not in _BROKERS:
            raise ValueError(f"expected {', '.join(f'{known}://' for known in _BROKERS)}")
        return value

    @field_validator("model_url")
    @classmethod
    def _model_url(cls, value: str) -> str:
        if not value:
            return value
        try:
            parsed = urlsplit(value)
            usable = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
        except ValueError:
            usable = False
        if not usable or re.search(r"[^!-~]|#", value):
            raise ValueError("expected http://HOST/v1 or https://HOST/v1, percent-encoded")
        if "@" in parsed.netloc:
            raise ValueError("expected no user or password in it: the key is in ACP_MODEL_KEY_FILE")
        return value

    @field_validator("soft_time_limit_s")
    @classmethod
    def _soft_before_hard(cls, value: float, info: Any) -> float:
        hard = info.data.get("time_limit_s", value + 1)
        if value >= hard:
            raise ValueError(f"expected less than ACP_TIME_LIMIT_S ({hard:g})")
        return value

    @field_validator("lease_s")
    @classmethod
    def _lease_outlives_heartbeats(cls, value: float, info: Any) -> float:
        heartbeat = info.data.get("heartbeat_s", value)
        if value < 2 * heartbeat:
            raise ValueError(f"expected at least twice ACP_HEARTBEAT_S ({heartbeat:g})")
        return value

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url(cls, value: str) -> str:
        if not value:
            return value
        expected = "expected http://HOST/PATH or https://HOST/PATH, percent-encoded"
        try:
            parsed = urlsplit(value)
            usable = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
        except ValueError:
            raise ValueError(expected) from None
        if not usable or re.search(r"[^!-~]|#", value):
            raise ValueError(expected)
        if "@" in parsed.netloc:
            raise ValueError(f"{expected}, without a user or password: the signature says who sends")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _webhook_secret(cls, value: str, info: Any) -> str:
        if info.data.get("webhook_url") and not value.split():
            raise ValueError("expected a secret that ACP_WEBHOOK_URL's receiver knows too: it signs what is told")
        try:
            keys = [signing_key(secret) for secret in value.split()]
        except ValueError:
            keys = [b""]
        if not all(keys):
            raise ValueError("expected base64 after whsec_, or a secret that does not begin with whsec_")
        return value

    @field_validator("signing_keys")
    @classmethod
    def _signing_keys(cls, value: str) -> str:
        ids = []
        for pair in value.split():
            key, _, secret = pair.partition(":")
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", key) or len(secret) < _SIGNING_SECRET_LENGTH_MIN:
                expected = f"ID:SECRET pairs separated by spaces, secrets of at least {_SIGNING_SECRET_LENGTH_MIN}"
                raise ValueError(f"expected {expected} characters, such as k2:... k1:...")
            ids.append(key)
        if len(set(ids)) != len(ids):
            raise ValueError("expected every key once: two secrets have the same id")
        return value

    @property
    def signing_secrets(self) -> dict[str, bytes]:
        """Secrets by the id of their key, the one that signs first; empty when nothing is signed."""
        pairs = (pair.partition(":") for pair in self.signing_keys.split())
        return {key: secret.encode() for key, _, secret in pairs}

    @field_validator("alert_budget_percent")
    @classmethod
    def _alert_budget_percent(cls, value: str) -> str:
        levels = value.split()
        if not all(level.isascii() and level.isdigit() and 1 <= int(level) <= 100 for level in levels):
            raise ValueError('expected whole percents from 1 to 100 separated by spaces, such as "50 80 100"')
        return value

    @property
    def alert_budget_percents(self) -> tuple[int, ...]:
        return tuple(sorted({int(level) for level in self.alert_budget_percent.split()}))

    @property
    def store_url(self) -> str:
        """The database, by default a SQLite file in the state directory."""
        return self.database_url or sqlite_url(self.state_dir)

    @property
    def results_url(self) -> str:
        return self.result_backend or self.broker_url

    def masked(self) -> dict[str, object]:
        """The effective settings with passwords hidden."""
        shown: dict[str, object] = {}
        for name, value in self:
            text = str(value) if isinstance(value, Path) else value
            shown[name] = _masked(text) if isinstance(text, str) and "://" in text else text
        shown["database_url"] = _masked(self.store_url)
        shown["webhook_secret"] = _HIDDEN if self.webhook_secret else ""
        shown["signing_keys"] = " ".join(f"{key}:{_HIDDEN}" for key in self.signing_secrets)
        # Whatever comes after the scheme may be a key.
        shown["apprise_urls"] = " ".join(f"{url.partition('://')[0]}://{_HIDDEN}" for url in self.apprise_urls.split())
        return shown


def sqlite_url(folder: Path) -> str:
    """The embedded default's database in a state directory, whatever characters that one's name has."""
    return URL.create("sqlite", database=str(folder / "governance.db")).render_as_string()


def signing_key(secret: str) -> bytes:
    """The key of one webhook secret: the bytes that `whsec_<base64>` stands for, or the text of any other.

    Raises ValueError when what follows `whsec_` is not base64.
    """
    kept = secret.removeprefix("whsec_")
    return secret.encode() if kept == secret else base64.b64decode(kept, validate=True)


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings. Raises SettingsInvalid with every problem."""
    secrets = os.environ.get("ACP_SECRETS_DIR")
    try:
        return Settings(**{"_secrets_dir": secrets, **overrides})
    except ValidationError as problem:
        raise SettingsInvalid([_problem(error) for error in problem.errors()]) from None


def _problem(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    name = name if name.isupper() else f"ACP_{name.upper()}"
    value = str(error.get("input"))
    value = _HIDDEN if name in _SECRETS and value else _masked(value)
    return f"{name}={value}: {error['msg'].removeprefix('Value error, ')}"


def _masked(url: str) -> str:
    """Without its password, also when it is no proper URL."""
    return re.sub(r"(?<=:)[^:@/]*(?=@)", _HIDDEN, url)
