"""Each import contract is broken on purpose, in a copy, and must be seen to fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = "a module of orchestrator imports only what is below it"
CORE = "orchestrator knows no agent: neither adapters nor what they wrap"
ADAPTERS = "adapters import the contracts and nothing that acts"
INDEPENDENCE = "adapters do not import one another"
SERVERS = "model servers do not import one another"
PROCESS = "only run, install, gateway, discovery and workspace start processes"

# contract, module, what it imports against the contract, what the report must name
VIOLATIONS = [
    (LAYERS, "orchestrator.errors", "orchestrator.events", "orchestrator.errors -> "),
    (LAYERS, "orchestrator.outcome", "orchestrator.route", "orchestrator.outcome -> "),
    (LAYERS, "orchestrator.unlisted", None, "orchestrator.unlisted"),
    (
        CORE,
        "orchestrator.run.attempt",
        "adapters.codex",
        "orchestrator.run.attempt -> adapters.codex",
    ),
    (CORE, "orchestrator.cli", "litellm", "orchestrator.cli -> litellm"),
    (ADAPTERS, "adapters.codex", "orchestrator.lines", "adapters.codex -> "),
    (ADAPTERS, "adapters.codex", "orchestrator.testing", "adapters.codex -> "),
    (ADAPTERS, "adapters.servers.ollama", "time", "adapters.servers.ollama -> time"),
    (ADAPTERS, "adapters.codex", "anyio", "adapters.codex -> anyio"),
    (INDEPENDENCE, "adapters.codex", "adapters.jsonl", "adapters.codex -> adapters.jsonl"),
    (SERVERS, "adapters.servers.ollama", "adapters.servers.vllm", "adapters.servers.ollama -> "),
    (PROCESS, "orchestrator.supervisor", "orchestrator.process", "orchestrator.supervisor -> "),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contracts")
    for package in ("orchestrator", "adapters"):
        only_python = shutil.ignore_patterns("__pycache__", "*.typed")
        shutil.copytree(ROOT / package, folder / package, ignore=only_python)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> str:
    argv = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    assert not done.stderr
    return done.stdout


def test_the_contracts_hold_as_the_code_stands(copy: Path) -> None:
    assert ", 0 broken" in lint_imports(copy)


@pytest.mark.parametrize(
    ("contract", "module", "imports", "named"),
    VIOLATIONS,
    ids=[f"{module}-{imports}" for _, module, imports, _ in VIOLATIONS],
)
def test_a_broken_contract_is_seen(
    copy: Path, contract: str, module: str, imports: str | None, named: str
) -> None:
    path = copy / (module.replace(".", "/") + ".py")
    before = path.read_text() if path.exists() else None
    planted = f"import {imports}\n" if imports else ""
    path.write_text((before or "") + planted)
    try:
        report = lint_imports(copy)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
    assert f"{contract} BROKEN" in report
    assert named in report.split("Broken contracts")[-1]


def test_programs_may_import_what_their_own_interpreter_has(copy: Path) -> None:
    path = copy / "adapters/programs/planted.py"
    path.write_text("import asyncio, subprocess, time, litellm\n")
    report = lint_imports(copy)
    path.unlink()
    assert f"{ADAPTERS} KEPT" in report
