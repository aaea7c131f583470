"""`acp policy`: whether a file is a policy, which one is in force here, and what it says about an action."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, assert_never

import click

from acp_tasks import bootstrap
from acp_tasks.cli import output
from acp_tasks.cli.group import Exit
from acp_tasks.cli.models import access_document, access_of
from governance.core.budgets import Payer
from governance.core.identity import Identity, Resolved, refusal
from governance.core.instants import SECOND_US
from governance.core.models import ModelAccess, ModelRefused
from governance.core.money import cost_micros, token_count
from governance.core.policy import (
    DEFAULT_STREAM,
    ActionFacts,
    Allow,
    Applies,
    Deny,
    Explanation,
    Failed,
    Finding,
    Mismatched,
    Park,
    Policy,
    Risk,
    Steer,
    Unmet,
    Verdict,
    explain,
)
from governance.operations.directory import identity_now
from governance.policy_file import load_policy


@click.group()
def policy() -> None:
    """The rules, and what they say about an action."""


@policy.command()
@click.argument("file", type=click.Path(path_type=Path))
@output.json_option
def validate(file: Path) -> None:
    """Check a policy file as a whole; exit code 2 names every problem with its line."""
    loaded = load_policy(file)
    if output.wants_json():
        output.write_json(
            {
                "ok": True,
                "path": str(file),
                "hash": loaded.hash,
                "streams": list(loaded.streams),
                "rules": len(loaded.rules),
                "budgets": len(loaded.budgets),
            }
        )
    else:
        counts = f"{len(loaded.rules)} rules, {len(loaded.streams)} streams, {len(loaded.budgets)} budgets"
        click.echo(f"{file} is a valid policy: {counts}, {loaded.hash}")


@policy.command()
@output.json_option
def show() -> None:
    """The policy of this process. A session that is open keeps the version that it was opened with."""
    parts = bootstrap.parts()
    gov = parts.gov
    source = str(parts.settings.policy) if parts.settings.policy is not None else "the packaged default policy"
    content = json.loads(gov.policy_source)
    if output.wants_json():
        output.write_json({"path": source, "hash": gov.policy.hash, **content})
        return
    click.echo(f"{output.cell(source)}, {gov.policy.hash}\n")
    output.write_table(
        ("STREAM", "WINDOW", "TIME ZONE", "LIMITS", "WHEN EXHAUSTED"),
        (
            (
                name,
                f"{plan.window.length_us // SECOND_US} s",
                plan.window.timezone,
                content["streams"][name].get("limits", "unlimited"),
                plan.on_exhausted,
            )
            for name, plan in gov.policy.streams.items()
        ),
        empty="no streams",
    )
    if gov.policy.require_identity:
        click.echo(f"\nevery action needs its {', '.join(sorted(gov.policy.require_identity))}")
    click.echo()
    output.write_table(
        ("RULE", "EFFECT", "MATCH", "WHEN", "REASON"),
        (
            (rule.id, rule.effect, written.get("match"), written.get("when"), rule.reason)
            for rule, written in zip(gov.policy.rules, content["rules"], strict=True)
        ),
        empty="no rules: everything is denied",
    )
    if gov.policy.budgets:
        click.echo()
        output.write_table(
            ("BUDGET", "WHOSE", "PERIOD", "TIME ZONE", "LIMITS", "WHEN EXHAUSTED"),
            (
                (
                    budget.id,
                    dict(budget.identity),
                    budget.period,
                    budget.timezone,
                    dict(budget.limits),
                    budget.on_exhausted,
                )
                for budget in gov.policy.budgets
            ),
            empty="no budgets",
        )


@policy.command("explain")
@click.option("--action", "name", required=True, metavar="NAME", help="The task's name.")
@click.option("--risk", type=click.Choice([risk.value for risk in Risk]), default=Risk.HIGH.value, show_default=True)
@click.option("--cost-usd", default="0", metavar="X", help="What it may spend.")
@click.option("--tokens", type=int, default=0, metavar="N", help="The tokens it may use.")
@click.option("--resource", metavar="R", help="What it works on.")
@click.option("--stream", default=DEFAULT_STREAM, show_default=True)
@click.option("--agent", metavar="A", help="Who acts.")
@click.option("--user", metavar="U", help="Who pays.")
@click.option("--team", metavar="T")
@click.option("--org", metavar="O")
@click.option("--model", metavar="M", help="The model it declares: whether it may use it is asked, too.")
@click.option("--arg", "arguments", multiple=True, metavar="K=V", help="An argument, JSON or plain text; repeatable.")
@output.json_option
def explain_(
    name: str,
    risk: str,
    cost_usd: str,
    tokens: int,
    resource: str | None,
    stream: str,
    agent: str | None,
    user: str | None,
    team: str | None,
    org: str | None,
    model: str | None,
    arguments: tuple[str, ...],
) -> None:
    """What would become of an action, and which rule decides; exit code 3 when it would be refused.

    The directory fills in what is left out of who pays, as it does for actions.
    """
    gov = bootstrap.governance()
    resolved = identity_now(gov, Identity(user, team, org))
    facts = ActionFacts(
        name=name,
        risk=Risk(risk),
        resource=resource,
        stream=stream,
        agent_id=agent,
        **asdict(resolved.identity),
        cost_micros=cost_micros(cost_usd, "--cost-usd"),
        tokens=token_count(tokens, "--tokens"),
        arguments=dict(map(_argument, arguments)),
        model=model,
    )
    explanation = _explained(gov.policy, facts, resolved)
    access = None if model is None else access_of(gov, model, Payer.of(resolved.identity, agent, stream), facts.risk)
    if output.wants_json():
        output.write_json({**_document(explanation, gov.policy.hash, access), "identity": asdict(resolved.identity)})
    else:
        _write(explanation, access)
    refused = isinstance(explanation.verdict, (Deny, Steer)) or isinstance(access, ModelRefused)
    click.get_current_context().exit(Exit.DENIED if refused else Exit.OK)


def _explained(policy: Policy, facts: ActionFacts, resolved: Resolved) -> Explanation:
    """What the rules say; an identity that may not act is refused before any of them."""
    explanation = explain(policy, facts)
    refused = refusal(resolved, policy.require_identity)
    if refused is None:
        return explanation
    return Explanation(Deny(*refused), tuple(replace(finding, decided=False) for finding in explanation.findings))


def _argument(given: str) -> tuple[str, Any]:
    key, equals, value = given.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{given!r} is not K=V", param_hint="--arg")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _write(explanation: Explanation, access: ModelAccess | None) -> None:
    output.write_fields(_verdict(explanation.verdict))
    if access is not None:
        click.echo()
        output.write_fields(access_document(access))
    click.echo()
    output.write_table(
        ("", "RULE", "EFFECT", "OUTCOME", "CONDITION"),
        (
            (">" if finding.decided else "", finding.rule.id, finding.rule.effect, _outcome(finding), finding.condition)
            for finding in explanation.findings
        ),
        empty="no rules",
    )


def _document(explanation: Explanation, policy_hash: str, access: ModelAccess | None) -> dict[str, object]:
    return {
        **_verdict(explanation.verdict),
        **({} if access is None else {"model": access_document(access)}),
        "policy": policy_hash,
        "rules": [
            {
                "id": finding.rule.id,
                "effect": finding.rule.effect,
                "outcome": _outcome(finding),
                "condition": finding.condition,
                "decided": finding.decided,
            }
            for finding in explanation.findings
        ],
    }


def _verdict(verdict: Verdict) -> Mapping[str, object]:
    match verdict:
        case Allow(rule, reason):
            return {"verdict": "allow", "rule": rule, "reason": reason}
        case Park(rule, reason, chain):
            return {"verdict": "park", "rule": rule, "reason": reason, "timeout_s": chain.timeout_us // SECOND_US}
        case Steer(rule, reason, guidance, suggest):
            return {"verdict": "steer", "rule": rule, "reason": reason, "guidance": guidance, "suggest": list(suggest)}
        case Deny(rule, reason):
            return {"verdict": "deny", "rule": rule, "reason": reason}
        case _:
            assert_never(verdict)


def _outcome(finding: Finding) -> str:
    match finding.outcome:
        case Mismatched(part):
            return f"not about this {part}"
        case Unmet():
            return "its condition is false"
        case Applies():
            return "applies"
        case Failed(problem):
            return f"its condition failed: {problem}"
        case _:
            assert_never(finding.outcome)
