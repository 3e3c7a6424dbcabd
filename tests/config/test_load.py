"""Which agents there are: what is read, who is trusted, which rung wins, and what is told of it."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.config import (
    Adapters,
    Config,
    agents_for,
    check_adapter,
    default_url,
    expanded,
    load_config,
    places_of,
    plugins,
    port_of,
    tier_of,
)
from orchestrator.discovery import look
from orchestrator.document import SIZE_LIMIT
from orchestrator.errors import ConfigError
from orchestrator.server import ModelServer
from orchestrator.task import Limits
from tests.config.places import agent, found, named, project, user, write
from tests.examples import examples

# --- which files are read -------------------------------------------------------------------------


def test_without_any_file_there_are_adapters_and_servers_and_no_configured_agent(home):
    config = found(home)
    assert config.agents == ()
    assert {"codex", "jsonl", "litellm", "mine"} <= set(config.adapters)
    assert {"ollama", "lmstudio", "vllm", "llamacpp", "openai", "cloudy"} <= set(config.servers)
    assert config.limits == Limits()
    assert config.state == home / "home" / ".local" / "state" / "orchestrate"
    assert config.agents_folder == home / "home" / ".local" / "share" / "orchestrate" / "agents"


def test_agents_come_in_file_order_the_projects_first(home):
    project(home, '[agents.z]\nadapter = "mine"\n[agents.a]\nadapter = "mine"\n')
    user(home, '[agents.m]\nadapter = "mine"\n[agents.b]\nadapter = "mine"\n')
    assert [each.name for each in found(home).agents] == ["z", "a", "m", "b"]


def test_a_named_file_is_the_only_one_read(home):
    project(home, "not toml")
    user(home, "not toml")
    config = named(home, '[agents.a]\nadapter = "mine"\n')
    assert [each.name for each in config.agents] == ["a"]


def test_a_file_can_be_named_by_a_variable(home):
    project(home, "not toml")
    path = write(home / "other.toml", '[agents.a]\nadapter = "mine"\nbase_url = "desk:1"\n')
    config = found(home, {"ORCHESTRATE_CONFIG": str(path)})
    assert agent(config, "a").base_url == "desk:1"


def test_records_go_where_the_variable_says(home, monkeypatch):
    monkeypatch.chdir(home)
    assert found(home, {"ORCHESTRATE_STATE_DIR": "state"}).state == home / "state"


def test_the_environment_is_kept_and_never_shown(home):
    config = found(home, {"SECRET_KEY": "sk-geheim"})
    assert config.environ["SECRET_KEY"] == "sk-geheim"
    assert "geheim" not in repr(config)


def test_without_an_environment_the_process_own_is_read(home, monkeypatch):
    monkeypatch.setenv("OF_MINE", "here")
    assert load_config(folder=home / "project").environ["OF_MINE"] == "here"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_not_read(home, kind):
    place = home / "project" / "orchestrate.toml"
    if kind == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    assert found(home).agents == ()


# --- what is wrong with a file --------------------------------------------------------------------

WRONG = {
    "no TOML": ("a = ", "not TOML: Invalid value"),
    "not UTF-8": (b"a = '\xff'", "not TOML: 'utf-8' codec can't decode byte 0xff"),
    "a long number": (f"a = {'9' * 5000}", "not TOML: "),
    "too deep": (f"a = {'[' * 100_000}", "not TOML that can be read: nested too deeply"),
    "too large": (b"#" * (SIZE_LIMIT + 1), f"the file has more than {SIZE_LIMIT} bytes"),
    "an unknown table": ("[agent]\nx = 1", "agent: unknown key; did you mean `agents`?"),
    "an unknown key": (
        "zzz = 1",
        "zzz: unknown key; known: agents, defaults, kinds, limits, queue, servers",
    ),
    "an unknown default": (
        '[defaults]\nagents = "x"',
        "defaults.agents: unknown key; did you mean `agent`?",
    ),
    "a bad default": (
        "[defaults]\nagent = 3",
        "defaults.agent: found the number 3; allowed: a text (put it in quotes)",
    ),
    "a bad limit": (
        '[limits]\nwall = "1 day"',
        "limits.wall: found '1 day'; allowed: a duration above 0, such as 90s, 30m or 2h",
    ),
    "an endless limit": ("[limits]\nwall = inf", "limits.wall: found the number inf; allowed: a"),
    "a limit of many digits": (
        f"[limits]\nwall = {10**400}",
        f"limits.wall: found the number 1{'0' * 36}...; allowed: a duration above 0",
    ),
    "a misspelt limit": (
        "[limits]\ncost = 3",
        "limits.cost: unknown key; did you mean `cost_usd`?",
    ),
    "a server without a kind": ("[servers.desk]", "servers.desk.kind: required, but not there"),
    "a misspelt key of a server": (
        '[servers.desk]\nkind = "ollama"\nbaseurl = "x"',
        "servers.desk.baseurl: unknown key; did you mean `base_url`?",
    ),
    "a key of a server instead of its name": (
        '[servers.desk]\nkind = "ollama"\napi_key = "geheim"',
        "servers.desk.api_key: unknown key; did you mean `api_key_env`?",
    ),
    "a secret instead of its variable": (
        '[servers.desk]\nkind = "ollama"\napi_key_env = "sk-geheim"',
        "servers.desk.api_key_env: found another text (not shown here, it may be secret); allowed",
    ),
    "a bad address": (
        '[agents.a]\nadapter = "mine"\nbase_url = "http://me:pw@x"',
        "agents.a.base_url: found 'http://me:pw@x'; allowed: an address such as ",
    ),
    "a mistyped adapter": (
        '[agents.a]\nadaptor = "codex"',
        "agents.a.adapter: required, but not there (is it meant by `adaptor`?)",
    ),
    "an agent without an adapter": ("[agents.a]", "agents.a.adapter: required, but not there"),
    "a bad tier": (
        '[agents.a]\nadapter = "mine"\ntier = "near"',
        "agents.a.tier: found 'near'; allowed: local, cloud",
    ),
    "a date for a model": (
        '[agents.a]\nadapter = "mine"\nmodel = 2026-01-01',
        "agents.a.model: found 2026-01-01; allowed: a text",
    ),
    "a name of nothing": ('[agents.""]\nadapter = "mine"', "agents.: found ''; allowed: a text"),
    "a list of agents": ("agents = []", "agents: found a list; allowed: a mapping"),
    "a default under limits": (
        '[limits]\nstrategy = "auto"',
        "limits.strategy: unknown key here; it stands under [defaults]",
    ),
    "a limit under defaults": (
        '[defaults]\nprivacy = "local"',
        "defaults.privacy: unknown key here; it stands under [limits]",
    ),
    "a limit under nothing": (
        "cost_usd = 3.0",
        "cost_usd: unknown key here; it stands under [limits]",
    ),
    "a limit of nobody": (
        "[limits]\nagents = []",
        "limits.agents: found a list; allowed: at least",
    ),
    "a bad strategy": (
        '[defaults]\nstrategy = "fast"',
        "defaults.strategy: found 'fast'; allowed: auto, local, cloud, cascade",
    ),
    "a table twice": (
        "[limits]\n[limits]",
        "not TOML: Cannot declare ('limits',) twice",
    ),
    "a key twice": (
        "[limits]\nsteps = 1\nsteps = 2",
        "not TOML: Cannot overwrite a value",
    ),
    "tables that are deep": (
        f"agents.a = {'{x = ' * 60}1{'}' * 60}",
        "nested deeper than 50 levels",
    ),
    "keys that are very deep": (
        "[agents.a" + '. "x"' * 100_000 + "]",
        "not TOML that can be read: nested too deeply",
    ),
    "a list of tables of agents": ("[[agents]]\nx = 1", "agents: found a list; allowed: a mapping"),
    "a slot of nothing": (
        '[servers.s]\nkind = "ollama"\nslots = 0',
        "servers.s.slots: found the number 0; allowed: greater than or equal to 1",
    ),
    "a text for an agent": ('[agents]\na = "x"', "agents.a: found 'x'; allowed: a mapping"),
}


@pytest.mark.parametrize(("text", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_file_and_key_and_what_is_allowed(home, text, problem):
    path = home / "named.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    assert re.sub(r"(?<=\.toml):[1-3](:[0-9]+)?:", ":", str(caught.value)).startswith(
        f"{path}: {problem}"
    )
    assert "geheim" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[limits]\nsteps = 1\nsteps = 2", "3:1"),
        ("[limits]\n[limits]\n", "2:8"),
        ("a =", "1:1"),
        ("# a\na = ?", "2:5"),
    ],
)
def test_where_a_file_is_not_toml_is_told_like_every_other_place(home, text, where):
    with pytest.raises(ConfigError) as caught:
        named(home, text)
    assert str(caught.value).startswith(f"{home / 'named.toml'}:{where}: not TOML: ")


def test_each_problem_has_a_line(home):
    with pytest.raises(ConfigError) as caught:
        named(home, "zzz = 1\n\n[agents.a]\n[servers.desk]\nkind = 'x'\n\nlocal = 3\nslot = 1\n")
    path = home / "named.toml"
    assert str(caught.value).splitlines() == [
        f"{path}:1: zzz: unknown key; known: agents, defaults, kinds, limits, queue, servers",
        f"{path}:3: agents.a.adapter: required, but not there",
        f"{path}:7: servers.desk.local: found the number 3; allowed: a valid boolean",
        f"{path}:8: servers.desk.slot: unknown key; did you mean `slots`?",
    ]


@pytest.mark.parametrize("text", ["\ufeff[limits]\nsteps = 3\n", "[limits]\r\nsteps = 3\r\n"])
def test_a_file_of_another_systems_editor_is_read(home, text):
    path = home / "named.toml"
    path.write_bytes(text.encode())
    assert load_config(path, environ={}).limits.steps == 3


def test_the_file_of_the_design_parses_as_it_is_shown(home):
    config = named(
        home,
        """
