"""Trust: for a folder and a content, given by the user, gone when the file changes."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from orchestrator.config import load_config, set_default, trust
from orchestrator.config.file import read
from orchestrator.config.load import find_project, state_folder
from orchestrator.errors import ConfigError
from tests.config.places import agent, found, project, user, write

NEEDS_TRUST = '[agents.a]\nadapter = "mine"\nbase_url = "http://desk:1"\n'


def state(home: Path) -> Path:
    return home / "home" / ".local" / "state" / "orchestrate"


def trusted(home: Path) -> Path:
    """The project's file, trusted as it is now."""
    path = home / "project" / "orchestrate.toml"
    trust.trust(read(path), state(home))
    return path


def test_a_trusted_file_may_say_everything(home):
    project(home, NEEDS_TRUST)
    trusted(home)
    assert agent(found(home), "a").base_url == "http://desk:1"


def test_trust_ends_when_the_file_changes_and_comes_back_with_the_content(home):
    path = project(home, NEEDS_TRUST)
    trusted(home)
    path.write_text(NEEDS_TRUST + "# harmless\n")
    with pytest.raises(ConfigError, match="base_url: the file has changed since you trusted it"):
        found(home)
    path.write_text(NEEDS_TRUST)
    assert found(home).agents


def test_trust_can_be_taken_back(home):
    path = project(home, NEEDS_TRUST)
    trusted(home)
    assert trust.untrust(path, state(home)) is True
    assert trust.untrust(path, state(home)) is False
    with pytest.raises(ConfigError, match="the file was found, not named"):
        found(home)


def test_trust_is_for_one_folder_also_where_the_content_is_the_same(home):
    path = project(home, NEEDS_TRUST)
    trusted(home)
    (home / "copy").mkdir()
    os.link(path, home / "copy" / "orchestrate.toml")
    with pytest.raises(ConfigError, match="found, not named"):
        load_config(folder=home / "copy", environ={})


def test_a_link_to_a_trusted_folder_is_that_folder(home):
    project(home, NEEDS_TRUST)
    trusted(home)
    (home / "link").symlink_to(home / "project")
    assert load_config(folder=home / "link", environ={}).agents


def test_a_file_that_is_a_link_is_trusted_by_the_folder_in_which_it_was_found(home):
    (home / "project" / "orchestrate.toml").symlink_to(write(home / "real.toml", NEEDS_TRUST))
    trusted(home)
    assert found(home).agents
    (home / "real.toml").write_text(NEEDS_TRUST + "#")
    with pytest.raises(ConfigError, match="changed"):
        found(home)


def test_a_file_that_is_put_in_the_place_of_a_read_one_is_not_trusted_with_it(home):
    path = project(home, NEEDS_TRUST)
    seen = read(path)
    path.write_text(NEEDS_TRUST.replace("desk", "evil"))
    trust.trust(seen, state(home))
    with pytest.raises(ConfigError, match="changed"):
        found(home)


def test_what_is_trusted_is_recorded_privately_and_can_be_listed(home):
    assert trust.all_trusted(state(home)) == []
    path = project(home, NEEDS_TRUST)
    trusted(home)
    trusted(home)
    (record,) = (state(home) / "trust").iterdir()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    assert [one.path for one in trust.all_trusted(state(home))] == [path]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"path": 1, "sha256": "x"}'])
def test_a_broken_record_is_told_and_not_taken_for_trust(home, content):
    project(home, NEEDS_TRUST)
    trusted(home)
    (record,) = (state(home) / "trust").iterdir()
    record.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        found(home)
    assert str(record) in str(caught.value)
    assert caught.value.hint == "Remove it."


def test_a_record_that_was_copied_to_another_name_is_none(home):
    project(home, NEEDS_TRUST)
    trusted(home)
    (record,) = (state(home) / "trust").iterdir()
    other = write(home / "other" / "orchestrate.toml", NEEDS_TRUST)
    record.rename(trust._record(other, state(home)))
    with pytest.raises(ConfigError, match="found, not named"):
        load_config(folder=other.parent, environ={})


def test_trust_that_cannot_be_written_is_said(home):
    file = read(project(home, NEEDS_TRUST))
    write(home / "file", "")
    with pytest.raises(ConfigError, match=r"cannot write .*file/state/trust"):
        trust.trust(file, home / "file" / "state")


@pytest.mark.parametrize(
    ("loose", "harmless"),
    [
        ('strategy = "cascade"', 'strategy = "local"'),
        ('strategy = "cloud"', 'strategy = "auto"'),
        ('fallback = "cloud"', 'fallback = "none"'),
        ('isolation = "none"', 'isolation = "worktree"'),
        ('deliver = "apply"', 'deliver = "branch"'),
        ('access = "full"', 'access = "read"'),
    ],
)
def test_a_found_file_may_tighten_defaults_and_not_loosen_them(home, loose, harmless):
    project(home, f"[defaults]\n{harmless}")
    found(home)
    project(home, f"[defaults]\n{loose}")
    with pytest.raises(ConfigError, match=rf"toml:2: not trusted to set defaults\.{loose[:6]}"):
        found(home)


