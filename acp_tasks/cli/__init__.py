"""The command line `acp`, also as `celery -A app acp`: one file per noun, loaded when it is asked for.

Exit codes: 0 ok, 1 failed, 2 usage or input that the caller can mend, 3 denied, 5 not ready (settings, database,
broker). Every command takes `--json` and then writes one JSON document to stdout (`events`: one object a line); an
error is a message on stderr, and with `--json` also `{"error": ..., "message": ...}` on stdout.
"""

import click

from acp_tasks.cli.group import GovernedGroup

_COMMANDS = {
    "actions": "acp_tasks.cli.actions:actions",
    "alerts": "acp_tasks.cli.alerts:alerts",
    "approvals": "acp_tasks.cli.approvals:approvals",
    "audit": "acp_tasks.cli.audit:audit",
    "budget": "acp_tasks.cli.budget:budget",
    "checkpoints": "acp_tasks.cli.checkpoints:checkpoints",
    "db": "acp_tasks.cli.db:db",
    "doctor": "acp_tasks.cli.doctor:doctor",
    "drill": "acp_tasks.cli.drill:drill",
    "events": "acp_tasks.cli.events:events",
    "grants": "acp_tasks.cli.grants:grants",
    "identities": "acp_tasks.cli.identities:identities",
    "metrics": "acp_tasks.cli.metrics:metrics",
    "models": "acp_tasks.cli.models:models",
    "policy": "acp_tasks.cli.policy:policy",
    "recovery": "acp_tasks.cli.recovery:recovery",
    "ready": "acp_tasks.cli.ready:ready",
    "release": "acp_tasks.cli.stop:release",
    "run": "acp_tasks.cli.run:run",
    "sessions": "acp_tasks.cli.sessions:sessions",
    "scorecard": "acp_tasks.cli.scorecard:scorecard",
    "status": "acp_tasks.cli.stop:status",
    "stop": "acp_tasks.cli.stop:stop",
    "tokens": "acp_tasks.cli.tokens:tokens",
    "usage": "acp_tasks.cli.usage:usage",
}
_SUMMARIES = {
    "actions": "What agents asked for, and what became of it.",
    "alerts": "What needs a person's attention, and the runbook for it.",
    "approvals": "Requests that wait for a person.",
    "audit": "Prove that the trail and the ledger hold, and prune what is old.",
    "budget": "Limits of sessions and by identity: how they stand, set, raise.",
    "checkpoints": "Restore points of the streams.",
    "db": "Bring the database to this release's schema.",
    "doctor": "Say what is ready, and what to do about the rest.",
    "drill": "Exercise the kill switch, the approval chains and recovery.",
    "events": "The audit trail.",
    "grants": "Standing approvals.",
    "identities": "Who belongs where: users, teams and orgs.",
    "metrics": "The fleet in numbers, also for Prometheus.",
    "models": "Who may use which model, and what it costs.",
    "policy": "The rules, and what they say about an action.",
    "recovery": "Actions in doubt, and what became of them.",
    "ready": "Whether this machine's worker is ready, for probes.",
    "release": "Release a kill switch.",
    "run": "Run a whole governed fleet on this machine, once.",
    "sessions": "Control windows, and ending one early.",
    "scorecard": "The trend of an hour, a day, a week, a month.",
    "status": "What is stopped, what runs and waits, who works.",
    "stop": "Engage a kill switch, and see it through.",
    "tokens": "Who may decide, and how they prove it.",
    "usage": "Who used how much, and whether the limits fit it.",
}


@click.group(cls=GovernedGroup, commands_at=_COMMANDS, summaries=_SUMMARIES)
def acp() -> None:
    """Governed agent actions: look, decide, prove.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 denied, 5 not ready.
    """


def main() -> None:
    """The console script."""
    acp(prog_name="acp")
