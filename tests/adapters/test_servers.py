"""The kinds of model server: how their replies are read, from recorded and documented ones.

Each fixture in tests/servers says in `source` whether a real program said so or a documentation.
"""

import json
from collections.abc import Callable, Generator, Iterator
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.server import (
    Ask,
    Model,
    ModelServer,
    Next,
    Pause,
    Progress,
    Pull,
    Reply,
    Seen,
    at_least,
)
from tests.examples import examples

SERVERS: dict[str, ModelServer] = {
    entry.name: entry.load() for entry in entry_points(group="orchestrator.servers")
}
FOLDER = Path(__file__).parent.parent / "servers"
CLOUDS = {"openai"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)


def seen(kind: str, fixture: str, **changed: Reply) -> Seen | None:
    """What the kind makes of the fixture's replies."""
    replies: dict[str, Any] = json.loads((FOLDER / f"{fixture}.json").read_text())["replies"]

    def reply(ask: Ask) -> Reply:
        name = " ".join([ask.method, ask.path, *map(str, ask.body.values())])
        said = replies.get(name, {"status": 404, "body": None})
        return changed.get(ask.path.rpartition("/")[2], Reply(**said))

    return driven(SERVERS[kind], reply)


def driven(server: ModelServer, reply: Callable[[Ask], Reply]) -> Seen | None:
    look = server.look()
    try:
        asks = next(look)
        while True:
            asks = look.send([reply(ask) for ask in asks])
    except StopIteration as end:
        found: Seen | None = end.value
        return found


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_server_is_what_its_entry_point_says(name):
    server = SERVERS[name]
    assert isinstance(server, ModelServer)
    assert server.name == name
    assert "chat" in server.dialects
    assert all(variable.isupper() for variable in (*server.url_env, *server.model_env))
    assert server.list_models


def test_local_ones_with_a_port_have_a_way_to_start_them_and_a_cloud_has_an_address():
    assert {name for name, server in SERVERS.items() if not server.local} == CLOUDS
    for server in SERVERS.values():
        assert (server.port is not None) == (server.start is not None)
        assert (server.base_url is None) == server.local
        assert (server.port is None) == (server.name in {*CLOUDS, "openai-compatible"})
    assert urlsplit(SERVERS["openai"].base_url or "").scheme == "https"


def test_the_usual_ports():
    ports = {name: server.port for name, server in SERVERS.items() if server.port}
    assert ports == {"ollama": 11434, "lmstudio": 1234, "vllm": 8000, "llamacpp": 8080}


# --- what each says of its models ----------------------------------------------------------------


def test_every_fixture_says_where_it_comes_from():
    sources = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    assert {one["source"] for one in sources.values()} == {"recorded", "documented"}
    assert sources["llamacpp"]["source"] == "recorded"
    assert all(one["of"] and one["by"] for one in sources.values())


def test_ollama_tells_the_window_that_is_configured_and_the_one_that_is_possible():
    found = seen("ollama", "ollama")
    assert found is not None
    assert (found.sure, found.version) == (True, "0.30.0")
    assert found.dialects == ("ollama", "chat", "responses", "messages")
    models = {model.name: model for model in found.models}
    assert models["qwen2.5-coder:14b"] == Model(
        name="qwen2.5-coder:14b",
        context=4096,  # loaded with it, though the model was made for 32,768
        context_possible=32768,
        tools=True,
        thinking=False,
        loaded=True,
        size=8988124069,
        parameters="14.8B",
        quantization="Q4_K_M",
    )
    assert (models["devstral:24b"].context, models["devstral:24b"].loaded) == (None, False)
    assert (models["mine:latest"].context, models["mine:latest"].tools) == (16384, False)


def test_a_model_that_ollama_passes_on_is_a_clouds():
    found = seen("ollama", "ollama")
    assert found is not None
    remote = {model.name: model.context for model in found.models if model.remote}
    assert remote == {"gpt-oss:120b-cloud": 131072}


@pytest.mark.parametrize(
    ("version", "dialects"),
    [
        ("0.13.2", ("ollama", "chat")),
        ("0.13.4", ("ollama", "chat", "responses")),
        ("0.14.0-rc1", ("ollama", "chat", "responses", "messages")),
        (None, ("ollama", "chat")),
    ],
)
def test_which_dialects_ollama_speaks_depends_on_its_version(version, dialects):
    found = seen("ollama", "ollama", version=Reply(status=200, body={"version": version}))
    assert found is not None
    assert found.dialects == dialects
    assert found.sure == (version is not None)


