"""What this machine offers to hold an agent in: bubblewrap, user namespaces, Landlock, seccomp."""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import Config
from orchestrator.errors import SpawnError
from orchestrator.process import Reaper, base_environment, run_to_end

_TRY_S = 2.0
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """`bwrap` is its path if it really confines here, `bwrap_problem` why it does not.

    `landlock` is the kernel's ABI, None: it has none. `seccomp`: programs can filter system calls.
    """

    bwrap: str | None
    bwrap_problem: str | None
    user_namespaces: bool
    landlock: int | None
    seccomp: bool


async def sandbox(config: Config, reaper: Reaper) -> Sandbox:
    """Tried, not read from a version: what a container's rules forbid is not there."""
    path = shutil.which("bwrap", path=config.environ.get("PATH"))
    problem = "not installed" if path is None else await _confines(path, config, reaper)
    return Sandbox(
        bwrap=None if problem else path,
        bwrap_problem=problem,
        user_namespaces=await _runs(("unshare", "-U", "true"), config, reaper) is None,
        landlock=landlock_abi(),
        seccomp=_has_seccomp(),
    )


async def _confines(path: str, config: Config, reaper: Reaper) -> str | None:
    argv = (path, "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "true")
    return await _runs(argv, config, reaper)


async def _runs(argv: tuple[str, ...], config: Config, reaper: Reaper) -> str | None:
    """None if the command succeeds, else what it said."""
    try:
        done = await run_to_end(
            reaper, argv, cwd=Path("/"), env=base_environment(config.environ), limit_s=_TRY_S
        )
    except SpawnError as error:
        return str(error)
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return None if done.exit == 0 else said[-1] if said else f"exit {done.exit}"


def landlock_abi() -> int | None:
    """The kernel's Landlock ABI; None where it has none or may not be asked."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        abi = int(libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION))
    except (OSError, AttributeError):
        return None  # another system
    return abi if abi > 0 else None


def _has_seccomp() -> bool:
    try:
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text("ascii")
    except OSError:
        return False
    return "errno" in actions.split()
