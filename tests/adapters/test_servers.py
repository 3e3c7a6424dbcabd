"""The kinds of model server that come with the product."""

from importlib.metadata import entry_points
from urllib.parse import urlsplit

import pytest

from orchestrator.server import ModelServer

SERVERS: dict[str, ModelServer] = {
    entry.name: entry.load() for entry in entry_points(group="orchestrator.servers")
}


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_server_is_what_its_entry_point_says(name):
    server = SERVERS[name]
    assert isinstance(server, ModelServer)
    assert server.name == name
    assert "chat" in server.dialects
    assert all(variable.isupper() for variable in (*server.url_env, *server.model_env))
    assert server.list_models


def test_local_ones_have_a_port_and_a_way_to_start_them_and_a_cloud_has_an_address():
    assert {name for name, server in SERVERS.items() if not server.local} == {"openai"}
    for server in SERVERS.values():
        assert (server.port is not None) == (server.start is not None) == server.local
        assert (server.base_url is None) == server.local
    assert urlsplit(SERVERS["openai"].base_url or "").scheme == "https"


def test_the_usual_ports():
    ports = {name: server.port for name, server in SERVERS.items() if server.local}
    assert ports == {"ollama": 11434, "lmstudio": 1234, "vllm": 8000, "llamacpp": 8080}
