"""A run in a network namespace that holds nothing but a loopback and a resolver that writes down
what it is asked. Imported, it starts itself there; as a program, it is what runs there.
"""

import importlib
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ENTER = ("unshare", "--net", "--mount", "--propagation", "private")
CONTROL = "control.example"
"""A name that is looked up on purpose: the proof that a look-up would be seen."""


def names_looked_up(
    adapter: str, turns: Sequence[Mapping[str, Any]], tmp_path: Path, **agent: Any
) -> dict[str, Any]:
    """The names that were looked up while the agent did a task, and how the task ended.

    `adapter` is a module; `agent` are fields of the Agent. Skips where it may not make a namespace.
    """
    tools = shutil.which("unshare") and shutil.which("ip")
    if not tools or subprocess.run([*ENTER, "true"], capture_output=True).returncode:
        pytest.skip("no right to make a network namespace (unshare --net as root), or no `ip`")
    given = json.dumps(
        {"adapter": adapter, "turns": turns, "folder": str(tmp_path), "agent": agent}
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [*ENTER, sys.executable, "-m", "tests.real.alone"],
        input=given,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert CONTROL in said["names"], "the resolver sees nothing"
    said["names"].remove(CONTROL)
    return said


def listening() -> socket.socket:
    """Where look-ups arrive."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    return server


def listen(server: socket.socket, names: list[str]) -> None:
    """A resolver that knows no name."""
    while True:
        query, sender = server.recvfrom(4096)
        labels, at = list[str](), 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
            at += 1 + query[at]
        if (name := ".".join(labels)) not in names:
            names.append(name)
        unknown = struct.pack("!HHHHHH", int.from_bytes(query[:2]), 0x8183, 1, 0, 0, 0)
        server.sendto(unknown + query[12 : at + 5], sender)


def main() -> None:
    import anyio

    from tests.real.scene import play

    given = json.loads(sys.stdin.read())
    folder = Path(given["folder"])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    resolver = Path("/etc/resolv.conf").resolve()
    subprocess.run(["mount", "--bind", folder / "resolv.conf", resolver], check=True)
    names: list[str] = []
    threading.Thread(target=listen, args=(listening(), names), daemon=True).start()

    async def run() -> str:
        adapter = importlib.import_module(given["adapter"]).adapter
        played = await play(adapter, given["turns"], folder, **given["agent"])
        return played.outcome.status

    status = anyio.run(run)
    with suppress(socket.gaierror):  # nobody knows it: it is enough that it was asked for
        socket.getaddrinfo(CONTROL, 80)
    print(json.dumps({"names": names, "status": status}))


if __name__ == "__main__":
    main()
