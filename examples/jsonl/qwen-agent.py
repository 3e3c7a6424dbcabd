"""A small coding agent made with Qwen-Agent: its prompt on stdin, JSON lines on stdout.

It tells what the library keeps to itself: how an answer ended (one that was cut looks like one that is whole), the
tokens of each call, and that the calls ran out. Seen with qwen-agent 0.0.34, which imports four packages that it does
not ask for: pip install qwen-agent==0.0.34 numpy soundfile tqdm python-dateutil
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from itertools import count
from pathlib import Path

if sys.argv[1:] == ["--version"]:
    print(version("qwen-agent"))  # before the library: its import takes seconds
    sys.exit()
OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the library prints is no line of ours

from qwen_agent.agents import FnCallAgent
from qwen_agent.agents.fncall_agent import MAX_LLM_CALL_PER_RUN
from qwen_agent.llm.base import ModelServiceError
from qwen_agent.tools.base import BaseTool

IDS = count(1)
LONGEST = 10_000


def say(**event):
    print(json.dumps(event), file=OUT, flush=True)


class Tool(BaseTool):
    """One that tells what it does."""

    def call(self, params, **kwargs):
        id_ = f"call-{next(IDS)}"
        try:
            given = self._verify_json_format_args(params)
        except ValueError as error:
            say(
                type="tool", id=id_, name=self.name, input=params, output=str(error), state="failed"
            )
            return f"error: {error}"
        say(type="tool", id=id_, name=self.name, input=given, state="running")
        output, failed = self.do(given)
        say(
            type="tool", id=id_, name=self.name, output=output, state="failed" if failed else "done"
        )
        return output


class Shell(Tool):
    name = "shell"
    description = "Runs a shell command in the folder of the task."
    parameters = [
        {"name": "command", "type": "string", "description": "The command.", "required": True}
    ]

    def do(self, given):
        done = subprocess.run(
            ["/bin/sh", "-c", given["command"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = done.stdout.decode("utf-8", "replace")[-LONGEST:]
        return f"{output}\n[exit {done.returncode}]", done.returncode != 0


class Read(Tool):
    name = "read_file"
    description = "Reads a file of the task's folder."
    parameters = [{"name": "path", "type": "string", "description": "Its path.", "required": True}]

    def do(self, given):
        path = Path(given["path"]).resolve()
        if not path.is_relative_to(Path.cwd().resolve()):
            return f"{path} is outside of the folder", True
        try:
            return path.read_text("utf-8", "replace")[:LONGEST], False
        except OSError as error:
            return str(error), True


class Watched:
    """The model's calls: what they used, and how the last one ended."""

    def __init__(self, llm):
        self.calls, self.ended, self._create = 0, None, llm._chat_complete_create
        llm._chat_complete_create = self

    def __call__(self, *args, **kwargs):
        self.calls, self.ended = self.calls + 1, None
        for chunk in self._create(*args, stream_options={"include_usage": True}, **kwargs):
            for choice in chunk.choices:
                self.ended = choice.finish_reason or self.ended
            if chunk.usage:
                say(
                    type="usage",
                    read=chunk.usage.prompt_tokens,
                    wrote=chunk.usage.completion_tokens,
                )
            yield chunk


def text_of(messages):
    last = messages[-1] if messages else {}
    return "" if last.get("function_call") else last.get("content") or ""


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--model", required=True)
    flags.add_argument("--server", required=True)
    flags.add_argument("--read-only", action="store_true")
    asked = flags.parse_args()
    llm = {
        "model": asked.model,
        "model_server": asked.server,
        "api_key": os.environ.get("QWEN_AGENT_KEY", "none"),
        # The library's own: ten tries, and tool calls as text.
        "generate_cfg": {"max_retries": 1, "use_raw_api": True, "request_timeout": 600},
    }
    tools = [Read()] if asked.read_only else [Read(), Shell()]
    agent = FnCallAgent(function_list=tools, llm=llm, system_message=f"You work in {Path.cwd()}.")
    watched, messages = Watched(agent.llm), []
    say(type="begin", model=asked.model, tools=[tool.name for tool in tools])
    try:
        for messages in agent.run([{"role": "user", "content": sys.stdin.read()}]):
            pass
    except ModelServiceError as error:
        status = getattr(error.exception, "status_code", None)
        say(type="error", text=str(error), status=None if status is None else str(status))
        return 1
    if text := text_of(messages):
        say(type="answer", text=text)
    reason = (
        "calls"
        if watched.calls >= MAX_LLM_CALL_PER_RUN and watched.ended == "tool_calls"
        else watched.ended
    )
    say(type="end", reason=reason if text or reason != "stop" else "silent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
