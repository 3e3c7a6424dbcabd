"""The scripted agent: a small program that misbehaves on request. It does the steps of a JSON
script, one by one.

Standard library only, and little of it, because benchmarks start it by the thousand: `python -I -S
agent.py SCRIPT`. SCRIPT is a file, `-` for stdin, or the JSON itself. `STEPS` below says what
there is to do.
"""

from __future__ import annotations

import json  # noqa: TID251  (orjson is not there under `python -S`)
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    Step = Mapping[str, JsonValue]

_USAGE_ERROR = 2
_STREAMS = {"stdout": 1, "stderr": 2}


class AgentScriptError(ValueError):
    """A script that cannot be followed. The message names the step and what is allowed."""


def main(argv: Sequence[str]) -> int:
    """Follows the script that argv names. Returns the exit status: 0 at the end of the script, 2
    when it is wrong.
    """
    if len(argv) != 1:
        return _fail("usage: agent SCRIPT  (a JSON file, - for stdin, or the JSON itself)")
    try:
        follow(_load(argv[0]))
    except (AgentScriptError, OSError) as error:
        return _fail(f"scripted agent: {error}")
    return 0


def follow(steps: Sequence[Step]) -> None:
    """Does the steps in order. Raises AgentScriptError for one that is wrongly written."""
    for step in steps:
        _verb(step)(step)


def _load(source: str) -> Sequence[Step]:
    if source == "-":
        text = sys.stdin.read()
    elif source.lstrip().startswith(("{", "[")):
        text = source
    else:
        with open(source, encoding="utf-8") as file:  # noqa: PTH123  (pathlib is slow to import)
            text = file.read()
    try:
        return _steps(json.loads(text))
    except ValueError as error:
        raise AgentScriptError(f"{source[:60]}: {error}") from None


def _steps(value: JsonValue) -> Sequence[Step]:
    match value:
        case {"steps": list(listed)} | list(listed) if all(isinstance(it, dict) for it in listed):
            return [step for step in listed if isinstance(step, dict)]
        case _:
            raise AgentScriptError("a script is a list of steps, or an object with `steps`")


def _verb(step: Step) -> Callable[[Step], None]:
    verbs = [verb for verb in STEPS if verb in step]
    if len(verbs) != 1:
        known = ", ".join(STEPS)
        raise AgentScriptError(f"step {json.dumps(step)[:80]}: one of {known} is needed")
    return STEPS[verbs[0]]


def _print(step: Step) -> None:
    r"""`{"print": TEXT, "end": "\n", "to": "stdout", "times": 1, "every": 0}`; TEXT may be
    {"repeat", "times"}.
    """
    line = (_text(step, "print") + _text(step, "end", "\n")).encode("utf-8", "surrogatepass")
    pause = _number(step, "every", 0)
    for _ in range(int(_number(step, "times", 1))):
        _write(_stream(step), line)
        if pause:
            time.sleep(pause)


def _raw(step: Step) -> None:
    """`{"raw": TEXT}`: a byte for each character up to U+00FF, so that any byte can be sent."""
    try:
        content = _text(step, "raw").encode("latin-1")
    except UnicodeEncodeError as error:
        raise AgentScriptError(f"raw: {error}") from None
    _write(_stream(step), content)


def _report(step: Step) -> None:
    """`{"report": ["argv", "cwd", "env", "fds", "pid", "stdin"]}`: one JSON line with what was
    asked for.
    """
    match step["report"]:
        case list(names) if all(name in _FACTS for name in names):
            facts = {str(name): _FACTS[str(name)]() for name in names}
            _write(_stream(step), json.dumps(facts).encode() + b"\n")
        case _:
            raise AgentScriptError(f"report: a list of {', '.join(_FACTS)}")


def _read_stdin() -> str:
    return sys.stdin.buffer.read().decode("utf-8", "backslashreplace")


