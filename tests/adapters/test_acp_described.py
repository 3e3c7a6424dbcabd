"""An agent that a configuration describes and that speaks ACP: what is started, what is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from adapters.acp import AcpConversation
from adapters.acp.described import OPTIONS, adapter
from orchestrator.adapter import Agent
from orchestrator.errors import ConfigError
from orchestrator.events import Notice
from orchestrator.task import Task

TASK = Task(prompt="Fix it.", workspace=Path("/repo"), kind="fix")


def agent(**options: object) -> Agent:
    return Agent(
        name="mine",
        adapter="acp",
        model="coder",
        base_url="localhost:1234/v1",
        home="/home",
        options={"command": ["goose", "acp"], **options},
    )


def test_a_command_alone_is_enough() -> None:
    command = adapter.command(TASK, agent())
    assert command.argv == ("goose", "acp")
    assert command.stdin == "open"
    assert command.env == {"HOME": "/home"}
    about = adapter.about_for(agent())
    assert about.program is not None
    assert (about.program.name, about.title, about.enforces) == ("goose", "goose", ())


def test_placeholders_are_filled_in_and_a_variable_without_a_value_is_left_out() -> None:
    words = ["goose", "--model={model}", "{openai_url}"]
    env = {"URL": "{base_url}", "HERE": "{workspace}:{home}", "PLAIN": "{ not one }"}
    described = agent(command=words, env=env)
    command = adapter.command(TASK, replace(described, program="/opt/goose"))
    assert command.argv == ("/opt/goose", "--model=coder", "http://localhost:1234/v1")
    assert command.env["URL"] == "http://localhost:1234"
    assert command.env["HERE"] == "/repo:/home"
    assert command.env["PLAIN"] == "{ not one }"
    nowhere = replace(agent(env=env), base_url=None, home=None)
    command = adapter.command(TASK, nowhere)
    assert set(command.env) == {"PLAIN"}
    assert command.env_from["HOME"] == "HOME"


def test_files_are_there_in_a_private_home_alone() -> None:
    described = agent(command=["x"], files={"{home}/.config/a.json": "{model}"})
    assert adapter.command(TASK, described).files == {"/home/.config/a.json": b"{model}"}
    assert adapter.command(TASK, replace(described, home=None)).files == {}


def test_what_a_command_needs_and_has_not_is_told() -> None:
    with pytest.raises(ConfigError, match="has no value here"):
        adapter.command(TASK, replace(agent(command=["x", "{model}"]), model=None))


def test_a_key_goes_by_the_name_that_the_agent_expects() -> None:
    described = agent(key_env="GOOSE_KEY", env={"GOOSE_KEY": "none"}, env_from=["OTHER"])
    command = adapter.command(TASK, replace(described, api_key_env="MY_KEY"))
    assert command.env_from == {"GOOSE_KEY": "MY_KEY", "OTHER": "OTHER"}
    assert command.secrets == ("GOOSE_KEY",)
    assert "GOOSE_KEY" not in command.env
    assert adapter.command(TASK, described).env["GOOSE_KEY"] == "none"
    plain = adapter.command(TASK, replace(agent(), api_key_env="MY_KEY"))
    assert plain.env_from == {"MY_KEY": "MY_KEY"}


def talk(described: Agent, task: Task = TASK) -> AcpConversation:
    return adapter.conversation(task, described, None)


def test_mode_model_and_login_are_those_that_are_described() -> None:
    manner = talk(agent(mode={"edit": "code"}, auth="key", title="Goose")).manner
    assert (manner.mode, manner.auth, manner.title) == ("code", "key", "Goose")
    assert manner.model == "coder"
    assert talk(agent(mode={"read": "plan"})).manner.mode is None
    assert talk(agent(mode="code")).manner.mode == "code"
    assert talk(agent(command=["x", "{model}"])).manner.model is None
    assert talk(agent(permissions="deny")).manner.permissions == "deny"


@pytest.mark.parametrize(
    ("access", "enforces", "noted"),
    [("edit", [], True), ("edit", ["edit"], False), ("read", ["edit"], True), ("full", [], False)],
)
def test_what_it_is_not_known_to_be_held_to_is_said(
    access: str, enforces: list[str], noted: bool
) -> None:
    task = replace(TASK, access=access)  # type: ignore[arg-type]
    said = list(talk(agent(enforces=enforces), task).start())
    assert any(isinstance(one, Notice) for one in said) == noted


def test_what_it_can_be_held_to_and_speaks_is_known_of_it() -> None:
    about = adapter.about_for(
        agent(
            enforces=["read"],
            dialects=["chat"],
            version_argv=["--version"],
            install="brew install goose",
            key_env="K",
        )
    )
    assert (about.enforces, about.dialects) == (("read",), ("chat",))
    assert (about.version_argv, about.install) == (("--version",), "brew install goose")
    assert about.key_env == "K"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"command": []}, "'command' is list"),
        ({"command": "goose acp"}, "'command' is list"),
        ({"command": ["x", "{modle}"]}, "no placeholder {modle}"),
        ({"env": {"A": 1}}, "'env' is table"),
        ({"files": {"/etc/x": "y"}}, "'files' is table"),
        ({"files": {"{home}/../x": "y"}}, "'files' is table"),
        ({"files": {"{home}/{where}": "y"}}, "no placeholder {where}"),
        ({"mode": {"reed": "x"}}, "'mode' is the id"),
        ({"mode": 1}, "'mode' is the id"),
        ({"enforces": ["everything"]}, "'enforces' is list"),
        ({"dialects": "chat"}, "'dialects' is list"),
        ({"auth": ""}, "'auth' is the id"),
        ({"nonsense": 1}, "no option 'nonsense' (known: command"),
        ({"permissions": "maybe"}, "'permissions' is access"),
    ],
)
def test_a_wrong_description_is_told_by_its_key(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        adapter.about_for(agent(**options))
    assert told in str(raised.value)
    assert "agent 'mine'" in str(raised.value)


def test_without_a_command_there_is_nothing_to_start() -> None:
    with pytest.raises(ConfigError, match="needs the option 'command'"):
        adapter.about_for(Agent(name="mine", adapter="acp"))


def test_every_option_stands_in_the_page() -> None:
    page = Path(__file__).parent.parent.parent.joinpath("docs/add-an-agent.md").read_text()
    assert [name for name in OPTIONS if f"`{name}`" not in page] == []
