"""What the scripted model answers: the rules, all of them, and nothing of HTTP.

The last message of the user decides, and so do the tools' answers since: the same conversation and the same seed have
the same answer, word for word. A line of that message that begins with `!` directs the model (tests do that):

    !call NAME {"key": "value"}   call this tool; the next line's tool is called once this one has answered
    !also NAME {"key": "value"}   call this one together with the tool of the line before
    !say TEXT                     end with these words
    !words N                      end with N words
    !fail STATUS [TIMES [S]]      answer with this HTTP status, TIMES times (0, and if not said: always), with
                                  a Retry-After of S seconds; the request after that is answered
    !slow S                       wait S seconds before the answer
    !pause S                      wait S seconds before each piece of a stream
    !cut N                        close the connection after N pieces of a stream; without a stream, at once
    !overrun                      say every word, whatever the bound
    !usage none                   leave the usage out
    !usage INPUT OUTPUT [CACHED [WRITTEN [TOTAL]]]
                                  report these tokens instead of the counted ones
    !running                      report the usage with every piece of a stream, and not at its end alone

Without any direction the desk's rules apply: `DESK` says which tools a message asks for, in their order, among those
that are offered. Arguments come from the message too, from `key: value` lines and from JSON objects in it; one that is
not there is made up by its schema. When every tool has answered, the model ends: with the offered output tool where it
may not answer in words, else in words that quote the last tool's answer.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from acp_tasks.agents.made_up import OPENINGS, facts_of, made_up
from governance.core.digest import canonical_json, sha256

# What a message asks for -> the tools that are called for it, by a part of their names. The first that matches counts.
DESK: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (r"(?m)^priority: critical", ("close",)),
    (r"(?m)^priority: high", ("refund",)),
    (r"(?m)^priority: (low|medium)", ("reply",)),
    (r"clos\w* (\w+ )?account|critical", ("close",)),
    (r"refund|money back|charged|amount_usd", ("refund",)),
    (r"", ("reply",)),
)
# What ends a conversation where words are not allowed, as pydantic-ai calls it.
OUTPUT_TOOL: Final = "final_result"

_WORDS: Final = (
    "the",
    "case",
    "is",
    "taken",
    "care",
    "of",
    "and",
    "nothing",
    "else",
    "has",
    "to",
    "be",
    "done",
    "today",
)


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallTools:
    calls: tuple[Called, ...]


@dataclass(frozen=True, slots=True)
class Fail:
    """An HTTP error instead of an answer, `times` times (0: always)."""

    status: int
    times: int
    retry_after_s: float | None


Answer: TypeAlias = Say | CallTools


@dataclass(frozen=True, slots=True)
class Usage:
    input: int
    output: int
    cached: int = 0
    written: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How the answer is given. `usage`: "counted", "none", or what is reported instead."""

    fail: Fail | None = None
    delay_s: float = 0.0
    pause_s: float = 0.0
    cut_after: int | None = None
    overrun: bool = False
    running: bool = False
    usage: Usage | str = "counted"


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request: its messages from the first on, the tools it offers by name, and whether one must be called."""

    model: str
    messages: tuple[Mapping[str, Any], ...]
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tool_required: bool = False
    tokens_max: int | None = None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Conversation":
        """Reads the body of a request. Raises ValueError, KeyError or TypeError where it is none."""
        tools = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or ()}
        choice = body.get("tool_choice")
        if isinstance(choice, Mapping):
            chosen = choice["function"]["name"]
            tools = {chosen: tools[chosen]}
        elif choice == "none":
            tools = {}
        messages = tuple(body["messages"])
        if not messages or not all(isinstance(message, Mapping) for message in messages):
            raise ValueError("messages: expected at least one object")
        tokens_max = body.get("max_completion_tokens") or body.get("max_tokens")
        required = isinstance(choice, Mapping) or choice == "required"
        return cls(str(body["model"]), messages, tools, required, tokens_max)

    @property
    def asked(self) -> int:
        """The place of the user's last message; -1 when there is none."""
        return max((n for n, message in enumerate(self.messages) if message["role"] == "user"), default=-1)

    @property
    def request(self) -> str:
        return text_of(self.messages[self.asked]) if self.asked >= 0 else ""

    @property
    def since(self) -> Sequence[Mapping[str, Any]]:
        """What came after it: the model's own calls, and the tools' answers."""
        return self.messages[self.asked + 1 :]


