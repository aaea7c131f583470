"""What came of a shift: one document for machines, and the same for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from acp_tasks.cli import output
from acp_tasks.cli.budget import bar
from acp_tasks.fleet.shift import Tally
from governance.core.actions import State
from governance.core.money import usd
from governance.operations.audit import Verification
from governance.operations.scorecard import Scorecard, Standing

_STUCK_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that is known when a run ends."""

    card: Scorecard
    actions: Mapping[str, int]
    runs: Mapping[str, int]
    audit: Verification
    tally: Tally
    effects: int
    effects_before: int
    stuck: list[Standing]
    duration_s: float
    flower_url: str | None
    state_dir: Path
    logs: Path
    outbox: Path
    environment_file: Path
    keeps_database: bool

    @property
    def failed(self) -> int:
        return sum(self.card.states.get(state, 0) for state in (State.FAILED, State.IN_DOUBT))

    @property
    def ok(self) -> bool:
        return self.audit.ok and not self.stuck and not self.failed

    def document(self) -> dict[str, Any]:
        """The keys that scripts rely on, and what helps a person who reads it."""
        return {
            "ok": self.ok,
            "actions": dict(self.actions),
            "runs": dict(self.runs),
            "sessions": len(self.card.sessions),
            "denials": dict(self.card.denials),
            "spent_micros": self.card.spent_micros,
            "audit": {"ok": self.audit.ok, "events": self.audit.events, "problems": list(self.audit.problems)},
            "duration_s": round(self.duration_s, 2),
            "cases": output.plain(self.tally),
            "effects": self.effects,
            "flower": self.flower_url,
            "session_ids": list(self.card.sessions),
            "durations": output.plain(self.card.durations),
            "budgets": [{**output.plain(line), "left": line.left} for line in self.card.budgets],
            "tickets": output.plain(self.card.tickets),
            "stuck": [output.plain(standing) for standing in self.stuck],
            "outbox": str(self.outbox),
            "logs": str(self.logs),
            "state_dir": str(self.state_dir),
            "environment": str(self.environment_file),
        }

    def write(self) -> None:
        """For people, to stdout."""
        card, tally = self.card, self.tally
        durations = card.durations
        click.echo()
        output.write_fields(
            {
                "cases": f"{tally.read} read, {tally.repeated} of them a repeat, {tally.skipped} lines skipped",
                "actions": _listed(self.actions),
                "agent's runs": _listed(self.runs) or None,
                "denied by": _listed(card.denials) or None,
                "sessions": ", ".join(card.sessions),
                "spent": usd(card.spent_micros),
                "effects": f"{self.effects} new and {self.effects_before} earlier ones in {self.outbox}",
                "submit to end": f"p50 {durations.p50_ms:g} ms, p95 {durations.p95_ms:g} ms ({durations.count} actions)"
                if durations.p50_ms is not None and durations.p95_ms is not None
                else None,
                "took": f"{self.duration_s:.1f} s",
            }
        )
        self._write_budgets()
        self._write_tickets()
        verified = "verified" if self.audit.ok else "NOT verified"
        click.echo(f"\naudit {verified}: {self.audit.events} events, {self.audit.actions} actions")

    def _write_budgets(self) -> None:
        click.echo()
        output.write_table(
            ("SESSION", "UNIT", "", "SPENT", "HELD", "LIMIT"),
            (
                (
                    line.scope_id,
                    line.unit,
                    bar(line),
                    output.amount(line.unit, line.posted),
                    output.amount(line.unit, line.held),
                    output.amount(line.unit, line.limit_amount),
                )
                for line in self.card.budgets
            ),
            empty="no budget was touched",
        )

    def _write_tickets(self) -> None:
        if not self.card.tickets:
            return
        click.echo()
        output.write_table(
            ("WAITS FOR A PERSON", "ACTION", "RESOURCE", "RULE", "EXPIRES"),
            (
                (ticket.id, ticket.action_name, ticket.resource, ticket.rule, output.when(ticket.expires_us))
                for ticket in self.card.tickets
            ),
            empty="",
        )
        where = output.cell(str(self.environment_file))
        if self.keeps_database:
            click.echo(f"to decide:  . {where} && acp approvals approve {self.card.tickets[0].id} --reason '...'")
            click.echo("The next run of this state directory carries out what was approved.")
        else:
            click.echo("Their database ended with this run: decide while a run is at work, or use --db URL.")

    def write_problems(self) -> None:
        """What is wrong, to stderr, whatever the other output is."""
        for problem in self.audit.problems:
            click.echo(f"audit: {output.cell(problem)}", err=True)
        for standing in self.stuck[:_STUCK_SHOWN]:
            told = "" if standing.settled or standing.state not in (State.DENIED, State.FAILED) else ", not delivered"
            click.echo(f"stuck: {standing.name} ({standing.id}) is {standing.state}{told}", err=True)
        if self.stuck:
            click.echo(f"{len(self.stuck)} actions did not settle in time; the logs are in {self.logs}", err=True)
        if self.failed:
            click.echo(f"{self.failed} actions failed or are in doubt: acp actions list shows them", err=True)


def _listed(counts: Any) -> str:
    return ", ".join(f"{count} {output.cell(name)}" for name, count in counts.items())
