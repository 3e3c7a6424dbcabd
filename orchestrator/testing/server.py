"""The scripted model server: one script, every dialect, on loopback, and a record of each request.

    async with model_server(script) as server:
        ...  # run an agent against server.base_url
    assert server.exhausted == 0

A path before the API's own names a session: those who use `server.url("a")` get the script from
its start.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

import anyio
from pydantic import JsonValue

from orchestrator.testing import catalog, makes
from orchestrator.testing.chat import CHAT
from orchestrator.testing.cursor import Cursor, ExhaustedError, MismatchError
from orchestrator.testing.dialect import Ask, BadRequestError, Dialect, Problem
from orchestrator.testing.gemini import GEMINI
from orchestrator.testing.messages import MESSAGES
from orchestrator.testing.ollama import OLLAMA
from orchestrator.testing.play import (
    answer_of,
    json_lines,
    json_response,
    play,
    refuse,
    tell,
    text_response,
)
from orchestrator.testing.requests import Request, record
from orchestrator.testing.responses import RESPONSES
from orchestrator.testing.script import Script, Turn, parse_script
from orchestrator.testing.wire import Message, Response, accept, listen

_DIALECTS: Mapping[str, Dialect] = {
    "/chat/completions": CHAT,
    "/responses": RESPONSES,
    "/messages": MESSAGES,
    "/api/chat": OLLAMA,
    ":generateContent": GEMINI,
    ":streamGenerateContent": GEMINI,
}
_CHARS_PER_TOKEN = 4
_PATH = re.compile(
    r"(?P<session>(?:/[^/]+)*?)"
    r"(?:/v1)?"
    r"(?P<endpoint>/chat/completions|/responses|/messages(?:/count_tokens)?|/models(?:/.+)?"
    r"|/api/v[01]/models(?:/.+)?|/api/(?:chat|tags|version|ps|show|pull|delete|hello)"
    r"|/health|/version|/props|/slots|/metrics|/)"
)
# Google's, where the model stands in the path.
_MODEL_PATH = re.compile(
    r"(?P<session>(?:/[^/]+)*?)/v1(?:alpha|beta)?/models/(?P<model>.+)"
    r"(?P<endpoint>:generateContent|:streamGenerateContent|:countTokens)"
)


@dataclass(slots=True)
class ModelServer:
    """A server that is up. `requests` grows with each request, in the order of their arrival.

    `exhausted` counts the requests that came after the script's last turn, `mismatches` says which
    `expect` or `when` did not hold. Both are errors for the client too.
    """

    script: Script
    base_url: str
    requests: list[Request] = field(default_factory=list[Request])
    exhausted: int = 0
    mismatches: list[str] = field(default_factory=list[str])
    on_request: Callable[[Request], None] | None = None
    _cursors: dict[str, Cursor] = field(default_factory=dict[str, Cursor])

    @property
    def played(self) -> list[Request]:
        """The requests that a turn of the script answered: no look-ups, no probes."""
        return [request for request in self.requests if request.turn is not None]

    def url(self, session: str = "") -> str:
        """The base URL of a session of its own (`a`, `team/b`), without `/v1`."""
        return f"{self.base_url}/{session}" if session else self.base_url

    def remaining(self, session: str = "") -> int:
        """How many turns are left to a session. A turn that repeats for ever counts as one, for
        ever.
        """
        return self._cursor(session).remaining

    def _cursor(self, session: str) -> Cursor:
        return self._cursors.setdefault(session, Cursor(self.script))

    def handle(self, message: Message) -> Response:
        """Decides the response to one request, and records both."""
        number, now = len(self.requests) + 1, time.time()
        session, endpoint = _place(message.target)
        dialect = _DIALECTS.get(endpoint) if message.method == "POST" else None
        request = record(message, number, now, session, dialect.name if dialect else None)
        turn, response = self._respond(request, endpoint, dialect)
        self._keep(replace(request, turn=turn, status=response.status))
        return response

    def _answers(self) -> int:
        return sum(request.turn is not None for request in self.requests)

    def _keep(self, request: Request) -> None:
        self.requests.append(request)
        if self.on_request is not None:
            self.on_request(request)

    def _respond(
        self, request: Request, endpoint: str, dialect: Dialect | None
    ) -> tuple[int | None, Response]:
        """The turn that was consumed, if any, and the response."""
        if request.problem is not None:
            return None, json_response({"error": {"message": request.problem}}, 415)
        if not makes.has_path(self.script.server, endpoint):
            said, status = makes.not_there(self.script.server, request.method, request.path)
            return None, json_response(said, status)
        if dialect is None:
            return None, self._look_up(request, endpoint)
        try:
            ask = _ask(dialect, _with_model(request))
        except BadRequestError as error:
            ask = Ask(model="", stream=False)
            return None, refuse(dialect, ask, request.number, str(error), "bad_request")
        return self._generate(request, dialect, ask)

    def _generate(
        self, request: Request, dialect: Dialect, ask: Ask
    ) -> tuple[int | None, Response]:
        if not self.script.serves(ask.model):
            return None, tell(dialect, Problem("model_not_found", ask.model, request.number))
        if ask.is_probe:
            return None, self._play(request, dialect, ask, Turn(usage="none"))
        try:
            index, turn = self._cursor(request.session).take(ask)
        except ExhaustedError as error:
            self.exhausted += 1
            return None, refuse(dialect, ask, request.number, str(error), "script_exhausted")
        except MismatchError as error:
            self.mismatches.append(str(error))
            return None, refuse(dialect, ask, request.number, str(error), "script_mismatch")
        return index + 1, self._play(request, dialect, ask, turn)

    def _play(self, request: Request, dialect: Dialect, ask: Ask, turn: Turn) -> Response:
        length = int(request.headers.get("content-length", "0"))
        if self._is_too_long(length):
            if self.script.server != "ollama":
                return tell(dialect, Problem("context_overflow", ask.model, request.number))
            length = _CHARS_PER_TOKEN * (self.script.context or 0)  # cut without a word
        answer = answer_of(turn, request.number, request.time, length)
        return play(dialect, ask, turn, answer)

    def _is_too_long(self, length: int) -> bool:
        limit = self.script.context
        return limit is not None and length // _CHARS_PER_TOKEN > limit

    def _look_up(self, request: Request, endpoint: str) -> Response:
        """Everything that is not a generation request."""
        script = self.script
        match "GET" if request.method == "HEAD" else request.method, endpoint:
            case "GET", "/models":
                served = [makes.listed(script, name) for name in script.models]
                return json_response(catalog.models(script, served))
            case "GET", path if path.startswith("/models/"):
                return _one_model(script, path.removeprefix("/models/"))
            case "GET", "/api/tags":
                return json_response(catalog.tags(script))
            case "GET", "/api/ps":
                return json_response(catalog.running(script, self._answers()))
            case "GET", "/api/version":
                return json_response({"version": catalog.OLLAMA_VERSION})
            case "POST", "/api/show":
                return _show(script, request.body)
            case "POST", "/api/pull":
                return json_lines(catalog.pull(script, request.body))
            case "DELETE", "/api/delete":
                return _delete(script, request.body)
            case _, path if path.startswith("/api/v"):
                return _lm_studio(script, request, path)
            case "GET", "/version":
                return json_response({"version": makes.VLLM_VERSION})
            case "GET", "/props":
                return json_response(makes.properties(script))
            case "GET", "/slots":
                return json_response(makes.slots(script, self._answers()))
            case "GET", "/metrics" if script.server == "vllm":
                return text_response(makes.metrics(script, self._answers()))
            case "GET", "/health" if script.server == "vllm":
                return Response(200, (), (), 0)
            case "POST", ":countTokens":
                return json_response({"totalTokens": len(str(request.body)) // 4})
            case "POST", "/messages/count_tokens":
                return json_response({"input_tokens": len(str(request.body)) // 4})
            case "GET", "/" | "/health" | "/api/hello":
                return json_response({"status": "ok"})
            case "GET", path if path in _DIALECTS and "upgrade" in request.headers:
                # The real codex then falls back to POST.
                return json_response({"error": {"message": "no websocket here"}}, 426)
            case _:
                said, status = makes.not_there(script.server, request.method, request.path)
                return json_response(said, status)


def _place(target: str) -> tuple[str, str]:
    """Session and endpoint; the endpoint is empty where the path is none of ours."""
    path = unquote(urlsplit(target).path)
    found = _MODEL_PATH.fullmatch(path) or _PATH.fullmatch(path)
    return (found["session"].strip("/"), found["endpoint"]) if found else ("", "")


def _with_model(request: Request) -> JsonValue:
    """The body, with what only the path tells where the model stands in it."""
    found = _MODEL_PATH.fullmatch(unquote(urlsplit(request.path).path))
    if found is None or not isinstance(request.body, dict):
        return request.body
    stream = found["endpoint"] == ":streamGenerateContent"
    return {**request.body, "model": found["model"], "stream": stream}


def _ask(dialect: Dialect, body: JsonValue) -> Ask:
    match body:
        case dict():
            return dialect.read(body)
        case _:
            raise BadRequestError("the body is no JSON object")


def _one_model(script: Script, name: str) -> Response:
    if not script.serves(name):
        return tell(CHAT, Problem("model_not_found", name, 0))
    return json_response(catalog.model(name))


def _delete(script: Script, body: JsonValue) -> Response:
    match body:
        case {"model": str(name)} if script.serves(name):
            return Response(200, (), (), 0)
        case _:
            return json_response({"error": "model not found"}, 404)


def _lm_studio(script: Script, request: Request, path: str) -> Response:
    match request.method, path.split("/")[2:], request.body:
        case "GET", ["v1", "models"], _:
            return json_response(makes.lm_studio_models(script))
        case "GET", ["v0", "models"], _:
            return json_response(makes.older_lm_studio_models(script))
        case "POST", ["v1", "models", "download"], {"model": str(name)}:
            return json_response(makes.download(script, name), 200 if script.serves(name) else 404)
        case "GET", ["v1", "models", "download", "status", *job], _:
            return json_response(makes.download_status("/".join(job)))
        case _:
            said, status = makes.not_there("lmstudio", request.method, path)
            return json_response(said, status)


def _show(script: Script, body: JsonValue) -> Response:
    match body:
        case {"model": str(name)} | {"name": str(name)} if not script.serves(name):
            return tell(OLLAMA, Problem("model_not_found", name, 0))
        case _:
            return json_response(catalog.show(script))


@asynccontextmanager
async def model_server(
    script: Script | Mapping[str, object],
    *,
    port: int = 0,
    on_request: Callable[[Request], None] | None = None,
) -> AsyncGenerator[ModelServer]:
    """A scripted model server on loopback, up while the block runs.

    `on_request` is called with each record. Raises ScriptError for a mapping that is no script,
    OSError when the port is taken.
    """
    parsed = script if isinstance(script, Script) else parse_script(script)
    with listen(port) as listener:
        host, bound = listener.getsockname()
        server = ModelServer(parsed, f"http://{host}:{bound}", on_request=on_request)
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept, listener, server.handle, tasks)
            try:
                yield server
            except Exception as error:  # noqa: BLE001  (raised again below: the group would wrap it)
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
