"""The smallest coding agent: it writes what it is asked for into tiny.txt, and says so.

tiny.py --json    the prompt on stdin, events as JSON lines on stdout
tiny.py --acp     the Agent Client Protocol on stdin and stdout
"""

import json
import sys
from pathlib import Path


def say(**message: object) -> None:
    print(json.dumps(message), flush=True)


def work(prompt: str) -> str:
    Path("tiny.txt").write_text(prompt)
    return "tiny.txt is written."


def by_json() -> None:
    say(event="begin", session="tiny-1")
    say(event="tool", id="1", name="write", state="done", file="tiny.txt")
    say(event="answer", text=work(sys.stdin.read()))
    say(event="end", why="finished", tokens={"in": 3, "out": 2})


def by_acp() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        answer = {"jsonrpc": "2.0", "id": message.get("id")}
        match message.get("method"):
            case "initialize":
                say(**answer, result={"protocolVersion": 1, "agentCapabilities": {}})
            case "session/new":
                say(**answer, result={"sessionId": "tiny-1"})
            case "session/prompt":
                said = work(message["params"]["prompt"][0]["text"])
                tell(
                    {
                        "sessionUpdate": "tool_call",
                        "toolCallId": "1",
                        "title": "tiny.txt",
                        "kind": "edit",
                        "status": "completed",
                    }
                )
                tell(
                    {
                        "sessionUpdate": "agent_message_chunk",
                        "content": {"type": "text", "text": said},
                    }
                )
                say(**answer, result={"stopReason": "end_turn"})


def tell(update: dict[str, object]) -> None:
    say(jsonrpc="2.0", method="session/update", params={"sessionId": "tiny-1", "update": update})


if __name__ == "__main__":
    by_acp() if "--acp" in sys.argv else by_json()
