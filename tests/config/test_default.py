"""`agents use`: the default agent is set in the user's file, and all else in it stays as it is."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapter import Agent
from orchestrator.config import Config, set_default
from orchestrator.errors import ConfigError

CONFIG = Config(agents=(Agent(name="desk", adapter="x"), Agent(name='od"d', adapter="x")))
AGENTS = '[agents.desk]  # mine\nadapter = "litellm"\n'


def edited(path: Path, text: str, name: str = "desk") -> str:
    path.write_text(text)
    assert set_default(name, CONFIG, path) == path
    after = path.read_text()
    assert tomllib.loads(after)["defaults"]["agent"] == name
    return after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[defaults]\nagent = "desk"\n'),
        (AGENTS, AGENTS + '\n[defaults]\nagent = "desk"\n'),
        (AGENTS.rstrip("\n"), AGENTS + '\n[defaults]\nagent = "desk"\n'),
        ("[defaults]\n" + AGENTS, '[defaults]\nagent = "desk"\n' + AGENTS),
        ("[defaults]", '[defaults]\nagent = "desk"\n'),
        ('[defaults] # d\nagent = "old" # why\n', '[defaults] # d\nagent = "desk" # why\n'),
        ("[ defaults ]\n  agent   =  'old'\n", '[ defaults ]\n  agent   =  "desk"\n'),
        (
            '# c\n[limits]\nsteps = 9\n[defaults]\nagent="o"\n',
            '# c\n[limits]\nsteps = 9\n[defaults]\nagent="desk"\n',
        ),
    ],
)
def test_only_the_default_agent_changes(tmp_path: Path, before: str, after: str) -> None:
    assert edited(tmp_path / "o.toml", before) == after


def test_a_name_with_a_quote_is_written_as_toml_wants_it(tmp_path: Path) -> None:
    assert 'agent = "od\\"d"' in edited(tmp_path / "o.toml", AGENTS, 'od"d')


@pytest.mark.parametrize(
    "text",
    [
        'defaults = {agent = "old"}\n',
        'defaults.agent = "old"\n',
        '[agents.desk]\nadapter = "x"\nnote = """\n[defaults]\nagent = "old"\n"""\n',
        "not toml",
        "[unknown]\n",
    ],
)
def test_a_file_that_cannot_be_edited_by_lines_is_left_alone_with_a_remedy(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "o.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        set_default("desk", CONFIG, path)
    assert caught.value.hint == 'Write it yourself: agent = "desk", below [defaults].'
    assert path.read_text() == text


def test_an_unknown_agent_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "o.toml"
    with pytest.raises(ConfigError, match=r"no agent 'desc' \(known: desk, "):
        set_default("desc", CONFIG, path)
    assert not path.exists()


def test_the_files_mode_and_a_link_to_it_stay(tmp_path: Path) -> None:
    kept = tmp_path / "kept.toml"
    kept.write_text(AGENTS)
    kept.chmod(0o640)
    link = tmp_path / "o.toml"
    link.symlink_to(kept)
    assert set_default("desk", CONFIG, link) == kept
    assert link.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o640
    assert set_default("desk", CONFIG, tmp_path / "new/o.toml").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"kept.toml", "o.toml", "new"}


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot"):
        set_default("desk", CONFIG, tmp_path / "file" / "o.toml")


LINES = st.sampled_from(
    (
        *("[defaults]\n", 'agent = "a"\n', "# c\n", "\n", "[limits]\n", "steps = 3\n"),
        *('[agents."x.y"]\n', 'adapter = "x"\n', 'note = """\n', '"""\n', "[defaults]\r\n"),
        "agent = 'a'",
    )
)


@given(st.lists(LINES, max_size=8).map("".join))
def test_whatever_the_file_holds_it_is_edited_well_or_left_alone(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("files") / "o.toml"
    path.write_bytes(text.encode())
    try:
        set_default("desk", CONFIG, path)
    except ConfigError:
        assert path.read_bytes() == text.encode()
    else:
        expected = tomllib.loads(text)
        expected.setdefault("defaults", {})["agent"] = "desk"
        assert tomllib.loads(path.read_bytes().decode()) == expected
