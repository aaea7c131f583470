"""`acp run`: a whole governed fleet on this machine works through a support desk's cases, and proves it."""

import importlib.util
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
from celery import Celery

from acp_tasks import bootstrap, logs
from acp_tasks.agents.cases import MODEL, BadLine, Line, read_cases
from acp_tasks.agents.horizons import HORIZONS, find_horizon
from acp_tasks.cli import output
from acp_tasks.cli.context import SILENT
from acp_tasks.cli.group import Exit
from acp_tasks.fleet.display import Display, Picture, make_display
from acp_tasks.fleet.lived import Lived
from acp_tasks.fleet.owner import let_owner_decide
from acp_tasks.fleet.process import ProcessFailed, Stack, StopRequested
from acp_tasks.fleet.rehearsal import Living, live
from acp_tasks.fleet.shift import Shift
from acp_tasks.fleet.stack import Fleet, Plan
from acp_tasks.fleet.state_folder import locked_folder
from acp_tasks.fleet.summary import Summary
from governance.config import load_settings
from governance.errors import CasesInvalid, ExtraMissing
from governance.operations import audit
from governance.operations.scorecard import score
from governance.policy_file import parse_policy, read_policy

SHIPPED = Path(__file__).parents[2] / "examples" / "cases.jsonl"
_SIGNALLED = 128


@click.command()
@click.option(
    "--horizon",
    type=click.Choice(list(HORIZONS)),
    default="hour",
    show_default=True,
    help="How long the desk works by itself. An hour's cases are all taken at once, unless --compress is given.",
)
@click.option(
    "--compress",
    type=click.FloatRange(1, 10_000),
    metavar="X",
    help="Live through the horizon X times faster, on one clock for every process; 1 is real time.",
)
@click.option("--cases", type=click.Path(path_type=Path), metavar="FILE", help="JSON Lines; else the shipped cases.")
@click.option("--strict", is_flag=True, help="Stop at a bad line instead of skipping it.")
@click.option("--db", "database", metavar="sqlite|postgres|URL", help="The store; else as the horizon has it.")
@click.option("--broker", metavar="URL", help="Use this broker instead of starting one.")
@click.option("--model-url", metavar="URL", help="Use this OpenAI-compatible endpoint instead of starting one.")
@click.option("--model", default=MODEL, show_default=True, metavar="NAME", help="The model that reads the cases.")
@click.option("--no-agent", is_flag=True, help="Take each case for what its priority says, without a model.")
@click.option("--workers", type=click.IntRange(1, 32), help="Worker processes; else as the horizon has it.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=2, show_default=True, help="Children of a worker.")
@click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR", help="Default: ACP_STATE_DIR, else .acp.")
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Default: ACP_POLICY, else ./policy.yaml if there is one, else the packaged policy.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(1),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="Then give up; of a horizon that is lived through, so much after its end.",
)
@output.json_option
@click.pass_context
def run(
    ctx: click.Context,
    horizon: str,
    compress: float | None,
    cases: Path | None,
    strict: bool,
    database: str | None,
    broker: str | None,
    model_url: str | None,
    model: str,
    no_agent: bool,
    workers: int | None,
    concurrency: int,
    state_dir: Path | None,
    policy: Path | None,
    deadline: float,
) -> None:
    """Run a whole governed fleet on this machine, once.

    Starts a broker, a database, a scripted model, workers, beat and Flower, has the desk's agent work through every
    case, waits until what it asked for has ended or waits for a person, prints a scorecard and verifies the audit
    trail. Ctrl-C ends what it started. Running it again with the same cases and state directory repeats no effect.

    With --compress, or a longer horizon, the desk takes the cases in cycles instead, without a model: windows turn,
    checkpoints are taken, requests time out, drills are run, and the end report says so. --compress 3600 rehearses a
    month in twelve minutes; every rehearsal has a folder of its own in the state directory.
    """
    logs.configure(SILENT)
    started_s = time.monotonic()
    path = cases or SHIPPED
    chosen = find_horizon(horizon)
    plan = Plan(
        state_dir=state_dir or load_settings().state_dir,
        policy=_policy(policy),
        database=database or chosen.database,
        broker_url=broker,
        model_url=model_url,
        workers=workers or chosen.workers,
        concurrency=concurrency,
    )
    lives = Living(chosen, compress or 1.0, deadline) if compress or horizon != "hour" else None
    if lives is None and not no_agent and importlib.util.find_spec("pydantic_ai") is None:
        raise ExtraMissing("pydantic-ai", "pydantic-ai")
    lines = _lines(path, shipped=cases is None, strict=strict)
    display = make_display(live=not output.wants_json())
    try:
        with locked_folder(plan.state_dir) as folder, Stack() as stack, display:
            summary: Summary | Lived
            if lives is not None:
                summary = live(lives, replace(plan, state_dir=folder), stack, display, path, lines, make=_app)
            else:
                fleet = Fleet(replace(plan, state_dir=folder), stack)
                reader = None if no_agent else model
                summary = _work(fleet, display, path, lines, strict=strict, deadline_s=deadline, model=reader)
            display.say("ending every process")
    except BaseException as error:
        request = _stop_behind(error)
        if request is not None:
            click.echo(f"acp: stopped by {request}, every process was ended", err=True)
            ctx.exit(_SIGNALLED + request.sign)
        if not isinstance(error, ProcessFailed):
            raise
        click.echo(f"acp: {error}", err=True)
        if output.wants_json():
            output.write_json({"error": "ProcessFailed", "message": str(error)})
        ctx.exit(Exit.NOT_READY)
    summary = replace(summary, duration_s=time.monotonic() - started_s)
    if output.wants_json():
        output.write_json(summary.document())
    else:
        summary.write()
    summary.write_problems()
    ctx.exit(Exit.OK if summary.ok else Exit.FAILED)


