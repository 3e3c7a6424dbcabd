"""The labels of a worker: announced in the queue for others to see, and what decides which jobs it
takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread

from orchestrator.config import load_config
from orchestrator.errors import OrchestrateError
from orchestrator.telemetry import warn
from orchestrator.worker import labels, machine
from orchestrator.worker.client import alive
from orchestrator.worker.engine import Access, is_postgres

ANNOUNCE_S, DIAGNOSE_S = 20.0, 600.0


class Sign:
    """The labels of this worker: for others to see, and to take no other jobs.

    `given` are those that nobody finds; `config` is the configuration that counts for all jobs.
    """

    def __init__(
        self, worker: str, access: Access, *, given: frozenset[str], config: Path | None
    ) -> None:
        self._worker, self._access, self._config = worker, access, config
        self._own = self._labels = given | {machine.here()}
        self._known = anyio.Event()

    def fits(self, needs: str) -> bool:
        """Whether jobs that need this (labels.py) may be done here."""
        return labels.read(needs) <= self._labels

    async def shown(self) -> None:
        """Find out the labels and announce them, until cancelled."""
        async with anyio.create_task_group() as group:
            if is_postgres(
                self._access.url
            ):  # else there is one machine, and whose jobs are its own
                group.start_soon(self._finding)
            while True:
                await self._in_thread("announced", self._announce)
                with anyio.move_on_after(ANNOUNCE_S):
                    await self._known.wait()
                self._known = anyio.Event()

    async def taken_down(self) -> None:
        """Nobody counts on this worker any more."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await self._in_thread("taken down", lambda: self._access.delete([self._worker]))

    async def _finding(self) -> None:
        """What this machine has: at once what can be seen, then what must be asked for."""
        while True:
            try:
                config = load_config(self._config, looking=True)
                self._tell(self._own | machine.at_a_glance(config))
                self._tell(self._own | await machine.looked_at(config))
            except OrchestrateError as error:
                warn("what this machine has cannot be told", error=str(error))
            await anyio.sleep(DIAGNOSE_S)

    def _tell(self, found: frozenset[str]) -> None:
        self._labels = found
        self._known.set()

    def _announce(self) -> None:
        notes = {"labels": sorted(self._labels), "seen": time.time()}
        self._access.announce(self._worker, notes)
        every = self._access.announced().items()
        gone = [worker for worker, said in every if not alive(said)]
        if gone:
            self._access.delete(gone)

    async def _in_thread(self, what: str, call: Callable[[], None]) -> None:
        try:
            await anyio.to_thread.run_sync(call)
        except Exception as error:  # noqa: BLE001 (of the database: tried again)
            warn(f"the worker's labels were not {what}", error=repr(error))