def test_a_model_of_which_ollama_does_not_tell_more_is_listed_still():
    found = seen("ollama", "ollama", show=Reply(status=500), ps=Reply(status=0))
    assert found is not None
    assert len(found.models) == 5
    assert {model.tools for model in found.models} == {None}


def test_ollama_without_models_is_there():
    found = seen("ollama", "ollama", tags=Reply(status=200, body={"models": []}))
    assert found is not None
    assert found.models == ()


def test_lm_studio_tells_the_smallest_window_of_a_model_that_is_loaded_twice():
    found = seen("lmstudio", "lmstudio")
    assert found is not None
    assert found.sure
    assert found.dialects == ("chat", "responses", "messages")
    assert found.models == (
        Model(
            name="qwen/qwen3-14b",
            context=4096,
            context_possible=40960,
            tools=True,
            thinking=True,
            loaded=True,
            size=9001753600,
            parameters="14B",
            quantization="Q4_K_M",
            aliases=("qwen/qwen3-14b:2",),
        ),
        Model(
            name="google/gemma-3-12b",
            context_possible=131072,
            tools=False,
            thinking=False,
            loaded=False,
            size=9001753600,
            parameters="14B",
            quantization="Q4_K_M",
        ),
    )


def test_an_older_lm_studio_is_understood():
    found = seen("lmstudio", "lmstudio-v0")
    assert found is not None
    assert (found.sure, found.dialects) == (True, ("chat", "responses"))
    told = [(model.name, model.context, model.tools, model.loaded) for model in found.models]
    assert told == [
        ("qwen2.5-coder-14b-instruct", 16384, True, True),
        ("old-model", None, None, False),
    ]


def test_an_lm_studio_without_its_own_api_has_a_list_of_models_still():
    found = seen("lmstudio", "vllm")
    assert found is not None
    assert (found.sure, len(found.models)) == (False, 1)
    assert seen("lmstudio", "llamacpp-loading") is None


def test_vllm_tells_its_window():
    found = seen("vllm", "vllm")
    assert found is not None
    assert (found.sure, found.version) == (True, "0.19.0")
    assert found.dialects == ("chat", "responses", "messages")
    [model] = found.models
    assert (model.context, model.tools, model.loaded) == (32768, None, True)
    assert seen("vllm", "llamacpp-loading") is None


def test_llama_cpp_tells_the_window_of_a_slot_and_what_its_template_can_do():
    """As its real server replied."""
    found = seen("llamacpp", "llamacpp")
    assert found is not None
    assert found.sure
    assert found.dialects == ("chat", "responses", "messages")
    [model] = found.models
    assert (model.name, model.context, model.context_possible) == ("tiny", 2048, 4096)
    assert (model.tools, model.loaded, model.size) == (True, True, 462592)


def test_llama_cpp_that_loads_is_there_and_not_of_use():
    found = seen("llamacpp", "llamacpp-loading")
    assert found is not None
    assert (found.sure, found.problem) == (True, "still loading its model")


def test_an_older_llama_cpp_lacks_what_it_does_not_answer():
    found = seen("llamacpp", "llamacpp", responses=Reply(status=404), messages=Reply(status=404),
                 props=Reply(status=404))  # fmt: skip
    assert found is not None
    assert found.dialects == ("chat",)
    assert [(model.context, model.tools) for model in found.models] == [(2048, None)]
    assert seen("llamacpp", "llamacpp", models=Reply(status=404)) is None


@pytest.mark.parametrize(
    ("able", "tools"),
    [
        ({"supports_tools": True, "supports_tool_calls": True}, True),
        ({"supports_tools": False, "supports_tool_calls": False}, False),
        ({"supports_tools": True, "supports_tool_calls": False}, None),
        ({}, None),
    ],
)
def test_a_template_that_shows_only_half_of_tools_is_unknown(able, tools):
    props = Reply(status=200, body={"chat_template_caps": able})
    found = seen("llamacpp", "llamacpp", props=props)
    assert found is not None
    assert found.models[0].tools == tools


def test_a_router_of_llama_cpp_tells_which_models_are_loaded():
    body = {"data": [{"id": "a", "status": {"value": "loaded"}},
                     {"id": "b", "status": {"value": "unloaded"}}]}  # fmt: skip
    found = seen("llamacpp", "llamacpp", models=Reply(status=200, body=body))
    assert found is not None
    told = [(model.name, model.loaded, model.context) for model in found.models]
    assert told == [("a", True, None), ("b", False, None)]