[defaults]
strategy = "cascade"
[limits]
cost_usd = 5.00
[servers.desk]               # a model server by name; loopback ones are found without this
kind = "ollama"
base_url = "http://desk.example:11434"
local = true                 # the owner declares that this host counts as local
slots = 1
[agents.aider-qwen]
adapter = "aider"
model = "desk/qwen2.5-coder:32b"
[agents.claude]
adapter = "claude"
model = "claude-opus-5-5"
api_key_env = "ANTHROPIC_API_KEY"
[kinds]
search = "cheap"
review = "claude"             # a class, or an agent: the cost split in one line
""",
    )
    assert config.defaults.strategy == "cascade"
    assert config.kinds == {"search": "cheap", "review": "claude"}
    desk, claude = config.agents
    assert (desk.model, desk.tier, claude.tier) == ("qwen2.5-coder:32b", "local", "cloud")


def test_a_named_file_that_is_not_there_is_told(home):
    with pytest.raises(ConfigError, match=r"cannot read .*/none\.toml: No such file"):
        load_config(home / "none.toml", environ={})


def test_names_of_files_and_keys_cannot_break_a_line(home):
    path = write(home / "a\nb\x1b.toml", '"k\\n\\u001b[2J" = 1')
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    assert str(caught.value).isprintable()
    assert r"a\nb\x1b.toml:1: k\n\x1b[2J: unknown key" in str(caught.value)


TOMLISH = st.lists(
    st.sampled_from(
        ["[agents.a]\n", "[servers.b]\n", "[limits]\n", "[defaults]\n", "adapter", "kind", "model",
         "base_url", "wall", "agent", "tier", "zzz", " = ", '"mine"', '"x"', "3", "true", "[1]",
         "nan", "1e999", "2026-01-01", "{}", "\n", '"', "'"]
    ),
    max_size=15,
).map("".join)  # fmt: skip


@settings(max_examples=examples(40))
@given(text=TOMLISH | st.text(max_size=30))
def test_any_text_is_a_configuration_or_a_config_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_config(path, environ={})
    except ConfigError as error:
        problem = str(error)
    else:
        return
    assert "Input should" not in problem
    assert all(line.isprintable() for line in problem.split("\n"))


# --- who is trusted -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        *(
            (f'[agents.a]\nadapter = "mine"\n{key} = {value}', f"agents.a.{key}")
            for key, value in {
                "argv": '["sh"]',
                "env": '{X = "1"}',
                "env_from": '["X"]',
                "base_url": '"http://evil.example"',
                "api_key_env": '"OPENAI_API_KEY"',
                "tier": '"local"',
                "program": '"./evil"',
                "sandbox": '"off"',
            }.items()
        ),
        *(
            (f'[servers.s]\nkind = "ollama"\n{key} = {value}', f"servers.s.{key}")
            for key, value in {
                "base_url": '"http://evil.example"',
                "api_key_env": '"OPENAI_API_KEY"',
                "local": "true",
            }.items()
        ),
    ],
)
def test_a_file_that_was_only_found_may_not_say_it_and_a_named_one_may(home, text, refused):
    path = project(home, text)
    with pytest.raises(ConfigError) as caught:
        found(home)
    assert str(caught.value) == (
        f"{path}:3: not trusted to set {refused}: the file was found, not named"
    )
    assert caught.value.hint == (
        f"If you trust it: `orchestrate config trust {path.parent}` (it shows what that allows)."
    )
    assert load_config(path, environ={}).limits == Limits()


def test_all_that_is_refused_is_named_at_once(home):
    project(home, '[agents.a]\nadapter = "mine"\ntier = "local"\nargv = []\n'
                  '[servers.s]\nkind = "ollama"\nlocal = true')  # fmt: skip
    with pytest.raises(ConfigError, match=r"agents\.a\.argv, agents\.a\.tier, servers\.s\.local:"):
        found(home)


def test_the_users_own_file_is_trusted(home):
    user(home, '[agents.a]\nadapter = "mine"\nbase_url = "http://desk:1"\ntier = "local"')
    assert agent(found(home), "a").base_url == "http://desk:1"


def test_a_found_file_may_name_adapter_model_server_and_profile(home):
    project(home, '[agents.a]\nadapter = "mine"\nmodel = "m"\nserver = "ollama"\nprofile = "user"')
    one = agent(found(home), "a")
    assert (one.model, one.server, one.profile, one.tier) == ("m", "ollama", "user", "local")


def test_a_found_file_cannot_send_the_users_agent_elsewhere(home):
    user(
        home,
        """
