"""The tests in a network namespace that holds nothing but a loopback and a resolver that writes
down what it is asked, and by whom. `scripts/offline` calls it; pytest loads it as a plug-in, to say
which test runs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.real.alone import CONTROL, listen, listening

NOW = "ORCHESTRATE_OFFLINE_NOW"
"""The variable with the folder that holds, in a file a worker, the names of the tests that run."""

WHOLE = ("-n", "3", "--dist", "worksteal", "--timeout=60")
"""What pytest is told where nobody says otherwise: all of the tests, as by `scripts/test`."""


def main(argv: Sequence[str]) -> int:
    """Goes into namespaces of its own, and does the rest there."""
    if argv[:1] == ["--inside"]:
        user, group, *rest = argv[1:]
        return inside((int(user), int(group)), rest)
    namespaces = ["unshare", "--net", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        namespaces += ["--user", "--map-root-user"]
    loopback = [*namespaces, "ip", "link", "set", "lo", "up"]
    if (tried := subprocess.run(loopback, check=False)).returncode:
        print("no right to make a network namespace, or no `ip`", file=sys.stderr)
        return tried.returncode
    who = (str(os.geteuid()), str(os.getegid()))
    command = [sys.executable, "-m", "scripts.offline", "--inside", *who, *argv]
    return subprocess.run([*namespaces, *command], check=False).returncode


def inside(who: tuple[int, int], argv: Sequence[str]) -> int:
    """The tests with the resolver; 1 if a name was looked up, else what pytest says."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="offline-") as folder:
        _ask_ourselves(Path(folder))
        asked = Names(Path(folder, "now"))
        asked.now.mkdir()
        asked.now.chmod(0o777)
        threading.Thread(target=listen, args=(listening(), asked), daemon=True).start()
        with suppress(socket.gaierror):  # nobody knows it: it is enough that it was asked for
            socket.getaddrinfo(CONTROL, 80)
        if CONTROL not in asked:
            print("the resolver sees nothing", file=sys.stderr)
            return 2
        asked.clear()
        status = _tests(who, argv or WHOLE, asked.now)
        for name, test in zip(asked, asked.tests, strict=True):
            print(f"looked up: {name}, during or after {test}")
        print(f"{len(asked)} names were looked up in a namespace with loopback only")
        return 1 if asked else status


class Names(list[str]):
    """What was looked up, and during which tests. `now` is the folder that tells which run."""

    def __init__(self, now: Path) -> None:
        super().__init__()
        self.now = now
        self.tests: list[str] = []

    def append(self, name: str) -> None:
        """Takes down a name."""
        files = sorted(self.now.glob("gw*")) or self.now.iterdir()
        running = (file.read_text().strip() for file in files)
        self.tests.append(" or ".join(running) or "no test")
        super().append(name)

    def clear(self) -> None:
        """Forgets all of them."""
        self.tests.clear()
        super().clear()


def _ask_ourselves(folder: Path) -> None:
    """Our own resolver in place of the system's."""
    ours = folder / "resolv.conf"
    ours.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    folder.chmod(0o755)
    usual = Path("/etc/resolv.conf").resolve()
    subprocess.run(["mount", "--bind", ours, usual], check=True)


def _tests(who: tuple[int, int], argv: Sequence[str], now: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-p", "scripts.offline", *argv]
    if who[0] != 0:  # as oneself again: some agents refuse to work for root
        command = ["unshare", "--user", f"--map-user={who[0]}", f"--map-group={who[1]}", *command]
    environ = {**os.environ, NOW: str(now)}
    return subprocess.run(command, check=False, env=environ).returncode


def pytest_runtest_logstart(nodeid: str) -> None:
    """Says which test runs, for whoever takes down what is looked up."""
    if NOW in os.environ:
        Path(os.environ[NOW], os.environ.get("PYTEST_XDIST_WORKER", "main")).write_text(nodeid)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
