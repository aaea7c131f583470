"""A webhook's receiver on loopback, in a thread of the test's process."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Heard:
    """One request as it came in, its headers' names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def said(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def kind(self) -> str:
        return str(self.said["type"])


@dataclass
class Listener:
    """An HTTP receiver that answers as `answers` says, the last of them for ever; 0: not at all until it is closed."""

    answers: list[int] = field(default_factory=lambda: [200])
    heard: list[Heard] = field(default_factory=list)
    port: int = 0
    # By ticket: an answer of its own.
    poisoned: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self.open()

    def open(self) -> None:
        """Listens, on the port it had before if it had one."""
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                listener.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        heard = Heard(request.path, headers, body)
        self.heard.append(heard)
        status = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        status = self.poisoned.get(heard.said["data"].get("action_id"), status)
        if not status:
            self._ended.wait(10)
            return
        request.send_response(status)
        if 300 <= status < 400:
            request.send_header("location", f"http://127.0.0.1:{self.port}/elsewhere")
        request.send_header("content-length", "0")
        request.end_headers()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/acp"

    @property
    def kinds(self) -> list[str]:
        return [heard.kind.removeprefix("approval.") for heard in self.heard]