@pytest.mark.parametrize("kind", ["openai", "openai-compatible"])
def test_any_other_server_has_a_list_of_models(kind):
    found = seen(kind, "openai-compatible")
    assert found is not None
    assert [(model.name, model.context) for model in found.models] == [
        ("phi-4", None),
        ("big", 65536),
    ]
    assert seen(kind, "llamacpp-loading") is None


@pytest.mark.parametrize(
    ("messages", "responses", "dialects"),
    [
        (400, 404, ("chat", "messages")),
        (404, 422, ("chat", "responses")),
        (422, 400, ("chat", "messages", "responses")),
        (500, 404, ("chat",)),
    ],
)
def test_who_complains_of_an_empty_request_has_that_endpoint(messages, responses, dialects):
    found = seen(
        *("openai-compatible", "openai-compatible"),
        messages=Reply(status=messages),
        responses=Reply(status=responses),
    )
    assert found is not None
    assert found.dialects == dialects


@pytest.mark.parametrize("kind", sorted(SERVERS))
@pytest.mark.parametrize("other", ["ollama", "lmstudio", "vllm", "llamacpp", "openai-compatible"])
def test_no_kind_is_sure_of_another_ones_server(kind, other):
    found = seen(kind, other)
    if found is not None and kind not in {other, "openai-compatible"}:  # which all of them are
        assert not found.sure


@pytest.mark.parametrize("kind", sorted(SERVERS))
def test_who_lists_nothing_is_a_server_of_no_kind(kind):
    assert driven(SERVERS[kind], lambda _: Reply(status=404)) is None


@pytest.mark.no_cover
@settings(max_examples=examples(40))
@given(
    bodies=st.lists(ANYTHING, min_size=1, max_size=12), status=st.sampled_from([0, 200, 404, 503])
)
def test_whatever_a_server_says_no_kind_breaks(bodies, status):
    for kind in sorted(SERVERS):  # to draw what it says takes far longer than to read it
        replies = iter([Reply(status=status, body=body) for body in bodies * 200])
        found = driven(SERVERS[kind], partial(_next, replies, Reply(status=status)))
        assert found is None or isinstance(found, Seen), kind


def _next(replies: Iterator[Reply], otherwise: Reply, _: object) -> Reply:
    return next(replies, otherwise)


LISTS = st.lists(
    ANYTHING | st.fixed_dictionaries({"name": st.text(min_size=1), "id": ANYTHING}), max_size=4
)


@pytest.mark.no_cover
@settings(max_examples=examples(40))
@given(listed=LISTS, inner=ANYTHING)
def test_whatever_is_in_a_list_no_kind_breaks(listed, inner):
    named = [{"id": "m", "key": "m", "name": "m", "meta": inner, "capabilities": inner}]
    body = {
        "data": [*named, *listed],
        "models": [*named, *listed],
        "version": "1",
        "parameters": inner,
    }
    for kind in sorted(SERVERS):
        found = driven(SERVERS[kind], lambda _: Reply(status=200, body=body))
        assert found is not None, kind
        assert found.models[0].name == "m", kind


# --- getting and deleting ------------------------------------------------------------------------


def pulled(steps: Pull, *bodies: object, status: int = 200) -> tuple[list[object], str | None]:
    """The steps that a pull makes of the replies, and why it failed."""
    rest, made = iter(bodies), []
    reply: Reply | None = None
    step: object = next(steps)
    while True:
        made.append(step)
        reply = None
        if isinstance(step, Ask | Next):
            body = next(rest, rest)
            reply = None if body is rest else Reply(status=status, body=body)
        try:
            step = steps.send(reply)
        except StopIteration as end:
            return made, end.value


def pull_of(kind: str) -> Callable[[str], Generator[Any, Any, str | None]]:
    pull = SERVERS[kind].pull
    assert pull is not None
    return pull


def test_ollama_tells_how_far_a_download_is():
    layer = {"status": "pulling 9ba2", "digest": "sha256:9ba2", "total": 100, "completed": 40}
    made, why = pulled(
        pull_of("ollama")("m"), {"status": "pulling manifest"}, layer, {"status": "success"}
    )
    assert why is None
    assert made[0] == Ask(
        path="/api/pull", method="POST", body={"model": "m", "stream": True}, stream=True
    )
    assert [step for step in made if isinstance(step, Progress)] == [
        Progress(text="pulling manifest"),
        Progress(text="pulling 9ba2", done=40, total=100),
    ]


