"""An agent that speaks ACP and asks before each of its commands, as a process of its own.

asking_agent.py COMMAND...    each is asked for; the answers stand in answers.txt
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OPTIONS = [
    {"optionId": "always", "name": "Always", "kind": "allow_always"},
    {"optionId": "once", "name": "Once", "kind": "allow_once"},
    {"optionId": "no", "name": "No", "kind": "reject_once"},
]


def say(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def tell(**update: Any) -> None:
    say(method="session/update", params={"sessionId": "asking", "update": update})


def heard() -> Mapping[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: Mapping[str, Any] = json.loads(line)
    return message


def ask(number: int, command: str) -> str:
    call = {
        "toolCallId": f"call-{number}",
        "title": command,
        "kind": "execute",
        "status": "pending",
        "rawInput": {"command": f"{command} --with all of it"},
    }
    params = {"sessionId": "asking", "toolCall": call, "options": OPTIONS}
    say(id=100 + number, method="session/request_permission", params=params)
    answer = heard()
    while answer.get("id") != 100 + number:
        answer = heard()
    outcome = answer["result"]["outcome"]
    return str(outcome.get("optionId", outcome["outcome"]))


def work() -> str:
    chosen: dict[str, str] = {}
    for number, command in enumerate(sys.argv[1:]):
        if "always" not in chosen.values():
            chosen[command] = ask(number, command)
            done = chosen[command] in {"once", "always"}
            status = "completed" if done else "failed"
            tell(sessionUpdate="tool_call_update", toolCallId=f"call-{number}", status=status)
        if chosen.get(command) == "cancelled":
            return "cancelled"
    Path("answers.txt").write_text(json.dumps(chosen))
    tell(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "Done."})
    return "end_turn"


def main() -> None:
    while True:
        message = heard()
        answer = {"id": message.get("id")}
        match message.get("method"):
            case "initialize":
                say(**answer, result={"protocolVersion": 1, "agentCapabilities": {}})
            case "session/new":
                say(**answer, result={"sessionId": "asking"})
            case "session/prompt":
                say(**answer, result={"stopReason": work()})
            case _:
                pass


if __name__ == "__main__":
    main()
