"""The scripted model as a program of the local fleet, on a free loopback port: no provider has to be there."""

import re
import sys
from pathlib import Path
from typing import Final

from acp_tasks.fleet.process import Process

_SAID: Final = re.compile(r"^model at (\S+)$", re.MULTILINE)


class ModelServer:
    """Speaks the OpenAI-compatible chat completions protocol; what it answers, a seed and the conversation decide."""

    def __init__(self, log: Path, *, seed: int = 0) -> None:
        self._log = log
        self._seed = seed
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """The base URL for clients."""
        assert self._process is not None, "start() comes first"
        said = _SAID.search(self._process.words())
        assert said is not None, "start() waits for it"
        return said[1]

    def start(self) -> "ModelServer":
        """Starts and waits until it listens. Raises ProcessFailed."""
        argv = [sys.executable, "-m", "acp_tasks.agents.scripted_model", "--seed", str(self._seed)]
        process = self._process = Process("model", argv, self._log)
        process.wait_until(lambda: _SAID.search(process.words()) is not None, "listening")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def abort(self) -> None:
        if self._process is not None:
            self._process.abort()
