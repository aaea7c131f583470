"""The support desk's agent: each case is a run of it, which reads the case and calls one of the desk's tools."""

from typing import Any, Final

from celery import shared_task

from acp_tasks.agents.cases import MODEL
from acp_tasks.agents.desk import close_account, refund, reply
from acp_tasks.governed import GovernedTask

INSTRUCTIONS: Final = """\
You are the agent of a support desk. Read the case and call one tool for it:
priority low or medium: case_reply, with a short and friendly answer as text;
priority high: case_refund, with the amount the case names;
priority critical: account_close.
Then say in one sentence what was done. If the tool refuses, say why, and do not try anything else."""


@shared_task(
    base=GovernedTask,
    name="desk.answer",
    risk="low",
    cost_usd="0.002",
    tokens=2000,
    idempotent=True,
    resource="customer_case:{case_id}",
    stream="support",
    model=MODEL,
)
def answer(
    case_id: str, priority: str, subject: str, body: str, amount_usd: str | None = None, model: str = MODEL
) -> dict[str, Any]:
    """Works through one case; the words it ends with."""
    # Imported here: only the workers that answer cases need its libraries.
    from acp_tasks.agents.agent_task import work_through

    lines = [f"case_id: {case_id}", f"priority: {priority}", f"subject: {subject}"]
    lines += [f"amount_usd: {amount_usd}"] if amount_usd else []
    prompt = "\n".join([*lines, "", body])
    said = work_through(model, prompt, [reply, refund, close_account], instructions=INSTRUCTIONS)
    return {"case_id": case_id, "said": said}
