"""A page as a person sees it: what headless Chromium has made of it."""

import os
import shutil
import subprocess
import tempfile
from typing import Final

import pytest

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Of the page's own clock, which runs as fast as the machine allows: what the page asks its server for is there by then.
_SETTLED_MS: Final = 10_000


def chromium() -> str:
    """The program. Without one the test is skipped, and fails where CI=true: there, nobody would notice."""
    for name in _NAMES:
        found = shutil.which(name)
        if found:
            return found
    what = f"no browser: none of {', '.join(_NAMES)} is on the PATH (Debian: apt-get install chromium)"
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def rendered(url: str) -> str:
    """The page's elements after its scripts have run, as HTML."""
    with tempfile.TemporaryDirectory(prefix="acp-browser-", ignore_cleanup_errors=True) as profile:
        options = [f"--user-data-dir={profile}", f"--virtual-time-budget={_SETTLED_MS}", "--window-size=1600,1200"]
        # Its sandbox refuses to run as root, and its shared memory may be small in a container.
        options += ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        done = subprocess.run(
            [chromium(), *options, "--dump-dom", url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
