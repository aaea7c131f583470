"""`acp budget`: what every window may use, has used and holds; setting and raising what it may."""

from collections.abc import Mapping
from typing import Any

import click

from acp_tasks.cli import output
from acp_tasks.cli.context import RELAY_WILL, celery_app, governance, principal
from acp_tasks.cli.group import Exit
from acp_tasks.cli.times import instant_us
from acp_tasks.publish import deliver
from governance.core.budgets import Part
from governance.core.ledger import Unit
from governance.core.money import cost_micros
from governance.core.windows import NEVER_US
from governance.errors import InvalidOption
from governance.operations import budgets, reports
from governance.operations.budgets import BudgetChanged, BudgetInForce, LimitRaise
from governance.operations.reconcile import reconcile
from governance.operations.reports import BudgetLine

_BAR = 20


@click.group()
def budget() -> None:
    """Limits of money, tokens and actions: of sessions, and by identity and period."""


@budget.command("list")
@output.json_option
def list_() -> None:
    """The budgets by identity that count now, those of the policy and those that were set, with their raises."""
    found = budgets.list_budgets(governance())
    if output.wants_json():
        output.write_json({"budgets": [_document(one) for one in found]})
        return
    output.write_table(
        ("BUDGET", "WHOSE", "PERIOD", "COST", "TOKENS", "MODELS", "WHEN EXHAUSTED", "FROM", "RAISED"),
        (
            (
                one.budget.id,
                _whose(one.budget.identity),
                f"{one.budget.period} {one.budget.timezone}",
                output.amount(Unit.COST, one.budget.max_cost_micros),
                output.amount(Unit.TOKENS, one.budget.max_tokens),
                ", ".join(one.budget.allowed_models or ()),
                one.budget.on_exhausted,
                one.set_by or "policy",
                "; ".join(map(_raise, one.raises)),
            )
            for one in found
        ),
        empty="no budget by identity: the policy's `budgets`, or acp budget set",
    )


@budget.command()
@click.option("--session", "session_id", metavar="ID", help="One session, also one that is over.")
@click.option("--budget", "budget_id", metavar="ID", help="The accounts of one budget by identity.")
@output.json_option
def show(session_id: str | None, budget_id: str | None) -> None:
    """Limit, posted, held and left of the windows that are open now."""
    found = reports.list_budgets(governance(), session_id=session_id, budget_id=budget_id)
    if output.wants_json():
        output.write_json({"budgets": [{**output.plain(line), "left": line.left} for line in found]})
        return
    output.write_table(
        ("BUDGET", "UNIT", "USED", "LIMIT", "POSTED", "HELD", "LEFT", "RESETS"),
        (
            (
                f"{line.scope} {line.scope_id}",
                line.unit,
                bar(line),
                output.amount(line.unit, line.limit_amount),
                output.amount(line.unit, line.posted),
                output.amount(line.unit, line.held),
                output.amount(line.unit, line.left),
                "never" if line.window_end_us >= NEVER_US else output.when(line.window_end_us),
            )
            for line in found
        ),
        empty="no window is open: the first action that needs one opens it",
    )


@budget.command("set")
@click.argument("budget_id", metavar="ID")
@click.option("--identity", multiple=True, metavar="KEY=VALUE", help="user, team, org, agent or stream; * is each.")
@click.option("--period", metavar="P", help="daily, weekly, monthly or unlimited.")
@click.option("--timezone", metavar="TZ", help="Whose midnight; UTC when it is not said.")
@click.option("--max-cost-usd", metavar="X", help="Money in a window.")
@click.option("--max-tokens", type=int, metavar="N", help="Tokens in a window.")
@click.option("--model", "models", multiple=True, metavar="PATTERN", help="Only such models; repeatable.")
@click.option("--soft", multiple=True, type=int, metavar="PERCENT", help="Alerts at it; repeatable, 50 and 80 if not.")
@click.option("--on-exhausted", metavar="E", help="deny, defer, park or stop.")
@click.option("--stripes", type=int, metavar="N", help="Rows of a hot account, on PostgreSQL.")
@click.option("--remove", is_flag=True, help="Take back what was set: the policy's budget of this id counts again.")
@click.option("--reason", required=True, help="Kept in the trail.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this command harmless.")
@output.json_option
def set_(
    budget_id: str, identity: tuple[str, ...], remove: bool, reason: str, command_id: str | None, **keys: Any
) -> None:
    """Set a budget as a whole, before the policy's of the same id; it counts at once. Needs the role operator."""
    given = {key: value for key, value in {**keys, "models": None}.items() if value not in (None, ())}
    given |= {"allowed_models": list(keys["models"])} if keys["models"] else {}
    given |= {"soft": list(keys["soft"])} if keys["soft"] else {}
    given |= {"identity": dict(map(_part, identity))} if identity else {}
    if remove == bool(given):
        raise InvalidOption("set", "both" if remove else "nothing", "--remove, or what the budget is, as a whole")
    changed = budgets.set_budget(
        governance(), budget_id, None if remove else given, by=principal(), reason=reason, command_id=command_id
    )
    _report(changed, "taken back" if remove else "set")