def _work(
    fleet: Fleet,
    display: Display,
    path: Path,
    lines: Iterator[Line],
    *,
    strict: bool,
    deadline_s: float,
    model: str | None,
) -> Summary:
    display.show(Picture(starting=["broker", "database"]))
    fleet.start_servers()
    display.say(f"state {fleet.plan.state_dir}, policy {fleet.plan.policy or 'packaged'}, logs {fleet.logs}")
    fleet.start_programs()
    if fleet.flower_url is not None:
        display.say(f"Flower at {fleet.flower_url}")
    else:
        display.say("no Flower: pip install 'acp-tasks[local]'", "yellow")
    app, gov = _app(), bootstrap.governance()
    owns_database = fleet.plan.database in ("sqlite", "postgres")
    if not let_owner_decide(gov, fleet.plan.state_dir, owns_database=owns_database):
        display.say("this database has admins: ask one for a token to decide with", "yellow")
    # By name: its effects are counted here, the tasks themselves run in the workers.
    desk = importlib.import_module("acp_tasks.agents.desk")
    importlib.import_module("acp_tasks.agents.desk_agent")
    before = _line_count(desk.outbox_path())
    shift = Shift(app, gov, fleet, display, deadline_s=deadline_s, model=model)
    shift.carry_over()
    shift.enqueue(path, lines, strict=strict)
    shift.work()
    display.say("verifying")
    return Summary(
        card=score(gov, shift.watch.action_ids),
        actions=score(gov, shift.watch.asked_ids).states,
        runs=score(gov, shift.watch.run_ids).states,
        audit=audit.verify(gov),
        tally=shift.tally,
        effects=_line_count(desk.outbox_path()) - before,
        effects_before=before,
        stuck=shift.stuck,
        duration_s=0.0,
        flower_url=fleet.flower_url,
        state_dir=fleet.plan.state_dir,
        logs=fleet.logs,
        outbox=desk.outbox_path(),
        environment_file=fleet.environment_file,
        keeps_database=fleet.plan.database != "postgres",
    )


def _stop_behind(error: BaseException) -> StopRequested | None:
    """The signal that led to `error`: it strikes anywhere, and what it interrupted may fail in its own way."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, StopRequested):
        behind = behind.__context__
    return behind


def _policy(given: Path | None) -> Path | None:
    """The policy file, checked before anything is started; None is the packaged policy."""
    path = given or load_settings().policy
    if path is None and Path("policy.yaml").is_file():
        path = Path("policy.yaml")
    if path is None:
        return None
    parse_policy(read_policy(path), str(path))
    return path.absolute()


def _lines(path: Path, *, shipped: bool, strict: bool) -> Iterator[Line]:
    """The cases, opened before anything is started. With `strict`, a file is read to its end first."""
    if shipped and not path.exists():
        raise CasesInvalid(str(path), "the shipped cases come with the repository only: pass --cases FILE")
    if strict and path.is_file():
        bad = next((line for line in read_cases(path) if isinstance(line, BadLine)), None)
        if bad is not None:
            raise CasesInvalid(str(path), f"line {bad.line}: {bad.problem}")
    lines = read_cases(path)
    first = next(lines, None)
    if first is None:
        raise CasesInvalid(str(path), "it is empty: expected one case, one JSON object, a line")
    return itertools.chain([first], lines)


def _app() -> Celery:
    """An app of the fleet that was just started: the environment leads to it now, and did not before."""
    from acp_tasks.app import make_app

    bootstrap.parts.cache_clear()
    return make_app(load_settings())


def _line_count(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)