def answer(talk: Conversation, seed: int) -> tuple[Answer, Manner]:
    """What the model says or calls next, and how."""
    directions = [line[1:].strip() for line in talk.request.splitlines() if line.startswith("!")]
    manner = _manner(directions)
    chance = random.Random(sha256(canonical_json([seed, talk.model, list(talk.messages)])))
    turns = list(_directed(directions)) if directions else [[(name, None)] for name in _desk_tools(talk)]
    # Every turn of the model since the request was one of these; an output tool's is not, and nothing follows it.
    made = sum(1 for message in talk.since if message["role"] == "assistant" and message.get("tool_calls"))
    if made < len(turns):
        facts = facts_of(talk.request)
        return CallTools(tuple(_call(talk, name, told, facts, chance) for name, told in turns[made])), manner
    words = _final_words(talk, directions, chance)
    if talk.tool_required and talk.tools:
        name = next((tool for tool in talk.tools if tool.startswith(OUTPUT_TOOL)), list(talk.tools)[-1])
        return CallTools((_call(talk, name, None, facts_of(talk.request) | {"text": words}, chance),)), manner
    return Say(words), manner


def text_of(message: Mapping[str, Any]) -> str:
    """The words of a message, whose content may be text, parts, or nothing."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)


def pieces(text: str) -> list[str]:
    """The text in its tokens: a word with the space before it is one."""
    return re.findall(r"\s*\S+", text)


def counted(talk: Conversation, said: int) -> Usage:
    """A token is about four characters of what was sent; what an earlier turn had sent already comes from the cache."""
    turns = [n for n, message in enumerate(talk.messages) if message["role"] == "assistant"]
    before = talk.messages[: turns[-1]] if turns else ()
    tools = canonical_json(dict(talk.tools)) if talk.tools else ""
    sent = len(canonical_json(list(talk.messages))) + len(tools)
    known = len(canonical_json(list(before))) + len(tools) if before else 0
    return Usage(input=sent // 4 + 1, output=said, cached=known // 4)


def _desk_tools(talk: Conversation) -> list[str]:
    for pattern, parts in DESK:
        if re.search(pattern, talk.request, re.IGNORECASE):
            offered = [next((name for name in talk.tools if part in name), None) for part in parts]
            return [name for name in offered if name is not None]
    return []


def _directed(directions: Sequence[str]) -> Iterator[list[tuple[str, str | None]]]:
    """The turns that are directed, each with the tools it calls and their arguments as they were told."""
    turn: list[tuple[str, str | None]] = []
    for direction in directions:
        word, _, rest = direction.partition(" ")
        if word not in ("call", "also"):
            continue
        if word == "call" and turn:
            yield turn
            turn = []
        name, _, told = rest.strip().partition(" ")
        turn.append((name, told or None))
    if turn:
        yield turn


def _manner(directions: Sequence[str]) -> Manner:
    manner = Manner()
    for direction in directions:
        word, *values = direction.split()
        match word:
            case "fail":
                status, times, after_s = (*values, None, None)[:3]
                fail = Fail(int(status or 500), int(times or 0), float(after_s) if after_s else None)
                manner = replace(manner, fail=fail)
            case "slow":
                manner = replace(manner, delay_s=float(values[0]))
            case "pause":
                manner = replace(manner, pause_s=float(values[0]))
            case "cut":
                manner = replace(manner, cut_after=int(values[0]))
            case "overrun":
                manner = replace(manner, overrun=True)
            case "running":
                manner = replace(manner, running=True)
            case "usage":
                told = values[0] if values[0] == "none" else Usage(*(int(value) for value in values))
                manner = replace(manner, usage=told)
    return manner


def _final_words(talk: Conversation, directions: Sequence[str], chance: random.Random) -> str:
    for direction in directions:
        word, _, rest = direction.partition(" ")
        if word == "say":
            return rest
        if word == "words":
            return " ".join(chance.choice(_WORDS) for _ in range(int(rest)))
    answers = [text_of(message) for message in talk.since if message["role"] == "tool"]
    if answers:
        return f"{chance.choice(OPENINGS)}: {answers[-1]}"
    return f"{chance.choice(OPENINGS)}: {' '.join(chance.sample(_WORDS, 8))}."


def _call(talk: Conversation, name: str, told: str | None, facts: Mapping[str, Any], chance: random.Random) -> Called:
    arguments = told if told is not None else json.dumps(made_up(talk.tools.get(name, {}), facts, chance))
    return Called(f"call_{chance.getrandbits(96):024x}", name, arguments)
