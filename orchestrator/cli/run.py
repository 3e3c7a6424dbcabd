"""`run`: a task from a file or from flags, supervised until its outcome."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import typer

from orchestrator.cli.flags import (
    AccessOption,
    AgentOption,
    ApiKeyEnvOption,
    BaseUrlOption,
    CheckOption,
    ConcurrencyOption,
    CostOption,
    DelegationOption,
    DeliverOption,
    FallbackOption,
    Flags,
    ForceOption,
    IsolationOption,
    KindOption,
    ModelOption,
    PrivacyOption,
    PromptOption,
    StepsOption,
    StrategyOption,
    TaskFileArgument,
    TokensOption,
    UncommittedOption,
    WallOption,
    WorkspaceOption,
    asked,
)
from orchestrator.cli.frame import (
    ConfigOption,
    OutputForm,
    OutputOption,
    configured,
    ending,
    errors,
    status,
)
from orchestrator.cli.showing import print_outcome, showing

if TYPE_CHECKING:
    from anyio import CancelScope
    from anyio.abc import TaskStatus

    from orchestrator.config import Config
    from orchestrator.console.state import Board
    from orchestrator.events import Event, Outcome
    from orchestrator.supervisor import Continued, Supervisor
    from orchestrator.task import Task, TaskFile


def run(  # noqa: PLR0913, PLR0917 (a flag is a parameter)
    file: TaskFileArgument = None,
    prompt: PromptOption = None,
    check: CheckOption = None,
    agent: AgentOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    api_key_env: ApiKeyEnvOption = None,
    kind: KindOption = None,
    access: AccessOption = None,
    privacy: PrivacyOption = None,
    workspace: WorkspaceOption = None,
    wall: WallOption = None,
    cost_usd: CostOption = None,
    tokens: TokensOption = None,
    steps: StepsOption = None,
    concurrency: ConcurrencyOption = None,
    isolation: IsolationOption = None,
    deliver: DeliverOption = None,
    strategy: StrategyOption = None,
    fallback: FallbackOption = None,
    delegation: DelegationOption = None,
    include_uncommitted: UncommittedOption = False,
    force: ForceOption = False,
    output: OutputOption = OutputForm.TEXT,
    config: ConfigOption = None,
) -> None:
    """Run TASK.yaml (a task, or several with what they need), or --prompt.

    Flags win over the file and hold for each of its tasks (cost, tokens and steps over all of
    them together, too); limits, privacy and, with several tasks, access only tighten.

    \b
    orchestrate run task.yaml
    orchestrate run -p "fix the failing test" --check "pytest -q" --agent codex
    orchestrate run -p "explain this" --agent litellm --model ollama_chat/qwen3
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    keys = {
        "prompt": prompt,
        "check": check,
        "agent": agent,
        "model": model,
        "base_url": base_url,
        "api_key_env": api_key_env,
        "kind": kind,
        "access": access,
        "privacy": privacy,
        "isolation": isolation,
        "deliver": deliver,
        "strategy": strategy,
        "fallback": fallback,
        "delegation": delegation,
    }
    flags = Flags(
        keys=keys,
        workspace=workspace,
        limits={"wall": wall, "cost_usd": cost_usd, "tokens": tokens, "steps": steps},
        concurrency=concurrency,
        include_uncommitted=include_uncommitted,
        force=force,
    )
    with errors():
        run_and_leave(configured(config), asked(file, flags), None, output)


def run_and_leave(
    config: Config, task: Task | TaskFile, continued: Continued | None, output: OutputForm
) -> NoReturn:
    import anyio

    from orchestrator.telemetry import log_to_stderr

    log_to_stderr()
    outcome, board = anyio.run(_supervise, config, task, continued, output)
    print_outcome(outcome, output, config, board)
    raise typer.Exit(status(outcome))


async def _supervise(
    config: Config, task: Task | TaskFile, continued: Continued | None, output: OutputForm
) -> tuple[Outcome, Board]:
    import anyio

    from orchestrator.cli.permitting import asker, keyboard
    from orchestrator.errors import lone_error
    from orchestrator.events import Outcome
    from orchestrator.supervisor import Supervisor
    from orchestrator.task import Task

    gc.enable()
    outcome = Outcome(status="interrupted")  # stays so if the second Ctrl-C ends it all at once
    tasks = (task,) if isinstance(task, Task) else task.tasks
    keys = keyboard(output)  # before stderr is what is drawn on
    with lone_error(), showing(output, [one.id for one in tasks]) as show:
        async with (
            anyio.create_task_group() as group,
            Supervisor(config, ask=asker(keys, show)) as supervisor,
        ):
            await group.start(_interrupts, supervisor, group.cancel_scope, show.say)
            group.start_soon(show.animate, partial(_gone, supervisor))
            group.start_soon(show.suspend)
            outcome = await supervisor.run(
                task, _or_stop(show.event, supervisor), continued=continued
            )
            group.cancel_scope.cancel()
    return outcome, show.board


def _gone(supervisor: Supervisor, error: OSError) -> None:
    supervisor.interrupt(f"the output cannot be written: {error.strerror}")


def _or_stop(show: Callable[[Event], None], supervisor: Supervisor) -> Callable[[Event], None]:
    """Stop the run if its events cannot be shown: the disk is full, or whoever read them is
    gone.
    """
    failed = False

    def show_or_stop(event: Event) -> None:
        nonlocal failed
        try:
            if not failed:
                show(event)
        except OSError as error:
            failed = True
            _gone(supervisor, error)

    return show_or_stop


async def _interrupts(
    supervisor: Supervisor,
    scope: CancelScope,
    tell: Callable[[str], None],
    *,
    task_status: TaskStatus[None],
) -> None:
    """The first Ctrl-C (or SIGTERM) stops the agent cleanly, the second one at once. That the
    terminal was closed stops it cleanly, too, however often it is told (not under `nohup`).
    """
    import signal

    import anyio

    asked = False
    with anyio.open_signal_receiver(*ending()) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                supervisor.interrupt("the terminal was closed")
            elif asked:
                scope.cancel()
            else:
                asked = True
                supervisor.interrupt()
                tell("stopping the agent; once more to stop at once")
