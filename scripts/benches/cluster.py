"""A PostgreSQL of one's own, in a scratch folder, on a socket there: for benches and tests.

Debian's package puts its programs below /usr/lib/postgresql; they refuse to run as root. The server
dies with whoever started it, however that ends.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

UNPRIVILEGED = "nobody"
_FAST = ["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=200"]


def programs() -> Path | None:
    """The folder of initdb and postgres; None if they are not installed."""
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
    server: "subprocess.Popen[bytes] | None" = field(default=None)

    def start(self) -> None:
        """Returns when it answers."""
        listen = ["-c", "listen_addresses="]
        if self.port is not None:
            listen = ["-c", "listen_addresses=127.0.0.1", "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            # The user is changed before: the kernel forgets the signal at each such change.
            dies = ("setpriv", "--pdeathsig", "QUIT")
            where = ("-D", str(self.folder / "data"), "-k", str(self.folder))
            self.server = subprocess.Popen(
                [*dies, str(self.bin / "postgres"), *where, *listen, *_FAST],
                user=_user(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._answers()

    def _answers(self) -> None:
        ends = time.monotonic() + 60
        while not self._ready():
            if (self.server and self.server.poll() is not None) or time.monotonic() > ends:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def _ready(self) -> bool:
        """As its own file of its process says, which pg_ctl reads, too."""
        try:
            told = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        mine = self.server is not None and told[:1] == [str(self.server.pid)]
        return mine and told[-1].strip() == "ready"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: open transactions are rolled back; SIGQUIT: at once."""
        if self.server is not None:
            self.server.send_signal(how)
            self.server.wait(60)

    def url(self) -> str:
        """A fresh database."""
        self.made += 1
        name = f"queue{self.made}"
        self.run("createdb", "-h", str(self.folder), "-U", "postgres", name)
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def run(self, program: str, *words: str) -> None:
        subprocess.run(
            [str(self.bin / program), *words],
            user=_user(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=90,
        )


def _user() -> str | None:
    return UNPRIVILEGED if os.geteuid() == 0 else None


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
        try:
            made.start()
            yield made
        finally:
            made.stop(signal.SIGQUIT)
