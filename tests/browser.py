"""Chromium, driven by its own protocol over a pipe: neither a driver nor a package is needed.

Reference:
    https://chromedevtools.github.io/devtools-protocol/
"""

import fcntl
import json
import os
import select
import shutil
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")
# A snap has a /tmp of its own, without the pages that tests write.
FOUND = [path for path in map(shutil.which, NAMES) if path and Path(path).resolve().name != "snap"]
LONGEST_SECONDS = 120.0


class Browser:
    """A browser without a window, a network or a profile of the user; it shows a page at a time.

    Attributes:
        console: all that the page has said on its console, errors and missing files included.
    """

    def __init__(self, path: str, folder: Path) -> None:
        """Start it, with all of its files in a folder."""
        self.console: list[str] = []
        self._log, self._session, self._calls = folder / "log", "", 0
        self._received, self._loaded = b"", False
        (commands, to_browser), (from_browser, answers) = os.pipe(), os.pipe()
        # It reads commands from descriptor 3 and answers at 4, which must be free until then.
        source, sink = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands, answers))
        options = [
            "--headless",
            "--no-sandbox",  # CI is root
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder / 'profile'}",
        ]
        self._process = os.posix_spawn(
            path,
            [path, *options],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, str(self._log), os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, source, 3),
                (os.POSIX_SPAWN_DUP2, sink, 4),
            ],
        )
        for end in (commands, answers, source, sink):
            os.close(end)
        self._commands, self._answers = os.fdopen(to_browser, "wb"), from_browser

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self._call("Browser.close")
        os.waitpid(self._process, 0)
        self._commands.close()
        os.close(self._answers)

    def open(self, path: Path, width: int = 1000, *, dark: bool = False, until: str) -> None:
        """Show a file, on a phone if it is narrow, until an expression of JavaScript holds."""
        self._session, self._loaded = "", False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]
        self.console.clear()
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        done = self._call("Page.navigate", url=path.resolve().as_uri())
        assert "errorText" not in done, done
        while not self._loaded:
            self._receive()
        pause = "await new Promise((resume) => setTimeout(resume, 20))"
        self.run(f"while (!({until})) {pause};")

    def run(self, script: str) -> Any:
        """What the page's script returns, which stands in an asynchronous function."""
        done = self._call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def tap(self, x: float, y: float) -> None:
        """Touch a place of the window with a finger."""
        self._call("Emulation.setTouchEmulationEnabled", enabled=True)
        self._call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self._call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._receive()).get("id") != self._calls:
            pass
        assert "result" in answer, answer
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        """The next message; of an event it notes what it says."""
        while b"\0" not in self._received:
            ready = select.select([self._answers], [], [], LONGEST_SECONDS)[0]
            assert ready, "the browser is silent"
            part = os.read(self._answers, 1 << 20)
            assert part, self._log.read_text(encoding="utf-8", errors="replace")
            self._received += part
        first, _, self._received = self._received.partition(b"\0")
        message = json.loads(first)
        event = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.consoleAPICalled":
                self.console.append(" ".join(str(each.get("value")) for each in event["args"]))
            case "Runtime.exceptionThrown":
                self.console.append(str(event["exceptionDetails"]))
            case "Log.entryAdded":
                self.console.append(event["entry"]["text"])
        return message
