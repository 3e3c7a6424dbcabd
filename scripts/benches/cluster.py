"""A PostgreSQL of one's own, in a scratch folder, on a socket there: for benches and tests.

Debian's package puts its programs below /usr/lib/postgresql; they refuse to run as root.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

UNPRIVILEGED = "nobody"
_FAST = "-c fsync=off -c shared_buffers=16MB -c max_connections=200"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None if they are not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    found = shutil.which("initdb") or next(map(str, debian), None)
    return Path(found).resolve().parent if found else None


@dataclass
class Cluster:
    """A server; `url` names a fresh database of it."""

    bin: Path
    folder: Path
    port: int | None = None
    made: int = field(default=0)

    def ctl(self, *words: str) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-t", "60", *words)

    def start(self) -> None:
        listen = "-c listen_addresses=''"
        if self.port is not None:
            listen = f"-c listen_addresses=127.0.0.1 -p {self.port}"
        options = f"-k {self.folder} {listen} {_FAST}"
        self.ctl("-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self.ctl("-m", mode, "stop")

    def url(self) -> str:
        """A fresh database."""
        self.made += 1
        name = f"queue{self.made}"
        self.run("createdb", "-h", str(self.folder), "-U", "postgres", name)
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def run(self, program: str, *words: str) -> None:
        user = UNPRIVILEGED if os.geteuid() == 0 else None
        subprocess.run(
            [str(self.bin / program), *words],
            user=user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=90,
        )


@contextmanager
def cluster() -> Generator[Cluster]:
    """A server that runs while the block lasts."""
    found = programs()
    if found is None:
        raise FileNotFoundError("initdb")
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, UNPRIVILEGED)
        made = Cluster(found, Path(folder))
        made.run("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-N")
        made.start()
        try:
            yield made
        finally:
            made.stop("immediate")
