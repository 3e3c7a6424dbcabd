"""The work of a run: its folder made ready, what was changed, checked and delivered."""

from __future__ import annotations

from orchestrator.config import Config
from orchestrator.errors import ReaperLostError, SpawnError
from orchestrator.events import Check, Error, Notice, Output, WorkspaceChanged
from orchestrator.journal import STORES, write_record
from orchestrator.outcome import decide, finished
from orchestrator.process import base_environment, run_to_end
from orchestrator.run.plan import record
from orchestrator.run.run import Run
from orchestrator.task import Task
from orchestrator.workspace.deliver import NotDeliveredError
from orchestrator.workspace.git import GitError
from orchestrator.workspace.looks import Before
from orchestrator.workspace.worktree import ConflictError, Kept

CHECK_TAIL = 64 * 1024


async def set_up(run: Run) -> bool:
    """Make a fresh work tree usable; whether the agent can start."""
    place, command = run.plan.place, run.plan.task.setup
    if command is None:
        return True
    if place is None:
        run.say(Notice(text="setup was not run: the task works in the folder itself"))
        return True
    done = await run.control.until(_shell, run, command, run.plan.limits.setup_s)
    if done is None:
        return False
    for line in done.output.splitlines() if done.output else ():
        run.say(Output(stream="setup", text=line))
    if not done.passed:
        how = "did not end in time" if done.exit is None else f"failed (exit {done.exit})"
        text, hint = f"setup {how}: {command}", "Its output is above, as lines of `setup`."
        run.say(Error(kind="setup_failed", text=text, hint=hint))
        return False
    await place.prepared()
    write_record(run.folder, record(run.plan), run.secrets)
    return True


async def look(run: Run) -> Before | None:
    """How the folder is that the agent will work in; None: what it changes cannot be told."""
    task, ours = run.plan.task, run.config.state
    store = ours / STORES / run.plan.run_id
    seen = await run.stack.enter_async_context(run.plan.looks.at(task.workspace, store, ours=ours))
    try:
        return await seen.before(run.reaper, task.files)
    except (GitError, SpawnError) as why:
        run.say(Notice(text=f"changes cannot be told: {why}"))
        return None


async def see_changes(run: Run, before: Before | None) -> None:
    """What the agent has changed: its work tree made a commit, else its folder compared."""
    try:
        if (place := run.plan.place) is not None:
            _told(run, await place.keep(run.patch))
        elif before is not None:
            run.changes = await before.changes(run.reaper, run.patch)
            _changed(run)
    except (GitError, SpawnError) as why:
        run.say(Notice(text=f"changes cannot be told: {why}"))


def _told(run: Run, kept: Kept) -> None:
    run.changes = kept.changes
    run.say(*(Notice(text=note) for note in kept.notes))
    _changed(run)


def _changed(run: Run) -> None:
    if run.changes is not None and run.changes.files:
        run.say(WorkspaceChanged(changes=run.changes))


async def verify(run: Run) -> None:
    """Run the task's check, if the agent says that it is done. One that is interrupted says
    nothing.
    """
    command = run.plan.task.check
    if command is None or not finished(run.facts()):
        return
    run.check = await run.control.until(_shell, run, command, run.plan.limits.check_s)
    if run.check is not None:
        run.say(run.check)


async def _shell(run: Run, command: str, limit_s: float | None) -> Check:
    """What came of a command of the user's own, in the workspace."""
    task = run.plan.task
    try:
        done = await run_to_end(
            run.reaper,
            ("/bin/sh", "-c", command),
            cwd=task.workspace,
            env=_environment(task, run.config),
            limit_s=limit_s or float("inf"),
            output_limit=CHECK_TAIL,
            merge=True,
        )
    except SpawnError as error:
        return Check(command=command, passed=False, output=str(error))
    output = done.stdout.decode("utf-8", "backslashreplace")
    return Check(command=command, passed=done.exit == 0, exit=done.exit, output=output)


def _environment(task: Task, config: Config) -> dict[str, str]:
    """The usual variables and those that the task asks for; none of the agent's own."""
    named = {name: config.environ[name] for name in task.env_from if name in config.environ}
    return {**base_environment(config.environ), **named, **task.env}


async def deliver(run: Run) -> None:
    """Bring work that succeeded to the user's files, if that is wanted."""
    if run.plan.deliver is None or run.changes is None or run.changes.commit is None:
        return
    if not decide(run.facts()).ok:
        return
    try:
        run.changes, said = await run.plan.deliver(run.changes, run.secrets)
    except NotDeliveredError as error:
        run.say(Error(kind="conflict", text=str(error), hint=error.hint))
    except ConflictError as error:
        text = f"{error} with the work tree's own commits: nothing was applied"
        hint = f"Merge it yourself: git merge {run.changes.branch}"
        run.say(Error(kind="conflict", text=text, hint=hint))
    else:
        run.say(Notice(text=said))


async def leave(run: Run) -> None:
    """Save what is not saved yet and remove the work tree, whatever became of the run."""
    place = run.plan.place
    if place is None:
        return
    try:
        why = await place.end(run.patch)
    except ReaperLostError as error:
        run.lose(error)  # the tree stays where it is
        return
    if run.changes is None and place.kept is not None:
        _told(run, place.kept)
    if why is not None:
        run.say(Notice(text=why))