@pytest.mark.parametrize(
    ("bodies", "status", "why"),
    [
        (
            ({"status": "pulling manifest"}, {"error": "file does not exist"}),
            200,
            "file does not exist",
        ),
        (({"status": "pulling manifest"}, None), 200, "the download ended before it was whole"),
        ((None,), 502, "HTTP 502"),
        ((), 200, "the download ended before it was whole"),
    ],
)
def test_a_download_of_ollamas_that_fails_says_why(bodies, status, why):
    assert pulled(pull_of("ollama")("m"), *bodies, status=status)[1] == why


def test_lm_studio_is_asked_until_the_download_has_ended():
    begun = {"job_id": "job_1", "status": "downloading", "total_size_bytes": 100}
    going = {**begun, "downloaded_bytes": 60}
    made, why = pulled(pull_of("lmstudio")("m"), begun, going, {"status": "completed"})
    assert why is None
    assert made == [
        Ask(path="/api/v1/models/download", method="POST", body={"model": "m"}),
        Progress(text="downloading", total=100),
        Pause(seconds=1.0),
        Ask(path="/api/v1/models/download/status/job_1"),
        Progress(text="downloading", done=60, total=100),
        Pause(seconds=1.0),
        Ask(path="/api/v1/models/download/status/job_1"),
    ]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"status": "already_downloaded"}, None),
        ({"error": {"message": "no such model"}}, "no such model"),
        ({"error": "Unexpected endpoint or method."}, "Unexpected endpoint or method."),
        ({"job_id": "j", "status": "failed"}, "failed"),
        ({"status": "downloading"}, "downloading"),
        (None, "no answer of its kind"),
    ],
)
def test_a_download_of_lm_studios_ends_at_once(body, why):
    assert pulled(pull_of("lmstudio")("m"), body)[1] == why
    assert pulled(pull_of("lmstudio")("m"))[1] == "no answer of its kind"


def test_ollama_deletes_a_model():
    remove = SERVERS["ollama"].remove
    assert remove is not None
    assert remove("m") == Ask(path="/api/delete", method="DELETE", body={"model": "m"})


@pytest.mark.parametrize(
    ("version", "wanted", "is_it"),
    [("0.13.4", (0, 13, 4), True), ("0.13", (0, 13, 4), False), ("1.0", (0, 14), True),
     ("v0.14.0-rc2", (0, 14), True), ("", (0,), False), (None, (0,), False), ("dev", (0,), False)],
)  # fmt: skip
def test_versions_are_compared_by_number(version, wanted, is_it):
    assert at_least(version, *wanted) == is_it


def test_ollama_tells_until_when_a_model_is_held_and_so_that_it_was_used():
    loaded = [{"name": "a:1", "expires_at": "then"}, {"name": "b:1", "expires_at": "later"}]
    use = SERVERS["ollama"].use
    assert use(Reply(status=200, body={"models": loaded}), "b:1") == "later"
    assert use(Reply(status=200, body={"models": loaded}), "c:1") is None
    assert use(Reply(status=200, body={"models": []}), "a:1") is None


# --- what was used --------------------------------------------------------------------------------

METRICS = """# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="qwen"} 1200.0
vllm:prompt_tokens_total{engine="0",model_name="qwen-2"} 7.0
vllm:num_requests_running{engine="0",model_name="qwen"} 0.0
"""


@pytest.mark.parametrize(
    ("kind", "reply", "mark"),
    [
        ("vllm", Reply(status=200, text=METRICS), "1200.0"),
        ("vllm", Reply(status=200, text="# nothing is counted"), None),
        ("llamacpp", Reply(status=200, body=[{"id": 0, "id_task": 3}, {"id": 1}]), "0:3"),
        ("llamacpp", Reply(status=200, body=[{"id": 0}]), None),
        ("llamacpp", Reply(status=501, body={"error": {"code": 501}}), None),
        ("lmstudio", Reply(status=200, body={"models": [{"key": "qwen"}]}), None),
        ("lmstudio", Reply(status=200, body={"models": []}), None),
        (
            "lmstudio",
            Reply(
                status=200, body={"models": [{"key": "qwen", "loaded_instances": [{"id": "a"}]}]}
            ),
            "loaded",
        ),
    ],
)
def test_what_a_server_says_of_the_use_of_a_model(
    kind: str, reply: Reply, mark: str | None
) -> None:
    assert SERVERS[kind].use(reply, "qwen") == mark


def test_only_a_server_that_counts_answers_can_say_that_there_was_none():
    counts = {
        name for name, kind in SERVERS.items() if kind.ask_use is not None and kind.use_counts
    }
    assert counts == {"ollama", "vllm", "llamacpp"}
    assert SERVERS["lmstudio"].ask_use is not None
