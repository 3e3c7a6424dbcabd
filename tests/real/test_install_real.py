"""`agents install` with the real lock and the real registry: the smallest of the agents, once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        "ORCHESTRATE_OFFLINE_NOW" in os.environ,
        reason="what it installs comes from a registry, and scripts/offline has no network",
    ),
]

ORCHESTRATE = (sys.executable, "-m", "orchestrator.cli")


def test_codex_is_installed_from_its_lock_and_runs(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "ORCHESTRATE_STATE_DIR": str(tmp_path)}
    # An environment of ours may have it already: --force.
    argv = [*ORCHESTRATE, "agents", "install", "codex", "--force"]
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first = done.stderr.splitlines()[0]
    assert "Codex CLI 0.169.0 takes about 400 MB on disk and a minute" in first
    path = done.stdout.strip().partition(": ")[2]
    assert path.startswith(str(tmp_path / "orchestrate/agents"))
    version = subprocess.run([path, "--version"], capture_output=True, text=True)
    assert "0.169.0" in version.stdout
    listed = subprocess.run([*ORCHESTRATE, "agents", "-o", "json"], env=env, capture_output=True)
    adapters = {one["name"]: one for one in json.loads(listed.stdout)["adapters"]}
    assert adapters["codex"]["untested"] is False
