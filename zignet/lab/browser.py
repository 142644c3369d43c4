"""A real browser in a namespace: headless Chromium, driven over its DevTools pipe.

    with Browser(namespace, directory, pins) as browser:
        text = browser.open("https://www.video.example/")

Requests, answers and events are JSON, each ended by a zero byte (https://chromedevtools.github.io/devtools-protocol/,
`--remote-debugging-pipe`). Names are the namespace's own: what its /etc/resolv.conf leads to.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from zignet.lab.namespace import Namespace

__all__ = ["Browser", "NoPage", "chromium"]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ANSWER_S = 60.0  # a first start on a busy machine
STOP_S = 5.0
ABORTED = "net::ERR_ABORTED"
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # it does not run as root otherwise
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # it is small in containers
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
PIPES = 'exec "$@" 3<&0 4>&1 </dev/null >&2'  # it reads requests from 3, and answers on 4


def chromium() -> str | None:
    """The program, if it is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class NoPage(Exception):
    """A page that did not come; the text has Chromium's reason, such as net::ERR_CONNECTION_REFUSED."""


class Browser:
    """One process, one profile in `directory`, one tab. A context manager.

    `pins` are the certificates that it takes for good (`Authority.pins`). Raises FileNotFoundError without Chromium.
    """

    def __init__(
        self, namespace: Namespace, directory: Path, pins: Iterable[str] = (), *options: str
    ) -> None:
        program = chromium()
        if program is None:
            raise FileNotFoundError("chromium is not installed (Debian: apt install chromium)")
        directory.mkdir(parents=True, exist_ok=True)
        trusted = f"--ignore-certificate-errors-spki-list={','.join(pins)}"
        profile = f"--user-data-dir={directory / 'profile'}"
        command = ["sh", "-c", PIPES, "sh", program, *OPTIONS, profile, trusted, *options, "about:blank"]
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self.process = namespace.popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"HOME": str(directory)},
            )
        self._numbers = itertools.count(1)
        self._pending = b""
        self.events: list[dict[str, Any]] = []  # since the last page was asked for
        self._session: str | None = None
        try:
            tabs = self.call("Target.getTargets")["targetInfos"]
            tab = next(tab["targetId"] for tab in tabs if tab["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
            self.call("Page.enable")
        except BaseException:
            self.close()
            raise

    # --- what a person does

    def open(self, url: str, timeout_s: float = ANSWER_S) -> str:
        """Load a page, and give its text. Raises NoPage."""
        return self._loaded("Page.navigate", timeout_s, url=url)

    def reload(self, timeout_s: float = ANSWER_S) -> str:
        """Load it once more, past the cache of pages. Raises NoPage."""
        return self._loaded("Page.reload", timeout_s, ignoreCache=True)

    def run(self, script: str, timeout_s: float = ANSWER_S) -> Any:
        """The value of an expression in the page, waited for if it is a promise. Raises RuntimeError with its error."""
        done = self.call(
            "Runtime.evaluate",
            timeout_s,
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"].get("exception", {}).get("description", "it failed"))
        return done["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """What is seen, as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _loaded(self, method: str, timeout_s: float, **parameters: Any) -> str:
        self.events.clear()
        why = self.call(method, timeout_s, **parameters).get("errorText", "")
        if why == ABORTED:  # a download: nothing is loaded
            raise NoPage(why)
        self.wait("Page.loadEventFired", timeout_s)  # of Chromium's own page, too, that tells the reason
        text: str = self.run("document.body.innerText")
        if why or self.run("document.URL").startswith("chrome-error:"):
            raise NoPage(why or text)
        return text

    # --- the pipe

    def call(self, method: str, timeout_s: float = ANSWER_S, **parameters: Any) -> dict[str, Any]:
        """Ask for something. Raises RuntimeError when it is refused, TimeoutError, EOFError when it has ended."""
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            request["sessionId"] = self._session
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\0")
        self.process.stdin.flush()
        deadline = time.monotonic() + timeout_s
        while (answer := self._read(deadline)).get("id") != number:
            if "method" in answer:
                self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, method: str, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """The parameters of the first such event of `events`, when it has come. Raises as `call` does."""
        deadline = time.monotonic() + timeout_s
        while True:
            for event in self.events:
                if event["method"] == method:
                    parameters: dict[str, Any] = event["params"]
                    return parameters
            self.events.append(self._read(deadline))

    def _read(self, deadline: float) -> dict[str, Any]:
        """The next message."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while b"\0" not in self._pending:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            more = os.read(descriptor, 1 << 18)
            if not more:
                raise EOFError(f"the browser has ended: {self._log.read_text(errors='replace')[-500:]}")
            self._pending += more
        message, _, self._pending = self._pending.partition(b"\0")
        value: dict[str, Any] = json.loads(message)
        return value

    def close(self) -> None:
        """End it. Harmless when repeated."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
