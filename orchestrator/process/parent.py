"""The parent of every agent: a pair of guard and reaper, replaced when it has ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio

from orchestrator.adapter import Command
from orchestrator.errors import SupervisionError
from orchestrator.process.child import Process
from orchestrator.process.pair import Pair, UnheardError, launch
from orchestrator.process.start import Start, Stdio, spool, stdin_of, write_private
from orchestrator.process.ticks import Ticks
from orchestrator.telemetry import warn

YOUNG_S, YOUNG_DEATHS = 10.0, 5
"""A reaper that ends this soon, so many times in a row, is not replaced once more."""


class Reaper:
    """What starts every agent. Made by `open_reaper`."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._replacing = anyio.Lock()
        self._young_deaths = 0
        self._closed = False
        self.ticks = Ticks()
        """One timer for all who follow agents."""

    @asynccontextmanager
    async def spawn(
        self, command: Command, *, env: Mapping[str, str], stdout: Path, stderr: Path, token: str
    ) -> AsyncGenerator[Process]:
        """Start the command; its tree is killed at the end of the block.

        `stdout` and `stderr` must not exist; they become files that only grow (mode 0400). `env` is
        the whole environment, to which `token` (the run's id, unique) is added as
        ORCHESTRATE_RUN_ID. Raises SpawnError when it cannot start, ReaperLostError when the
        reaper dies meanwhile.
        """
        start = Start(argv=command.argv, cwd=command.cwd, env=env, token=token)

        made: list[Path] = []

        def stdio(files: ExitStack) -> Stdio:
            for one in made:  # by a first try that no reaper took, so they are empty
                one.unlink()
            made.clear()
            for path, content in command.files.items():
                write_private(Path(path), content)
            out, err = spool(stdout, files, made), spool(stderr, files, made)
            read_end, write_end = stdin_of(command.stdin, files)
            return Stdio(read_end, out, err, write_end)

        async with self.start(start, stdio) as process:
            yield process

    @asynccontextmanager
    async def start(
        self, start: Start, stdio: Callable[[ExitStack], Stdio]
    ) -> AsyncGenerator[Process]:
        """Spawn with the descriptors that `stdio` opens; they are closed when they were sent."""
        async with AsyncExitStack() as stack:
            process: Process | None = None
            while process is None:
                pair = await self._living()
                with suppress(UnheardError):
                    process = await stack.enter_async_context(pair.start(start, stdio))
            yield process

    async def close(self) -> None:
        """End guard and reaper, which kill all that is left. Bounded."""
        self._closed = True
        self.ticks.close()
        await self._pair.close()

    async def _living(self) -> Pair:
        async with self._replacing:
            if self._closed:
                raise self._pair.lost()
            if await self._pair.is_gone():
                await self._replace()
            return self._pair

    async def _replace(self) -> None:
        """A new pair for one that has ended. Raises SupervisionError."""
        dead = self._pair
        if dead.lived_s is not None:  # counted once, also if starting the next one fails
            young, dead.lived_s = dead.lived_s < YOUNG_S, None
            self._young_deaths = self._young_deaths + 1 if young else 0
        if self._young_deaths >= YOUNG_DEATHS:
            raise SupervisionError(
                f"the reaper ended {YOUNG_DEATHS} times in a row within {YOUNG_S:.0f} s: "
                + (dead.last_words() or "killed, or out of memory"),
                hint="see who kills the processes orch-guard and orch-reaper (dmesg, audit log)",
            )
        warn("the reaper has ended and is replaced", cause=dead.last_words() or None)
        pair = await ready()
        await dead.close()
        self._pair = pair


async def ready() -> Pair:
    """A new pair of guard and reaper. Raises SupervisionError if they cannot start."""
    pair = launch()
    try:
        await pair.wait_ready()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await pair.close()
        raise
    return pair


@asynccontextmanager
async def open_reaper() -> AsyncGenerator[Reaper]:
    """Start guard and reaper. At the end of the block they kill what is left, and end.

    Raises SupervisionError if they cannot start.
    """
    reaper = Reaper(await ready())
    try:
        yield reaper
    finally:
        with anyio.CancelScope(shield=True):
            await reaper.close()