@budget.command("raise")
@click.argument("budget_id", metavar="ID")
@click.option("--cost-usd", default="0", metavar="X", help="Money on top of the limit.")
@click.option("--tokens", type=click.IntRange(0), default=0, metavar="N", help="Tokens on top of the limit.")
@click.option("--for", "who", metavar="WHO", help="One account, such as org=acme, as acp budget show names it.")
@click.option("--until", required=True, metavar="WHEN", help="A duration such as 2h, or an instant with its zone.")
@click.option("--reason", required=True, help="Kept in the trail.")
@click.option("--command-id", metavar="ID", help="Makes a repeat of this command harmless.")
@output.json_option
def raise_(
    budget_id: str, cost_usd: str, tokens: int, who: str | None, until: str, reason: str, command_id: str | None
) -> None:
    """Add to a budget's limits for a while; what waits for room goes on. Needs the role operator."""
    gov = governance()
    changed = budgets.raise_budget(
        gov,
        budget_id,
        until_us=instant_us("until", until, gov.clock.now_us(), repeatable=command_id is not None),
        reason=reason,
        by=principal(),
        cost_micros=cost_micros(cost_usd, "--cost-usd"),
        tokens=tokens,
        who=who,
        command_id=command_id,
    )
    _report(changed, "raised")


@budget.command("reconcile")
@output.json_option
def reconcile_() -> None:
    """Prove that accounts, entries, stripes, limits and holds agree; exit code 1 names what does not."""
    found = reconcile(governance())
    if output.wants_json():
        output.write_json({"ok": found.ok, "accounts": found.accounts, "findings": found.findings})
    else:
        for finding in found.findings:
            click.echo(output.cell(finding))
        click.echo(f"{found.accounts} accounts, {len(found.findings) or 'no'} findings")
    click.get_current_context().exit(Exit.OK if found.ok else Exit.FAILED)


def _report(changed: BudgetChanged, done: str) -> None:
    """What became of it, after what waited has been published."""
    gov, app = governance(), celery_app()
    # The relay publishes the rest when the broker is away.
    published = all(deliver(app, gov, action_id) for action_id in changed.released)
    if output.wants_json():
        output.write_json({**output.plain(changed), "published": published})
        return
    click.echo(f"budget {changed.budget_id} is {done}{' (done before)' if changed.repeated else ''}")
    if changed.released:
        click.echo(f"{len(changed.released)} actions that waited for it go on")
    if not published:
        click.echo(RELAY_WILL)


def _document(one: BudgetInForce) -> dict[str, object]:
    return {**output.plain(one.budget), **{key: value for key, value in output.plain(one).items() if key != "budget"}}


def _whose(identity: Mapping[Part, str]) -> str:
    return ", ".join(f"{part}={value}" for part, value in identity.items())


def _raise(one: LimitRaise) -> str:
    amounts = [output.amount(Unit.COST, one.cost_micros)] if one.cost_micros else []
    amounts += [f"{one.tokens:,} tokens"] if one.tokens else []
    return f"{' and '.join(amounts)} for {one.who or 'everybody'} until {output.when(one.until_us)}"


def _part(text: str) -> tuple[str, str]:
    part, equals, value = text.partition("=")
    if not equals:
        raise InvalidOption("identity", text, "KEY=VALUE such as org=acme")
    return part, value


def bar(line: BudgetLine) -> str:
    """Posted and held as parts of the limit, `#` and `=`."""
    if line.limit_amount is None:
        return "-" * _BAR
    limit = max(line.limit_amount, 1)
    posted = min(_BAR, -(-line.posted * _BAR // limit))
    held = min(_BAR, -(-(line.posted + line.held) * _BAR // limit)) - posted
    return "#" * posted + "=" * held + "." * (_BAR - posted - held)
