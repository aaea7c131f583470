"""Tasks of the shop that call models."""

from typing import Any

from acp_tasks import current_run
from governance.errors import ModelCallRefused
from tests.support.shop import app, effect


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@app.task(name="m.asks", risk="low", idempotent=True)
def asks(text: str, model: str = "small-1", **options: Any) -> str:
    answer = current_run().model(model).chat(user(text), **options)
    return answer.choices[0].message.content or ""


@app.task(name="m.holds", risk="low", idempotent=True, cost_usd="0.01", tokens=500)
def holds(text: str, model: str = "small-1") -> str:
    """Holds enough beforehand, and uses some by itself."""
    run = current_run()
    run.spend(cost_usd="0.000100", tokens=20)
    return run.model(model).chat(user(text), max_tokens=20).choices[0].message.content or ""


@app.task(name="m.copes", risk="low", idempotent=True)
def copes(text: str) -> list[str]:
    """Is refused the model it likes best, and takes another."""
    run = current_run()
    try:
        run.model("large-1").chat(user(text))
    except ModelCallRefused as refused:
        run.model("small-1").chat(user(text), max_tokens=30)
        return [refused.model, refused.rule]
    return []


@app.task(name="m.talks", risk="low", idempotent=True)
def talks(folder: str, text: str, **options: Any) -> str:
    """Streams, and says when the first word has come."""
    run = current_run()
    said = ""
    for chunk in run.model("small-1").stream(user(text), **options):
        if not said and chunk.choices and chunk.choices[0].delta.content:
            effect(folder, f"heard {run.command_id} {run.attempt}")
        said += "".join(choice.delta.content or "" for choice in chunk.choices)
    return said


@app.task(name="m.drops", risk="low", idempotent=True)
def drops(asked: str, dropped: str) -> bool:
    """Hears one call to its end and of another one the first piece: it is still being said when the body returns."""
    run = current_run()
    run.model("small-1").chat(user(asked), max_tokens=20)
    left_open.append(run.model("small-1").stream(user(dropped), max_tokens=60))
    return bool(next(left_open[-1]).choices)


#: Streams that nobody has closed.
left_open: list[Any] = []
