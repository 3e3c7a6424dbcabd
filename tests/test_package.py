"""What is shipped and what is locked: entry points, typed packages, locks that name no host."""

import json
import re
import subprocess
import tomllib
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

from orchestrator.adapter import About, Install

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIP_LOCKS = sorted([*ROOT.glob("requirements*.txt"), *ROOT.glob("adapters/locks/*/*.txt")])
NPM_LOCKS = sorted(
    [*ROOT.glob("scripts/*/*/package-lock.json"), *ROOT.glob("adapters/locks/*/package-lock.json")]
)
LOCKED = re.compile(r"^([a-z0-9.-]+)==", re.MULTILINE)


def normal(requirement: str) -> str:
    name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("group", ["orchestrator.adapters", "orchestrator.servers"])
def test_every_entry_point_of_ours_loads(group: str) -> None:
    declared = PROJECT["entry-points"][group]
    found = {entry.name: entry for entry in entry_points(group=group)}
    for name, target in declared.items():
        assert found[name].value == target
        assert found[name].load() is not None


def test_the_installed_version_is_the_declared_one() -> None:
    assert distribution("orchestrate").version == PROJECT["version"]


@pytest.mark.parametrize("package", ["orchestrator", "adapters"])
def test_the_packages_say_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize(
    "lock", [*PIP_LOCKS, *NPM_LOCKS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_lock_names_no_host_and_no_folder(lock: Path) -> None:
    text = lock.read_text()
    assert re.findall(r"\w+://\S+|--(?!hash)[a-z]\S*|[\s\"'=]/[a-z]\S*", text) == []
    assert '"resolved"' not in text


@pytest.mark.parametrize("lock", PIP_LOCKS, ids=lambda path: path.parent.name)
def test_everything_locked_for_pip_has_a_hash(lock: Path) -> None:
    entries = re.split(r"\n(?=\S)", lock.read_text())
    pinned = [entry for entry in entries if LOCKED.match(entry)]
    assert pinned
    assert [entry for entry in pinned if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", NPM_LOCKS, ids=lambda path: path.parent.name)
def test_everything_locked_for_npm_has_a_hash(lock: Path) -> None:
    packages = json.loads(lock.read_text())["packages"]
    assert [name for name, entry in packages.items() if name and "integrity" not in entry] == []


def test_the_lock_covers_what_the_project_declares() -> None:
    locked = set(LOCKED.findall((ROOT / "requirements.txt").read_text()))
    assert {normal(each) for each in PROJECT["dependencies"]} <= locked
    for name, declared in PROJECT["optional-dependencies"].items():
        # What has an environment of its own has a lock of its own; the rest is run by the tests.
        apart = ROOT / "adapters/locks" / name / "requirements.txt"
        lock = apart if apart.exists() else ROOT / "requirements-dev.txt"
        locked = {*LOCKED.findall(lock.read_text()), PROJECT["name"]}
        assert {normal(each) for each in declared} <= locked


@pytest.mark.parametrize("name", PROJECT["entry-points"]["orchestrator.adapters"])
def test_what_can_be_installed_has_its_lock_in_the_package_and_its_tested_version_in_it(
    name: str,
) -> None:
    (entry,) = entry_points(group="orchestrator.adapters", name=name)
    about: About = entry.load().about
    if not isinstance(about.install, Install):
        return
    lock = Path(about.install.lock)
    assert lock.is_relative_to(ROOT / "adapters" / "locks")
    assert re.search(rf"[=\" ]{re.escape(about.tested[0])}\b", lock.read_text())
    if about.install.kind == "npm":
        assert lock.with_name("package.json").exists()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a clone knows what is committed")
def test_no_committed_file_names_a_registry() -> None:
    hosts = r"py[p]i\.org|pythonh[o]sted\.org|npm[j]s\.(org|com)"  # does not match itself
    argv = ["git", "grep", "--cached", "-nIE", hosts, "--", ".", ":!tests/test_recordings.py"]
    found = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("", "")
