"""The support desk: the workload of `acp run`. Its effects are lines in its outbox file, each with its command_id.

The outbox is the desk's outside world: a line is written once for each command_id, however often the action is tried.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from celery import shared_task

from acp_tasks import bootstrap
from acp_tasks.governed import GovernedTask
from acp_tasks.run import Run, current_run

_REPLY_COST_USD = "0.004"
_REFUND_COST_USD = "0.02"


@shared_task(
    base=GovernedTask,
    name="case.reply",
    risk="low",
    cost_usd=_REPLY_COST_USD,
    tokens=600,
    idempotent=True,
    resource="customer_case:{case_id}",
    stream="support",
)
def reply(case_id: str, text: str) -> dict[str, Any]:
    """Answers a case with low or medium priority."""
    run = current_run()
    _act(run, "reply", case_id, {"text": text})
    # One token is about three characters of what was written.
    run.spend(cost_usd=_REPLY_COST_USD, tokens=len(text) // 3)
    return {"case_id": case_id, "answered": True}


@shared_task(
    base=GovernedTask,
    name="case.refund",
    risk="high",
    cost_usd=_REFUND_COST_USD,
    tokens=300,
    idempotent=False,
    resource="customer_case:{case_id}",
    stream="support",
)
def refund(case_id: str, amount_usd: str) -> dict[str, Any]:
    """Pays money back, once a person said so."""
    run = current_run()
    _act(run, "refund", case_id, {"amount_usd": amount_usd})
    run.spend(cost_usd=_REFUND_COST_USD, tokens=120)
    return {"case_id": case_id, "refunded_usd": amount_usd}


@shared_task(
    base=GovernedTask,
    name="account.close",
    risk="critical",
    idempotent=False,
    resource="customer_case:{case_id}",
    stream="support",
)
def close_account(case_id: str) -> dict[str, Any]:
    """What no agent may do by itself; the shipped policy denies it."""
    _act(current_run(), "close_account", case_id, {})
    return {"case_id": case_id, "closed": True}


def outbox_path() -> Path:
    return bootstrap.parts().settings.state_dir / "outbox.jsonl"


def _act(run: Run, effect: str, case_id: str, content: dict[str, object]) -> None:
    """Appends one line for this command_id, unless it is there."""
    line = {
        "command_id": run.command_id,
        "action_id": run.action_id,
        "effect": effect,
        "case_id": case_id,
        **content,
    }
    # Most lines are another command's, and looking at their text is enough to know that.
    needle = json.dumps(run.command_id).encode()
    with outbox_path().open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        whole = 0
        for known in file:
            if not known.endswith(b"\n"):
                # Whoever wrote this died half-way: nobody was told of it, so it never happened.
                file.truncate(whole)
                break
            whole += len(known)
            if needle in known and json.loads(known)["command_id"] == run.command_id:
                return
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
