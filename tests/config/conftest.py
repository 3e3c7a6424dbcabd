"""A user's home, a project beside it, and a package that brings adapters and a server."""

import os
from pathlib import Path

import pytest

from orchestrator.config import plugins

SOURCE = """
from orchestrator.adapter import About, Program
from orchestrator.server import ModelServer


class Adapter:
    about = About(
        name="mine", title="Mine", program=Program(name="mine"), dialects=("chat",),
        key_env="MINE_API_KEY",
    )


mine = Adapter()
none = object()
cloudy = ModelServer(
    name="cloudy", title="Cloudy", port=None, base_url="https://api.cloudy.example/v1",
    url_env=("CLOUDY_URL",), model_env=("CLOUDY_MODEL",), key_env="CLOUDY_KEY", local=False,
)
"""
BROKEN = "raise RuntimeError('boom\\x1b[2J')"
ENTRIES = """
[orchestrator.adapters]
mine = of_mine:mine
crashing = of_mine_broken:adapter
missing = of_mine_nowhere:adapter
nothing = of_mine:nothing
none = of_mine:none

[orchestrator.servers]
cloudy = of_mine:cloudy
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed package that brings adapters, good and broken, and a server."""
    site = tmp_path_factory.mktemp("site")
    (site / "of_mine.py").write_text(SOURCE)
    (site / "of_mine_broken.py").write_text(BROKEN)
    info = site / "of_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: of-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    return site


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Path) -> Path:
    """A user's home, a project beside it, and the package of ours installed."""
    for name in [name for name in os.environ if name.startswith(("XDG_", "ORCHESTRATE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(site)
    plugins._all_entries.cache_clear()
    (tmp_path / "project").mkdir()
    return tmp_path


@pytest.fixture(autouse=True)
def forget_entries():
    yield
    plugins._all_entries.cache_clear()