[servers.desk]
kind = "ollama"
base_url = "http://desk:11434"
api_key_env = "DESK_KEY"
local = true
[agents.mine]
adapter = "mine"
model = "desk/qwen"
""",
    )
    project(
        home,
        """
[servers.desk]
kind = "cloudy"
[agents.mine]
adapter = "mine"
server = "cloudy"
""",
    )
    one = agent(found(home), "mine")
    assert (one.base_url, one.server, one.model) == ("http://desk:11434", "ollama", "qwen")
    assert (one.tier, one.api_key_env) == ("local", "DESK_KEY")


# --- limits and defaults --------------------------------------------------------------------------


def test_limits_of_both_files_meet(home):
    project(home, '[limits]\nwall = "10m"\ncost_usd = 50.0\nsteps = 7')
    user(home, '[limits]\nwall = "1h"\ncost_usd = 2.5\nstall = "90s"')
    assert found(home).limits == Limits(wall_s=600, cost_usd=2.5, steps=7, stall_s=90)


def test_the_projects_default_agent_goes_before_the_users(home):
    user(home, '[defaults]\nagent = "u"\n[agents.u]\nadapter = "mine"')
    assert found(home).default_agent == "u"
    project(home, '[defaults]\nagent = "p"\n[agents.p]\nadapter = "mine"')
    assert found(home).default_agent == "p"


# --- agents and their servers ---------------------------------------------------------------------

DESK = """
[servers.desk]
kind = "ollama"
base_url = "http://desk.example:11434"
api_key_env = "DESK_KEY"
local = true
[agents.a]
adapter = "mine"
"""


@pytest.mark.parametrize(
    ("written", "server", "base_url", "model", "tier"),
    [
        ('model = "desk/qwen2.5-coder:32b"', "ollama", "http://desk.example:11434",
         "qwen2.5-coder:32b", "local"),
        ('model = "desk/a/b"', "ollama", "http://desk.example:11434", "a/b", "local"),
        ('server = "desk"\nmodel = "desk/x"', "ollama", "http://desk.example:11434", "desk/x",
         "local"),
        ('server = "desk"', "ollama", "http://desk.example:11434", None, "local"),
        ('model = "lmstudio-community/Meta-Llama-3-8B"', None, None,
         "lmstudio-community/Meta-Llama-3-8B", "cloud"),
        ('model = "mistral:7b"', None, None, "mistral:7b", "cloud"),
        ('model = "ollama/x"', "ollama", "http://127.0.0.1:11434", "x", "local"),
        ('model = "ollama/x"\nbase_url = "http://127.0.0.1:1"', None, "http://127.0.0.1:1",
         "ollama/x", "local"),
        ('model = "desk"', None, None, "desk", "cloud"),
        ('server = "ollama"\nmodel = "x"', "ollama", "http://127.0.0.1:11434", "x", "local"),
        ('server = "cloudy"', "cloudy", "https://api.cloudy.example/v1", None, "cloud"),
        ('base_url = "http://127.0.0.1:1"', None, "http://127.0.0.1:1", None, "local"),
        ('base_url = "http://10.0.0.1:1"', None, "http://10.0.0.1:1", None, "cloud"),
        ('base_url = "http://10.0.0.1:1"\ntier = "local"', None, "http://10.0.0.1:1", None,
         "local"),
        ('server = "ollama"\nbase_url = "http://10.0.0.1:1"', "ollama", "http://10.0.0.1:1", None,
         "cloud"),
        ('base_url = "127.0.0.1:1/v1/"', None, "127.0.0.1:1/v1/", None, "local"),
    ],
)  # fmt: skip
def test_a_model_is_at_a_server_only_if_one_is_named_so(
    home, written, server, base_url, model, tier
):
    one = agent(named(home, DESK + written), "a")
    assert (one.server, one.base_url, one.model, one.tier) == (server, base_url, model, tier)


def test_a_server_that_is_said_not_to_be_local_is_a_cloud(home):
    text = '[servers.s]\nkind = "ollama"\nlocal = false\n[agents.a]\nadapter = "mine"\nserver = "s"'
    assert agent(named(home, text), "a").tier == "cloud"


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ('server = "desk"', "DESK_KEY"),
        ('server = "desk"\napi_key_env = "OWN_KEY"', "OWN_KEY"),
        ('server = "desk"\nbase_url = "https://elsewhere.example"', None),
        ('server = "desk"\nbase_url = "https://elsewhere.example"\napi_key_env = "OWN"', "OWN"),
        ('server = "ollama"', None),
    ],
)
def test_a_servers_key_never_travels_to_another_address(home, written, key):
    assert agent(named(home, DESK + written), "a").api_key_env == key


def test_what_the_owner_says_of_a_server_is_not_for_another_address(home):
    written = 'server = "desk"\nbase_url = "https://elsewhere.example"'
    assert agent(named(home, DESK + written), "a").tier == "cloud"


@pytest.mark.parametrize(
    ("written", "profile"),
    [
        ("", "user"),
        ('server = "desk"', "clean"),
        ('base_url = "https://x.example"', "clean"),
        ('server = "desk"\nprofile = "user"', "user"),
        ('profile = "clean"', "clean"),
    ],
)
def test_the_users_own_settings_are_used_in_the_cloud_unless_said_otherwise(home, written, profile):
    assert agent(named(home, DESK + written), "a").profile == profile


def test_what_is_not_common_to_all_agents_is_the_adapters_option(home):
    one = agent(named(home, DESK + 'sandbox = "off"\nextra = {x = [1]}'), "a")
    assert one.options == {"sandbox": "off", "extra": {"x": [1]}}


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        (
            '[agents.a]\nadapter = "codx"',
            r"agent 'a': no adapter 'codx' \(known: .*codex, .*crashing, .*jsonl, .*litellm, ",
            "Did you mean 'codex'?",
        ),
        ('[agents.a]\nadapter = "zzz"', r"named\.toml:1: agent 'a': no adapter 'zzz'", None),
        (
            '\n[agents.a]\nadapter = "mine"\nlogin = true\napi_key_env = "K"',
            r"named\.toml:2: agent 'a': `login = true` and `api_key_env` exclude each other",
            None,
        ),
        (
            '[agents.a]\nadapter = "mine"\nserver = "dsk"\n[servers.desk]\nkind = "ollama"',
            r"agent 'a': no server 'dsk' \(known: cloudy, desk, llamacpp, ",
            None,
        ),
        (
            '[agents.a]\nadapter = "mine"\nserver = "s"\n[servers.s]\nkind = "olama"',
            "agent 'a': no server 'olama'",
            None,
        ),
    ],
)
def test_what_an_agent_names_must_be_there(home, text, why, hint):
    with pytest.raises(ConfigError, match=why) as caught:
        named(home, text)
    assert caught.value.hint == hint


def test_a_default_agent_that_is_not_there_is_told_with_the_place_that_names_it(home):
    path = user(home, '[defaults]\nagent = "nobody"')
    with pytest.raises(ConfigError, match=rf"^{path}:2: defaults\.agent: no agent 'nobody'"):
        agents_for(None, found(home))


def test_an_adapter_that_is_none_of_the_known_is_refused_with_all_of_them():
    with pytest.raises(ConfigError, match=r"replay: no adapter 'x' \(known: none\)"):
        check_adapter("x", {}, "replay")


# --- adapters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("crashing", r"adapter 'crashing' cannot be loaded: RuntimeError: boom\\x1b\[2J$"),
        ("missing", "adapter 'missing' cannot be loaded: ModuleNotFoundError: .*of_mine_nowhere"),
        ("nothing", "adapter 'nothing' cannot be loaded: AttributeError: "),
        ("none", "adapter 'none' is none: it has no `about`"),
    ],
)
def test_a_broken_adapter_is_named_when_it_is_asked_for_and_not_before(home, name, why):
    adapters = found(home).adapters
    assert name in adapters
    assert len(adapters) == len(list(adapters))
    with pytest.raises(ConfigError, match=why):
        adapters[name]


def test_an_adapter_is_loaded_once(home):
    adapters = Adapters()
    assert adapters["mine"] is adapters["mine"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("of_mine:mine", "model server 'bad' is none: of_mine:mine is not one"),
        ("of_mine_broken:x", "model server 'bad' cannot be loaded: RuntimeError: boom"),
    ],
)
def test_a_broken_model_server_is_named(home, site, monkeypatch, tmp_path, entry, why):
    info = tmp_path / "site" / "bad-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    write(info / "entry_points.txt", f"[orchestrator.servers]\nbad = {entry}\n")
    monkeypatch.syspath_prepend(info.parent)
    plugins._all_entries.cache_clear()
    with pytest.raises(ConfigError, match=why):
        found(home)


# --- discovered agents ----------------------------------------------------------------------------


def discovered(home: Path, **environ: str) -> dict[str, Agent]:
    agents = agents_for(None, found(home, environ))
    return {each.name: each for each in agents if each.adapter == "mine"}


def test_an_adapter_with_a_program_is_an_agent(home):
    assert discovered(home) == {
        "mine": Agent(name="mine", adapter="mine", tier="cloud", profile="user")
    }


@pytest.mark.parametrize(("value", "key"), [("sk-1", "MINE_API_KEY"), ("", None)])
def test_a_key_is_used_where_it_is_set(home, value, key):
    config = found(home, {"MINE_API_KEY": value})
    placed, _ = look([Agent(name="mine", adapter="mine", profile="user")], config)
    assert placed[0].api_key_env == key


@pytest.mark.parametrize(
    ("environ", "name", "base_url", "model", "tier", "key"),
    [
        ({"OLLAMA_BASE_URL": "http://127.0.0.1:1"}, "ollama", "http://127.0.0.1:1", None, "local",
         None),
        ({"OLLAMA_HOST": "desk:11434"}, "ollama", "http://desk:11434", None, "cloud", None),
        ({"OLLAMA_HOST": "0.0.0.0"}, "ollama", "http://127.0.0.1:11434", None, "local", None),
        ({"OLLAMA_HOST": ":1234"}, "ollama", "http://127.0.0.1:1234", None, "local", None),
        ({"OLLAMA_HOST": "[::]:1"}, "ollama", "http://[::1]:1", None, "local", None),
        ({"OLLAMA_BASE_URL": "http://a:1", "OLLAMA_HOST": "b:2"}, "ollama", "http://a:1", None,
         "cloud", None),
        ({"OLLAMA_MODEL": "qwen"}, "ollama", "http://127.0.0.1:11434", "qwen", "local", None),
        ({"LM_STUDIO_BASE_URL": "http://localhost:1234/v1"}, "lmstudio",
         "http://localhost:1234/v1", None, "local", None),
        ({"LM_STUDIO_MODEL": "m"}, "lmstudio", "http://127.0.0.1:1234", "m", "local", None),
        ({"OPENAI_BASE_URL": "http://desk/v1", "OPENAI_API_KEY": "k"}, "openai", "http://desk/v1",
         None, "cloud", "OPENAI_API_KEY"),
        ({"OPENAI_MODEL": "m", "OPENAI_API_KEY": ""}, "openai", "https://api.openai.com/v1", "m",
         "cloud", None),
        ({"CLOUDY_MODEL": "m", "CLOUDY_KEY": "k"}, "cloudy", "https://api.cloudy.example/v1", "m",
         "cloud", "CLOUDY_KEY"),
    ],
)  # fmt: skip
def test_the_usual_variables_make_an_agent_at_that_server(
    home, environ, name, base_url, model, tier, key
):
    agents = discovered(home, **environ)
    assert set(agents) == {"mine", f"mine-{name}"}
    assert agents[f"mine-{name}"] == Agent(
        name=f"mine-{name}",
        adapter="mine",
        server=name,
        base_url=base_url,
        model=model,
        tier=tier,
        api_key_env=key,
        profile="clean",
    )


@pytest.mark.parametrize("name", ["OLLAMA_BASE_URL", "LM_STUDIO_MODEL", "OPENAI_API_KEY"])
def test_a_variable_that_is_empty_or_only_a_key_makes_no_agent(home, name):
    value = "sk" if name == "OPENAI_API_KEY" else ""
    assert set(discovered(home, **{name: value})) == {"mine"}


def test_a_server_that_speaks_no_dialect_of_the_agent_is_not_offered(home):
    config = found(home, {"OLLAMA_MODEL": "m"})
    servers = {"ollama": ModelServer(name="ollama", title="O", port=1, model_env=("OLLAMA_MODEL",),
                                     dialects=("gemini",))}  # fmt: skip
    agents = agents_for(None, Config(adapters=config.adapters, servers=servers,
                                     environ=config.environ))  # fmt: skip
    assert [each.name for each in agents if each.name == "mine-ollama"] == []


def test_configured_agents_come_first_then_local_ones_then_by_name(home):
    user(home, '[agents.zz]\nadapter = "mine"')
    agents = agents_for(None, found(home, {"OLLAMA_MODEL": "m", "OPENAI_MODEL": "m"}))
    assert agents[0].name == "zz"
    keys = [(each.tier == "cloud", each.name) for each in agents[1:]]
    assert keys == sorted(keys)
    assert {each.tier for each in agents[1:]} == {"local", "cloud"}


def test_a_configured_agent_hides_a_discovered_one_of_its_name(home):
    user(home, '[agents.mine]\nadapter = "mine"\nmodel = "m"')
    assert [each.model for each in agents_for(None, found(home)) if each.name == "mine"] == ["m"]


def test_a_broken_adapter_is_listed_so_that_it_can_be_told_why(home):
    names = [each.name for each in agents_for(None, found(home))]
    assert {"crashing", "missing", "nothing", "none"} <= set(names)


def test_the_default_agent_goes_first_configured_or_not(home):
    user(home, '[defaults]\nagent = "mine"\n[agents.zz]\nadapter = "mine"')
    assert [each.name for each in agents_for(None, found(home))][:2] == ["mine", "zz"]


def test_a_named_agent_is_the_only_one(home):
    user(home, '[defaults]\nagent = "zz"\n[agents.zz]\nadapter = "mine"')
    config = found(home)
    assert [each.name for each in agents_for("zz", config)] == ["zz"]
    assert [each.name for each in agents_for("mine", config)] == ["mine"]


@pytest.mark.parametrize(
    ("default", "name", "why"),
    [("", "x", r"^no agent 'x' \(known: .*mine"), ("x", None, r"^defaults\.agent: no agent 'x'")],
)
def test_an_agent_that_is_not_there_is_told_with_those_that_are(home, default, name, why):
    config = Config(default_agent=default or None, adapters=found(home).adapters)
    with pytest.raises(ConfigError, match=why):
        agents_for(name, config)


def test_where_there_is_no_agent_at_all_that_is_said():
    with pytest.raises(ConfigError, match=r"no agent 'x' \(known: none\)"):
        agents_for("x", Config())
    assert agents_for(None, Config()) == ()


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:11434", "127.0.0.1", "127.8.9.1:80/v1", "localhost", "LOCALHOST:1",
     "http://localhost/v1", "https://ollama.localhost:1", "http://[::1]:8080", "[::1]",
     "scripted:/a/b.yaml", "0.0.0.0:11434", "http://[::]:1"],
)  # fmt: skip
def test_an_address_of_this_machine_is_local(url):
    assert tier_of(url) == "local"


@pytest.mark.parametrize(
    "url",
    ["https://api.openai.com/v1", "http://192.168.1.5:11434", "desk:11434", "10.0.0.1", "",
     "http://", "http://localhost.evil.example", "http://127.0.0.1.evil.example",
     "http://localhost@evil.example", "http://evil.example\\@localhost", "http://[::1",
     "http://evil.example#@127.0.0.1", "http://127.0.0.1evil", "notlocalhost", "http://[fe80::1]",
     "https://scripted:x"],
)  # fmt: skip
def test_any_other_address_is_a_cloud(url):
    assert tier_of(url) == "cloud"


@given(st.text())
def test_every_text_has_a_tier(url):
    assert tier_of(url) in {"local", "cloud"}
    assert tier_of(f"http://{url}") in {"local", "cloud"}


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://desk:11434/v1", 11434), ("desk:1", 1), ("desk", None), ("http://x:99999", None),
     ("x:port", None), ("http://[::1", None), ("[::1]:8", 8)],
)  # fmt: skip
def test_the_port_of_an_address_is_known_if_it_names_one(url, port):
    assert port_of(url) == port


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("~/x/y", "/home/me/x/y"),
        ("$HERE/x", "/here/x"),
        ("$NOT_SET/x", None),
        ("/a/~/b", "/a/~/b"),
    ],
)
def test_a_path_is_expanded_as_the_agent_would(path, place):
    expected = Path(place) if place else None
    assert expanded(path, {"HOME": "/home/me", "HERE": "/here"}) == expected


def test_a_server_is_usually_on_loopback_or_at_its_providers_address():
    assert default_url(ModelServer(name="x", title="X", port=7)) == "http://127.0.0.1:7"
    assert default_url(ModelServer(name="x", title="X", port=None, base_url="u")) == "u"
    assert default_url(ModelServer(name="x", title="X", port=None)) is None


# --- model servers --------------------------------------------------------------------------------


def test_the_servers_of_a_file_are_places_by_name(home):
    loaded = named(home, DESK + 'model = "desk/x"')
    [place] = loaded.places
    assert (place.name, place.kind, place.base_url) == (
        "desk",
        "ollama",
        "http://desk.example:11434",
    )
    assert (place.local, place.stated) == (True, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[servers.s]\nkind = "x"', r"server 's': no kind of server 'x' \(known: "),
        (
            '[servers.s]\nkind = "openai-compatible"',
            "server 's': openai-compatible has no usual address: give its base_url",
        ),
        (
            '[agents.a]\nadapter = "mine"\nserver = "openai-compatible"',
            "agent 'a': openai-compatible has no usual address: give the server's base_url",
        ),
    ],
)
def test_a_server_that_cannot_be_meant_is_refused(home, text, message):
    """Without an address of its own a local kind would end at somebody's cloud."""
    with pytest.raises(ConfigError, match=message):
        named(home, text)


def test_places_are_the_configured_then_those_of_variables_then_the_usual_ports(home):
    environ = {"VLLM_BASE_URL": "http://gpu.example:8000/v1", "OLLAMA_HOST": "127.0.0.1"}
    path = write(home / "c.toml", '[servers.mine]\nkind = "lmstudio"\nbase_url = "127.0.0.1:5"')
    found = [
        (one.name, one.base_url, one.stated)
        for one in places_of(load_config(path, environ=environ))
    ]
    assert found == [
        ("mine", "127.0.0.1:5", True),
        ("ollama", "127.0.0.1", True),
        ("vllm", "http://gpu.example:8000/v1", True),
        ("llamacpp", "http://127.0.0.1:8080", False),
        ("lmstudio", "http://127.0.0.1:1234", False),
    ]


def test_a_clouds_key_does_not_come_along_to_a_server_at_home(home):
    environ = {"OPENAI_BASE_URL": "http://127.0.0.1:5", "OPENAI_API_KEY": "k"}
    write(home / "c.toml", "")
    places = places_of(load_config(home / "c.toml", environ=environ))
    assert {place.name: place.api_key_env for place in places if place.stated} == {"openai": None}
