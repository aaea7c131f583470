"""A model without a model: an HTTP server on loopback that speaks the OpenAI-compatible chat completions protocol.

    python -m acp_tasks.agents.scripted_model --seed 1 --port 0

prints `model at http://127.0.0.1:PORT/v1`, the base URL for every client of that protocol, and serves until SIGTERM or
Ctrl-C. Within a process, `ScriptedModel(seed=1)` is the same as a context manager, with `url`, and `requests`: the
bodies that came in. What it answers is said in one place, `scripted_answers`; every model it is asked for, it is.
"""

import json
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import click

from acp_tasks.agents.scripted_answers import (
    Answer,
    CallTools,
    Conversation,
    Fail,
    Manner,
    Say,
    Usage,
    answer,
    counted,
    pieces,
)
from governance.core.digest import canonical_json, sha256

# Every answer is from the same instant: a conversation's answer does not depend on when it is asked.
_CREATED_S: Final = 1_767_225_600
_BODY_BYTES_MAX: Final = 8 * 1024 * 1024


class ScriptedModel:
    """The server, in threads of this process. `key`: what clients must present; none: anything will do."""

    def __init__(self, seed: int = 0, port: int = 0, key: str | None = None) -> None:
        self.seed = seed
        self.key = key
        #: The bodies of the requests for completions, in their order.
        self.requests: list[dict[str, Any]] = []
        self.ended = threading.Event()
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()
        model = self

        class Exchange(_Exchange):
            served = model

        self._server = _Server(("127.0.0.1", port), Exchange)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def note(self, body: dict[str, Any]) -> None:
        with self._lock:
            self.requests.append(body)

    def still_fails(self, talk: Conversation, fail: Fail) -> bool:
        """Whether this request is among the first `times` of its conversation."""
        with self._lock:
            asked = sha256(canonical_json([talk.model, list(talk.messages)]))
            self._failed[asked] += 1
            return not fail.times or self._failed[asked] <= fail.times


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # Whoever asked has left.
            super().handle_error(request, client_address)


class _Exchange(BaseHTTPRequestHandler):
    """One connection, and each request on it."""

    served: ScriptedModel
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.rstrip("/") == "/v1/models":
            self._send(200, {"object": "list", "data": []})
        else:
            self._refuse(404, f"no such path: {self.path}")

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if length > _BODY_BYTES_MAX:
            self.close_connection = True
            self._refuse(413, f"the request has {length} bytes, at most {_BODY_BYTES_MAX} are read")
            return
        raw = self.rfile.read(length)
        if self.served.key is not None and self.headers.get("authorization") != f"Bearer {self.served.key}":
            self._refuse(401, "incorrect API key provided")
        elif self.path.rstrip("/") != "/v1/chat/completions":
            self._refuse(404, f"no such path: {self.path}")
        else:
            try:
                body = json.loads(raw)
                talk = Conversation.of(body)
                answered, manner = answer(talk, self.served.seed)
            except (ValueError, KeyError, TypeError, IndexError) as problem:
                self._refuse(400, f"not a request for a chat completion: {problem!r}")
                return
            self.served.note(body)
            try:
                self._give(body, talk, answered, manner)
            except (BrokenPipeError, ConnectionResetError):
                # Whoever asked has left.
                self.close_connection = True

    def _give(self, body: Mapping[str, Any], talk: Conversation, answered: Answer, manner: Manner) -> None:
        if manner.delay_s and self.served.ended.wait(manner.delay_s):
            return
        if manner.fail is not None and self.served.still_fails(talk, manner.fail):
            after_s = manner.fail.retry_after_s
            headers = {} if after_s is None else {"retry-after": f"{after_s:g}"}
            self._refuse(manner.fail.status, "as directed", headers)
            return
        said = _Said(talk, answered, manner, self.served.seed)
        if body.get("stream"):
            wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            self._stream(said.chunks(wants_usage), manner)
        elif manner.cut_after is not None:
            self._cut()
        else:
            self._send(200, said.whole())

    def _stream(self, chunks: Iterator[Mapping[str, Any] | str], manner: Manner) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, chunk in enumerate(chunks):
            if manner.cut_after is not None and number >= manner.cut_after:
                self._cut()
                return
            if manner.pause_s and self.served.ended.wait(manner.pause_s):
                return
            line = f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n".encode()
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
        kind = "server_error" if status >= 500 else kind
        self._send(status, {"error": {"message": message, "type": kind, "param": None, "code": None}}, headers)

    def _send(self, status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class _Said:
    """One answer in the words of the protocol, no longer than was asked for."""

    def __init__(self, talk: Conversation, answered: Answer, manner: Manner, seed: int) -> None:
        self._head = {
            "id": f"chatcmpl-{sha256(canonical_json([seed, talk.model, list(talk.messages)]))[:24]}",
            "created": _CREATED_S,
            "model": talk.model,
        }
        match answered:
            case Say(text):
                parts = pieces(text)
                self._parts = parts if manner.overrun else parts[: talk.tokens_max]
                self._calls: list[dict[str, Any]] = []
                self._reason = "length" if len(self._parts) < len(parts) else "stop"
                output = len(self._parts)
            case CallTools(calls):
                self._parts = []
                self._calls = [
                    {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
                    for one in calls
                ]
                self._reason = "tool_calls"
                output = sum(len(one.name) + len(one.arguments) for one in calls) // 4 + 1
        self._running = manner.running
        self._usage = _usage(counted(talk, output) if manner.usage == "counted" else manner.usage)

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._parts) or None}
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {"index": 0, "message": message, "finish_reason": self._reason, "logprobs": None}
        return {**self._head, "object": "chat.completion", "choices": [choice], **self._usage}

    def chunks(self, wants_usage: bool) -> Iterator[dict[str, Any] | str]:
        """Role, words or calls, the reason it ended, and at last the usage, if it is asked for."""
        yield self._chunk({"role": "assistant", "content": None if self._calls else ""})
        for part in self._parts:
            yield self._chunk({"content": part})
        for index, call in enumerate(self._calls):
            named = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
            yield self._chunk({"tool_calls": [named]})
            yield self._chunk(
                {"tool_calls": [{"index": index, "function": {"arguments": call["function"]["arguments"]}}]}
            )
        yield self._chunk({}, self._reason)
        if wants_usage and self._usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], **self._usage}
        yield "[DONE]"

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [choice],
            **(self._usage if self._running else {}),
        }


def _usage(usage: Usage | str) -> dict[str, Any]:
    if isinstance(usage, str):
        return {}
    told = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output if usage.total is None else usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
    }
    return {"usage": told}


@click.command()
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answers.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0: any free one.")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What clients present.")
def serve(seed: int, port: int, key_file: Path | None) -> None:
    """Answer as a model at http://127.0.0.1:PORT/v1 until SIGTERM or Ctrl-C."""
    key = None if key_file is None else key_file.read_text(encoding="utf-8").strip()
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    with ScriptedModel(seed, port, key) as model:
        click.echo(f"model at {model.url}")
        ended.wait()


if __name__ == "__main__":
    serve()
