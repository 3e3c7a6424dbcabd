"""Names and addresses of model servers."""

import pytest

from orchestrator.errors import ConfigError
from orchestrator.server import (
    Model,
    ModelServer,
    Reply,
    address_of,
    count_of,
    find_model,
    flag_of,
    inner,
    is_remote,
    items,
    text_of,
    texts_of,
)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("http://127.0.0.1:11434/", "http://127.0.0.1:11434"),
        ("http://127.0.0.1:1234/v1", "http://127.0.0.1:1234"),
        ("http://127.0.0.1:1234/v1/", "http://127.0.0.1:1234"),
        ("http://127.0.0.1:11434/api", "http://127.0.0.1:11434"),
        ("http://desk/team/a/v1", "http://desk/team/a"),
        ("https://desk.example", "https://desk.example"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:9", "http://127.0.0.1:9"),
        ("http://0.0.0.0", "http://127.0.0.1"),
        ("[::]:9", "http://[::1]:9"),
        ("[fe80::1]:9", "http://[fe80::1]:9"),
        (":9", "http://127.0.0.1:9"),
        ("desk", "http://desk:11434"),
        ("desk:9/v1", "http://desk:9"),
        ("localhost", "http://localhost:11434"),
        (' "desk:9" ', "http://desk:9"),
    ],
)
def test_an_address_has_one_form_however_it_was_written(url, address):
    assert address_of(url, 11434) == address


@pytest.mark.parametrize(
    "url", ["ftp://desk", "http://desk:99999", "http://[::", "a b", "http://x\\y"]
)
def test_what_is_no_address_is_said_so(url):
    with pytest.raises(ConfigError, match="not an address") as caught:
        address_of(url)
    assert "http://127.0.0.1:11434" in (caught.value.hint or "")


def test_a_user_in_a_url_is_not_connected_to():
    assert address_of("http://me:secret@desk:9") == "http://desk:9"


MODELS = (Model(name="qwen:14b"), Model(name="mine:latest"), Model(name="m@q8", aliases=("m:2",)))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("qwen:14b", "qwen:14b"),
        ("mine", "mine:latest"),
        ("mine:latest", "mine:latest"),
        ("qwen", None),
        ("qwen:14b@q4", "qwen:14b"),
        ("m", "m@q8"),
        ("m:2", "m@q8"),
    ],
)
def test_a_model_is_found_by_what_people_call_it(name, found):
    model = find_model(MODELS, name)
    assert (model and model.name) == found


def test_a_gateway_that_takes_any_model_has_each():
    found = find_model((*MODELS, Model(name="*")), "anything")
    assert found == Model(name="*")


def test_a_clouds_model_is_known_by_its_name():
    assert is_remote("gpt-oss:120b-cloud")
    assert is_remote("glm-4.6:cloud")
    assert not is_remote("cloud-coder:7b")


def test_nothing_else_than_what_was_meant_is_read():
    assert items([{"a": 1}, 1, {}, None]) == [{"a": 1}]
    assert items({"a": 1}) == []
    assert inner({"a": {"b": 2}}, "a", "b") == 2
    assert inner([1], "a") is None
    assert [count_of(value) for value in (5, 0, -1, True, 5.0, "5")] == [5, *[None] * 5]
    assert [flag_of(value) for value in (True, False, 1, None)] == [True, False, None, None]
    assert [text_of(value) for value in ("a", "", 1)] == ["a", None, None]
    assert texts_of(["a", 1]) == ("a",)
    assert texts_of("a") == ()


def test_a_kind_that_cannot_look_sees_nothing():
    with pytest.raises(StopIteration):
        next(ModelServer(name="x", title="X", port=1).look())


def test_a_kind_that_cannot_tell_what_was_used_says_nothing():
    kind = ModelServer(name="plain", title="Plain", port=None)
    assert kind.use(Reply(status=200, body={"models": []}), "x") is None