def _open_fds() -> list[int]:
    listed = [int(name) for name in os.listdir("/dev/fd")]  # noqa: PTH208
    return [fd for fd in listed if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False  # the one that listed the others
    return True


_FACTS: Mapping[str, Callable[[], object]] = {
    "argv": lambda: list(sys.argv),
    "cwd": os.getcwd,
    "env": lambda: dict(os.environ),
    "fds": _open_fds,
    "pid": os.getpid,
    "stdin": _read_stdin,
}


def _line(step: Step) -> None:
    """`{"read": "line"}` waits for a line on stdin, `{"read": "all"}` for its end."""
    match step["read"]:
        case "line":
            sys.stdin.buffer.readline()
        case "all":
            sys.stdin.buffer.read()
        case _:
            raise AgentScriptError('read: "line" or "all"')


def _file(step: Step) -> None:
    """`{"write": PATH, "text": TEXT, "append": false}`: makes or overwrites a file, and the
    folders it needs.
    """
    path = _text(step, "write")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH103, PTH120
    with open(path, "ab" if step.get("append") else "wb") as file:  # noqa: PTH123
        file.write(_text(step, "text", "").encode("utf-8", "surrogatepass"))


def _edit(step: Step) -> None:
    """`{"edit": PATH, "old": TEXT, "new": TEXT}`: replaces the text where it first occurs."""
    path, old = _text(step, "edit"), _text(step, "old")
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        before = file.read()
    if old not in before:
        raise AgentScriptError(f"edit: {path} does not contain {old!r}")
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(before.replace(old, _text(step, "new"), 1))


def _sleep(step: Step) -> None:
    """`{"sleep": SECONDS}`."""
    time.sleep(_number(step, "sleep", 0))


def _hang(step: Step) -> None:
    """`{"hang": true}`: for ever; signals that are handled do not end it."""
    while step["hang"]:
        signal.pause()


def _burn(step: Step) -> None:
    """`{"burn": SECONDS}`: uses CPU time."""
    end = time.process_time() + _number(step, "burn", 0)
    while time.process_time() < end:
        pass


def _fetch(step: Step) -> None:
    """`{"fetch": URL, "body": TEXT}`: GET, or POST with a body; reads and forgets the answer."""
    from urllib.request import (
        ProxyHandler,
        Request,
        build_opener,
    )

    url, body = _text(step, "fetch"), _text(step, "body", "")
    if not url.startswith("http://"):
        raise AgentScriptError(f"fetch: {url!r} does not start with http://")
    headers = {"content-type": "application/json"} if body else {}
    request = Request(url, body.encode() or None, headers)  # noqa: S310  (checked above)
    with build_opener(ProxyHandler({})).open(request) as response:
        while response.read1(65536):
            pass


def _ignore(step: Step) -> None:
    """`{"ignore": ["SIGTERM"]}`."""
    match step["ignore"]:
        case list(names):
            for name in names:
                signal.signal(_signal(name), signal.SIG_IGN)
        case _:
            raise AgentScriptError("ignore: a list of signals")


def _on(step: Step) -> None:
    """`{"on": "SIGINT", "do": STEPS}`: done when the signal comes; then the script goes on."""
    steps = _steps(step.get("do"))
    signal.signal(_signal(step["on"]), lambda _number, _frame: follow(steps))


def _spawn(step: Step) -> None:
    """`{"spawn": STEPS}`: a child that does the steps, while the script goes on.

    `"setsid": true` gives it a session of its own, `"double_fork": true` also another parent;
    `"quiet": true` closes its stdin, stdout and stderr, which it else holds open; `"clear_env":
    true` leaves nothing of the environment; `"wait": true` waits for its end.
    """
    steps = _steps(step["spawn"])
    child = os.fork()
    if child == 0:
        _as_child(step, steps)
    if step.get("wait") or step.get("double_fork"):
        os.waitpid(child, 0)


def _as_child(step: Step, steps: Sequence[Step]) -> None:
    """Never returns: the child must not go on with its parent's script."""
    try:
        if step.get("setsid") or step.get("double_fork"):
            os.setsid()
        if step.get("double_fork") and os.fork() != 0:
            os._exit(0)
        if step.get("quiet"):
            _close_streams()
        if step.get("clear_env"):
            argv = [sys.executable, "-I", "-S", __file__, json.dumps(steps)]
            os.execve(sys.executable, argv, {})  # noqa: S606  (there is no shell on purpose)
        follow(steps)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 0)
    except (AgentScriptError, OSError) as error:
        os._exit(_fail(f"scripted agent, child: {error}"))
    os._exit(0)


def _close_streams() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


def _exit(step: Step) -> None:
    """`{"exit": STATUS}`: at once."""
    raise SystemExit(int(_number(step, "exit", 0)))


def _kill(step: Step) -> None:
    """`{"kill": "SIGKILL"}`: sends itself the signal; `"parent": true`: sends it to its parent
    instead.
    """
    os.kill(os.getppid() if step.get("parent") else os.getpid(), _signal(step["kill"]))


STEPS: Mapping[str, Callable[[Step], None]] = {
    "print": _print,
    "raw": _raw,
    "report": _report,
    "read": _line,
    "write": _file,
    "edit": _edit,
    "sleep": _sleep,
    "hang": _hang,
    "burn": _burn,
    "fetch": _fetch,
    "ignore": _ignore,
    "on": _on,
    "spawn": _spawn,
    "exit": _exit,
    "kill": _kill,
}


def _text(step: Step, key: str, default: str | None = None) -> str:
    match step.get(key, default):
        case str(text):
            return text
        case {"repeat": str(text), "times": int(times)}:
            return text * times
        case found:
            raise AgentScriptError(f"{key}: a text or {{repeat, times}} is needed, found {found!r}")


def _number(step: Step, key: str, default: float) -> float:
    match step.get(key, default):
        case bool() as found:
            raise AgentScriptError(f"{key}: a number is needed, found {found!r}")
        case int(number) | float(number):
            return number
        case found:
            raise AgentScriptError(f"{key}: a number is needed, found {found!r}")


def _stream(step: Step) -> int:
    match step.get("to", "stdout"):
        case str(name) if name in _STREAMS:
            return _STREAMS[name]
        case found:
            raise AgentScriptError(f"to: stdout or stderr, found {found!r}")


def _signal(name: JsonValue) -> signal.Signals:
    match name:
        case str(known) if known in signal.Signals.__members__:
            return signal.Signals[known]
        case _:
            raise AgentScriptError(f"{name!r} is no signal (such as SIGTERM)")


def _write(fd: int, content: bytes) -> None:
    """All of it, at once and unbuffered: a kill in the next step loses nothing."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _fail(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return _USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