def test_of_very_many_keys_that_are_refused_the_first_are_told(home):
    keys = "\n".join(f"k{number} = 1" for number in range(50))
    project(home, f'[agents.a]\nadapter = "mine"\n{keys}')
    with pytest.raises(ConfigError, match=r"agents\.a\.k26 and 30 more: the file was found"):
        found(home)


def test_what_trust_would_allow_is_shown_with_its_values_and_lines(home):
    path = project(home, NEEDS_TRUST + '[servers.s]\nkind = "ollama"\nlocal = true\nslots = 1\n')
    assert trust.refused(read(path)) == (
        trust.Refused(key="agents.a.base_url", value="http://desk:1", where=f"{path}:3"),
        trust.Refused(key="servers.s.local", value=True, where=f"{path}:6"),
    )


# --- which file is the project's ------------------------------------------------------------------


def test_the_file_is_looked_for_up_to_the_top_of_the_repository_and_no_further(home):
    deep = home / "project" / "a" / "b"
    deep.mkdir(parents=True)
    path = project(home, "")
    assert find_project(deep) is None  # no repository: only the folder itself
    (home / "project" / "a" / ".git").mkdir()
    assert find_project(deep) is None  # an empty folder is no repository
    write(home / "project" / ".git" / "HEAD", "ref: refs/heads/main")
    found_ = find_project(deep)
    assert found_ is not None
    assert found_.path == path
    (deep / ".git").write_text("gitdir: elsewhere")
    assert find_project(deep) is None  # a worktree or submodule has its own


def test_the_nearest_file_is_the_one(home):
    project(home, "")
    write(home / "project" / ".git" / "HEAD", "ref: refs/heads/main")
    near = write(home / "project" / "a" / "orchestrate.toml", "")
    found_ = find_project(near.parent)
    assert found_ is not None
    assert found_.path == near


def test_the_users_own_file_is_no_projects_file(home):
    path = user(home, NEEDS_TRUST)
    assert agent(load_config(folder=path.parent, environ={}), "a").base_url == "http://desk:1"


@pytest.mark.parametrize("place", ["project", "home/.config/orchestrate"])
def test_a_file_that_cannot_be_read_is_told(home, place):
    (home / place).mkdir(parents=True, exist_ok=True)
    (home / place / "orchestrate.toml").symlink_to("orchestrate.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Too many levels of symbolic links"):
        found(home)
    (home / place / "orchestrate.toml").unlink()
    (home / place / "orchestrate.toml").symlink_to("/proc/self/mem")
    with pytest.raises(ConfigError, match=r"cannot read .*: Input/output error"):
        found(home)


# --- what an agent passes on ----------------------------------------------------------------------


def test_a_file_that_an_agent_passes_is_not_trusted_and_the_users_limits_stay(home):
    user(home, "[limits]\ncost_usd = 1.0")
    path = project(home, "[limits]\ncost_usd = 9.0")
    assert load_config(path, environ={}, delegated=True).limits.cost_usd == 1
    path.write_text(NEEDS_TRUST)
    trusted(home)
    with pytest.raises(ConfigError, match=r"not trusted to set agents\.a\.base_url"):
        load_config(path, environ={}, delegated=True)
    with pytest.raises(ConfigError, match="has no path"):
        load_config(environ={}, delegated=True)


# --- nobody's home --------------------------------------------------------------------------------


@pytest.fixture
def nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a home, in a folder that somebody else has filled."""

    def unknown(_: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "rel")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(home)
    for place in ("rel", "rel/.config", "~/.config"):
        write(home / place / "orchestrate" / "orchestrate.toml", "not to be read")
    return home


def test_a_home_that_is_not_known_is_not_looked_for_in_the_working_directory(nobody):
    with pytest.raises(ConfigError, match="your home folder is not known") as caught:
        found(nobody)
    assert caught.value.hint == "Set HOME or ORCHESTRATE_STATE_DIR to an absolute path."
    config = found(nobody, {"ORCHESTRATE_STATE_DIR": str(nobody / "state")})
    assert config.agents_folder == nobody / "state" / "agents"
    with pytest.raises(ConfigError, match="your home folder is not known"):
        set_default("mine", config)


def test_an_empty_variable_is_as_if_it_were_not_set(home):
    environ = {"ORCHESTRATE_CONFIG": "", "ORCHESTRATE_STATE_DIR": ""}
    assert found(home, environ).state == state(home) == state_folder(environ)
