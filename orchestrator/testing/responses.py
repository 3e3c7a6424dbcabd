"""OpenAI Responses: `POST /v1/responses`, as the codex CLI speaks it, streamed and not.

A tool call becomes the item that the declared tool asks for: function, free-form (`custom`),
`local_shell`, or a function in a namespace (codex's MCP tools).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from pydantic import JsonValue

from orchestrator.testing.dialect import (
    Answer,
    Ask,
    BadRequestError,
    Body,
    Dialect,
    Json,
    Problem,
    Tool,
    arguments_object,
    arguments_text,
    items,
    news,
    pieces,
    sse,
)
from orchestrator.testing.openai_errors import error, error_object
from orchestrator.testing.script import ToolCall, Usage


def _read(body: Body) -> Ask:
    match body:
        case {"model": str(model), "input": str() | list() as given}:
            said = items(given) or [given]
            return Ask(
                model=model,
                stream=body.get("stream") is True,
                news=news(said, _is_own),
                tools=(*_tools(body.get("tools")), *_additional_tools(said)),
                is_probe=not given,  # codex warms LM Studio up with an empty input
            )
        case _:
            message = "a response needs `model` and `input`"
            raise BadRequestError(message)


def _is_own(item: JsonValue) -> bool:
    match item:
        case {"role": "assistant"} | {"type": "reasoning"}:
            return True
        case {"type": str(type_)}:
            return type_.endswith("_call")
        case _:
            return False


def _additional_tools(said: Sequence[JsonValue]) -> Iterator[Tool]:
    """Codex declares the tools of some models in the input instead."""
    for item in said:
        match item:
            case {"type": "additional_tools", "tools": tools}:
                yield from _tools(tools)
            case _:
                pass


def _tools(declared: JsonValue, namespace: str | None = None) -> Iterator[Tool]:
    for tool in items(declared):
        yield from _tool(tool, namespace)


def _tool(tool: JsonValue, namespace: str | None) -> Iterator[Tool]:
    match tool:
        case {"type": "namespace", "name": str(name), "tools": inner}:
            yield from _tools(inner, name)
        case {"type": "function", "name": str(name)}:
            yield Tool(name, "function", namespace)
        case {"type": "custom", "name": str(name)}:
            yield Tool(name, "custom", namespace)
        case {"type": "local_shell"}:
            yield Tool("local_shell", "local_shell")
        case {"type": str(type_)}:
            yield Tool(type_)
        case _:
            return


@dataclass(frozen=True, slots=True)
class _Item:
    """One output item: when it opens, the events that fill it, and when it is done."""

    opening: Json
    filling: tuple[tuple[str, Json], ...]
    done: Json


def _items(ask: Ask, answer: Answer) -> Iterator[_Item]:
    if answer.thought:
        yield _reasoning(answer)
    if answer.text or not (answer.thought or answer.tool_calls):
        yield _message(answer)
    for index in range(len(answer.tool_calls)):
        yield _call(ask, answer, index)


def _reasoning(answer: Answer) -> _Item:
    id_ = f"rs_{answer.number}"
    part = {"type": "summary_text", "text": answer.thought}
    where: Json = {"item_id": id_, "summary_index": 0}
    item: Json = {"id": id_, "type": "reasoning", "summary": [], "encrypted_content": None}
    return _Item(
        opening=item,
        filling=(
            (
                "response.reasoning_summary_part.added",
                {**where, "part": {"type": "summary_text", "text": ""}},
            ),
            *_deltas("response.reasoning_summary_text.delta", where, answer.thought),
            ("response.reasoning_summary_text.done", {**where, "text": answer.thought}),
            ("response.reasoning_summary_part.done", {**where, "part": part}),
        ),
        done={**item, "summary": [part]},
    )


def _message(answer: Answer) -> _Item:
    id_ = f"msg_{answer.number}"
    kind, key = (
        ("refusal", "refusal") if answer.stop_reason == "refusal" else ("output_text", "text")
    )
    where: Json = {"item_id": id_, "content_index": 0}
    extra: Json = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
    part = {"type": kind, key: answer.text, **extra}
    item: Json = {"id": id_, "type": "message", "role": "assistant", "content": []}
    return _Item(
        opening={**item, "status": "in_progress"},
        filling=(
            ("response.content_part.added", {**where, "part": {**part, key: ""}}),
            *_deltas(f"response.{kind}.delta", where, answer.text),
            (f"response.{kind}.done", {**where, key: answer.text}),
            ("response.content_part.done", {**where, "part": part}),
        ),
        done={**item, "status": "completed", "content": [part]},
    )


def _call(ask: Ask, answer: Answer, index: int) -> _Item:
    call = answer.tool_calls[index]
    tool = ask.tool(call.name) or Tool(call.name)
    id_, call_id = f"fc_{answer.number}_{index + 1}", answer.call_id(index)
    head: Json = {"id": id_, "call_id": call_id, "status": "completed"}
    match tool.kind:
        case "custom":
            return _text_call("custom_tool_call", head, tool, "input", _free_form(call))
        case "local_shell":
            item = {**head, "type": "local_shell_call", "action": _shell_action(call)}
            return _Item({**item, "status": "in_progress"}, (), item)
        case "function":
            return _text_call("function_call", head, tool, "arguments", arguments_text(call))


def _text_call(type_: str, head: Json, tool: Tool, key: str, text: str) -> _Item:
    event = f"response.{type_}_{key}" if key == "input" else f"response.{type_}_arguments"
    where: Json = {"item_id": head["id"]}
    namespace = {} if tool.namespace is None else {"namespace": tool.namespace}
    item = {**head, "type": type_, "name": tool.name, **namespace, key: text}
    return _Item(
        opening={**item, "status": "in_progress", key: ""},
        filling=(
            *_deltas(f"{event}.delta", where, text),
            (f"{event}.done", {**where, key: text}),
        ),
        done=item,
    )


def _free_form(call: ToolCall) -> str:
    """The input of a free-form tool: the string itself, or the one under `input` or `patch`."""
    match call.arguments:
        case {"input": str(text)} | {"patch": str(text)}:
            return text
        case _:
            return arguments_text(call)


def _shell_action(call: ToolCall) -> Json:
    match arguments_object(call):
        case {"command": str(command)}:
            argv: JsonValue = ["bash", "-lc", command]
        case {"command": argv}:
            pass
        case _:
            argv = []
    action: Json = {"type": "exec", "command": argv, "env": {}}
    return action


def _deltas(event: str, where: Json, text: str) -> Iterator[tuple[str, Json]]:
    for piece in pieces(text):
        yield event, {**where, "delta": piece}


def _stream(ask: Ask, answer: Answer) -> Iterator[bytes]:
    sequence = count()

    def event(type_: str, fields: Json) -> bytes:
        return sse({"type": type_, "sequence_number": next(sequence), **fields}, type_)

    started = _response(ask, answer, "in_progress")
    yield event("response.created", {"response": started})
    yield event("response.in_progress", {"response": started})
    for index, item in enumerate(_items(ask, answer)):
        place: Json = {"output_index": index}
        yield event("response.output_item.added", {**place, "item": item.opening})
        for type_, fields in item.filling:
            yield event(type_, {**place, **fields})
        yield event("response.output_item.done", {**place, "item": item.done})
    whole = _whole(ask, answer)
    yield event(f"response.{whole['status']}", {"response": whole})


def _whole(ask: Ask, answer: Answer) -> Json:
    response = _response(ask, answer, "completed")
    response["output"] = [item.done for item in _items(ask, answer)]
    if answer.usage is not None:
        response["usage"] = _usage(answer.usage)
    if answer.stop_reason == "max_tokens":
        response["status"] = "incomplete"
        response["incomplete_details"] = {"reason": "max_output_tokens"}
    return response


def _response(ask: Ask, answer: Answer, status: str) -> dict[str, object]:
    return {
        "id": f"resp_{answer.number}",
        "object": "response",
        "created_at": int(answer.time),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": ask.model,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }


def _usage(usage: Usage) -> Json:
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": prompt + usage.output_tokens,
    }


def _error(problem: Problem) -> tuple[int, Json]:
    return error(problem, overflow_param="input")


def _stream_error(problem: Problem) -> Iterator[bytes]:
    told = error_object(problem, overflow_param="input")
    response: Json = {
        "id": f"resp_{problem.number}",
        "object": "response",
        "status": "failed",
        # `or server_error`: OpenAI's 500 body has no code, its failed response always has one.
        "error": {"code": told["code"] or "server_error", "message": told["message"]},
        "model": problem.model,
        "output": [],
        "usage": None,
    }
    yield sse(
        {"type": "response.failed", "sequence_number": 0, "response": response}, "response.failed"
    )


RESPONSES = Dialect(
    name="responses",
    stream_type="text/event-stream",
    read=_read,
    stream=_stream,
    whole=_whole,
    error=_error,
    stream_error=_stream_error,
    overflows_in_stream=True,
)
