"""The gateway's command and configuration."""

import json

from adapters.gateway import configuration, gateway
from orchestrator.adapter import Upstream

UPSTREAM = Upstream(kind="openai-compatible", base_url="http://127.0.0.1:1", models=("a", "b"))


def test_it_knows_one_server_and_of_that_the_models_it_is_told():
    made = configuration(UPSTREAM)
    assert [one["model_name"] for one in made["model_list"]] == ["a", "b"]  # type: ignore[attr-defined]
    where = [one["litellm_params"] for one in made["model_list"]]  # type: ignore[attr-defined]
    assert {one["api_base"] for one in where} == {"http://127.0.0.1:1/v1"}
    assert [one["model"] for one in where] == ["lm_studio/a", "lm_studio/b"]
    assert {one["api_key"] for one in where} == {"none"}


def test_neither_argv_nor_configuration_holds_a_key():
    upstream = Upstream(kind="x", base_url="http://h", models=("m",), key_from="DESK_KEY")
    command = gateway.command("/v/bin/mini", upstream, folder="/state/g", key_from="OURS")
    assert command.argv[0] == "/v/bin/python"
    assert command.argv[-1] == "/state/g/gateway.yaml"
    assert command.env_from == {"LITELLM_MASTER_KEY": "OURS", "UPSTREAM_KEY": "DESK_KEY"}
    assert command.secrets == ("LITELLM_MASTER_KEY", "UPSTREAM_KEY")
    made = json.loads(command.files["/state/g/gateway.yaml"])
    assert made["model_list"][0]["litellm_params"]["api_key"] == "os.environ/UPSTREAM_KEY"


def test_an_interpreter_is_taken_as_it_is():
    command = gateway.command("/v/bin/python3", UPSTREAM, folder="/g", key_from="OURS")
    assert command.argv[0] == "/v/bin/python3"
    assert command.env_from == {"LITELLM_MASTER_KEY": "OURS"}
