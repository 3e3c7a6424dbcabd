"""A raw recording as events and an outcome: the run without a process. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator import events
from orchestrator.adapter import Adapter, Agent, Conversation, Exit, Send
from orchestrator.events import (
    Outcome,
    Output,
    Raw,
    RunStarted,
    Update,
)
from orchestrator.journal import (
    STDERR,
    STDOUT,
)
from orchestrator.lines import Line, LineSplitter
from orchestrator.outcome import Facts, decide
from orchestrator.run.recorder import Publish, Recorder, last_words, new_run_id, translate
from orchestrator.task import Task
from orchestrator.usage import priced


def replay(
    adapter: Adapter,
    *,
    task: Task,
    agent: Agent,
    stdout: Iterable[bytes],
    exit_: Exit,
    publish: Publish,
    changes: events.Changes | None = None,
    secrets: Sequence[str] = (),
) -> Outcome:
    """Turn a raw recording (chunks of any size) into events, the last one `run.finished`. No I/O.

    The `secrets` are in none of them.

    Without `changes` (nobody looked at the work tree) an editing task is judged by its tool calls.
    """
    run_id = new_run_id()
    head = {"run_id": run_id, "task_id": task.id, "parent_run_id": None, "agent": agent.name}
    recorder = Recorder(
        head=head,
        write=None,
        publish=publish,
        price=lambda usage, served: priced(usage, agent, served=served),
        secret_values=secrets,
    )
    recorder.say(RunStarted(adapter=agent.adapter, model=agent.model))
    conversation = adapter.conversation(task, agent, None)
    splitter = LineSplitter()
    _replay(recorder, list(conversation.start()), None)
    for chunk in stdout:
        for line in splitter.feed(chunk):
            _replay_line(recorder, conversation, line)
    for line in splitter.close():
        _replay_line(recorder, conversation, line)
    for text in exit_.stderr.splitlines():
        recorder.add(Output(stream=STDERR, text=text), "agent")
    _replay(recorder, last_words(conversation, exit_), None)
    facts = Facts(
        task=task,
        digest=recorder.digest,
        exit=exit_,
        changes=changes,
        usage=recorder.usage,
    )
    outcome = decide(facts)
    outcome.agent, outcome.run_id = agent.name, run_id
    outcome.model = outcome.model or agent.model
    return recorder.finish(outcome)


def _replay_line(recorder: Recorder, conversation: Conversation, line: Line) -> None:
    raw = Raw(stream=STDOUT, offset=line.offset, length=line.length)
    _replay(recorder, translate(conversation, line), raw)


def _replay(recorder: Recorder, said: Iterable[Update | Send], raw: Raw | None) -> None:
    for one in said:
        if not isinstance(one, Send):
            recorder.add(one, "agent", raw)
    recorder.flush()
