"""`acp models`: which tier a model is in, who may use it, and what it costs."""

from collections.abc import Iterable
from typing import Any

import click

from acp_tasks import bootstrap
from acp_tasks.cli import output
from acp_tasks.cli.group import Exit
from governance.core.budgets import Payer, model_patterns
from governance.core.identity import Identity, refusal
from governance.core.models import ModelAccess, ModelAllowed, ModelGovernor, ModelRefused, Tier, Whom
from governance.core.money import usd
from governance.core.policy import DEFAULT_STREAM, Policy, Risk
from governance.core.switches import Subject, stopping
from governance.operations.charges import charges_now
from governance.operations.context import Governance
from governance.operations.directory import identity_now
from governance.operations.switches import board_now, board_seen
from governance.price_table import prices_of

_WILD = "*?["
_UNITS = ("input_micros", "cached_micros", "written_micros", "output_micros")


@click.group()
def models() -> None:
    """Which models may be used by whom, and what they cost."""


@models.command("list")
@output.json_option
def list_() -> None:
    """The tiers of this process's policy, whom they are open to, and every exception with its reason and end."""
    gov = bootstrap.governance()
    policy, now_us = gov.policy.models, gov.clock.now_us()
    opened = {tier: [_whom(entry.whom) for entry in policy.access if entry.tier is tier] for tier in Tier}
    overrides = [
        {
            **override.payload(),
            "model": override.model,
            "for": _whom(override.whom),
            "state": "lasts" if override.lasts(now_us) else "expired",
        }
        for override in policy.overrides
    ]
    if output.wants_json():
        tiers = [{"tier": tier, "models": policy.tiers.get(tier, ()), "open_to": opened[tier]} for tier in Tier]
        output.write_json({"tiers": tiers, "unknown": policy.unknown or "refuse", "overrides": overrides})
        return
    output.write_table(
        ("TIER", "MODELS", "OPEN TO"),
        ((tier, ", ".join(policy.tiers.get(tier, ())) or "none", "; ".join(opened[tier]) or "nobody") for tier in Tier),
        empty="no tiers",
    )
    click.echo(f"\na model that no tier names: {policy.unknown or 'refused'}\n")
    output.write_table(
        ("OVERRIDE", "STATE", "EFFECT", "MODEL", "FOR", "UNTIL", "REASON"),
        ((o["id"], o["state"], o["effect"], o["model"], o["for"], o["until"], o["reason"]) for o in overrides),
        empty="no overrides",
    )


@models.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--input-tokens", type=click.IntRange(0), default=0, help="Some cost more for a long input.")
@output.json_option
def prices(names: tuple[str, ...], input_tokens: int) -> None:
    """What models cost, in USD per million tokens; without names, those that the policy names."""
    parts = bootstrap.parts()
    policy, now_us, url = parts.gov.policy.models, parts.gov.clock.now_us(), parts.settings.model_url or None
    lines: list[dict[str, Any]] = []
    for name in names or _named(parts.gov.policy):
        found = prices_of(policy, name, input_tokens=input_tokens, at_us=now_us, api_url=url)
        line: dict[str, Any] = {"model": name} | dict.fromkeys(_UNITS)
        if found is not None:
            written = found.input if found.written is None else found.written
            line |= dict(zip(_UNITS, (found.input, found.cached, written, found.output), strict=True))
        lines.append({**line, "table": None if found is None else found.table})
    if output.wants_json():
        output.write_json({"prices": lines})
    else:
        output.write_table(
            ("MODEL", "INPUT", "CACHED INPUT", "WRITTEN TO CACHE", "OUTPUT", "FROM"),
            (
                (
                    line["model"],
                    *("unknown" if line[unit] is None else usd(line[unit]) for unit in _UNITS),
                    line["table"],
                )
                for line in lines
            ),
            empty="the policy names no model without a pattern: say which",
        )
    click.get_current_context().exit(Exit.FAILED if names and any(line["table"] is None for line in lines) else Exit.OK)


@models.command()
@click.argument("model")
@click.option("--risk", type=click.Choice([risk.value for risk in Risk]), default=Risk.HIGH.value, show_default=True)
@click.option("--stream", default=DEFAULT_STREAM, show_default=True)
@click.option("--agent", metavar="A", help="Who acts.")
@click.option("--user", metavar="U", help="Who pays.")
@click.option("--team", metavar="T")
@click.option("--org", metavar="O")
@output.json_option
def check(
    model: str, risk: str, stream: str, agent: str | None, user: str | None, team: str | None, org: str | None
) -> None:
    """Whether somebody may use a model, and by which rule; exit code 3 when not.

    The directory fills in what is left out of who pays, as it does for actions. As for those, a kill switch counts
    first, and then whether anything may be done in the name of whoever pays.
    """
    gov = bootstrap.governance()
    board, resolved = board_now(gov), identity_now(gov, Identity(user, team, org))
    payer = Payer.of(resolved.identity, agent, stream)
    switch = stopping(board.engaged, _anybodys(payer, model))
    refused = refusal(resolved, gov.policy.require_identity) if switch is None else (switch.rule, switch.reason)
    access = access_of(gov, model, payer, Risk(risk)) if refused is None else ModelRefused(model, *refused)
    if output.wants_json():
        output.write_json(access_document(access))
    else:
        output.write_fields(access_document(access))
    click.get_current_context().exit(Exit.OK if isinstance(access, ModelAllowed) else Exit.DENIED)


def _anybodys(payer: Payer, model: str) -> Subject:
    """Some action of this caller, which is none in particular."""
    return Subject("", "", model, frozenset(), payer.stream, payer.agent, payer.user, payer.team, payer.org)


def access_of(gov: Governance, model: str, payer: Payer, risk: Risk) -> ModelAccess:
    """What this process's policy says of a model, and the budgets as this process has seen them last."""
    now_us = gov.clock.now_us()
    budgets = model_patterns(charges_now(gov, gov.policy, payer, now_us, board_seen(gov)).charges)
    return ModelGovernor(gov.policy.models, now_us, budgets).check_access(model, payer, risk)


def access_document(access: ModelAccess) -> dict[str, Any]:
    """What became of the question, as `--json` has it."""
    if isinstance(access, ModelAllowed):
        override = None if access.override is None else access.override.payload()
        return {"model": access.model, "access": "allowed", "tier": access.tier, "override": override}
    return {"model": access.model, "access": "refused", "rule": access.rule, "reason": access.reason}


def _named(policy: Policy) -> Iterable[str]:
    """The models that the policy names without a pattern."""
    patterns = [*policy.models.prices, *(pattern for some in policy.models.tiers.values() for pattern in some)]
    return sorted({pattern for pattern in patterns if not any(wild in pattern for wild in _WILD)})


def _whom(whom: Whom) -> str:
    parts = {"user": whom.user, "team": whom.team, "org": whom.org, "agent": whom.agent}
    said = [f"{part} {'|'.join(names)}" for part, names in parts.items() if names is not None]
    if whom.risk is not None:
        said.append(f"risk {'|'.join(sorted(whom.risk))}")
    return ", ".join(said) or "everybody"
