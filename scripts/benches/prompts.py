"""scripts/bench prompts [ADAPTER ...]: how large each CLI's own prompt is, as it is run on a local
model, beside what its adapter says (`About.prompt_tokens`, `About.lean_prompt_tokens`).

The real CLI asks a scripted model server, in a repository of some modules (aider sends a map of
it); what its first question holds besides the task is its own. A token is taken for 4 bytes. Exits
with 1 where a prompt is a tenth larger than its adapter says, or not half as large.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import orjson

from orchestrator.adapter import Adapter, Agent, about_of
from orchestrator.config import load_config
from orchestrator.discovery import locate
from tests.real.scene import play

BYTES_A_TOKEN = 4
LARGER, SMALLER = 1.1, 0.5
MODULES = 40
PROMPT = "Say hello."


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form in which a CLI is run, and what its adapter says of its prompt, in tokens."""

    name: str
    adapter: Adapter
    options: Mapping[str, object]
    stated: int | None


def forms(names: Sequence[str]) -> Iterator[Form]:
    """As it is run on a local model of some size, and in its leanest form, if it has one."""
    config = load_config()
    for name, adapter in config.adapters.items():
        about = adapter.about
        if about.program is None or (names and name not in names):
            continue
        if locate(about.program, config) is None:
            print(f"{name}: not installed ({about.install_hint})", file=sys.stderr)
            continue
        usual = about_of(adapter, Agent(name=name, adapter=name, tier="local"))
        yield Form(name=name, adapter=adapter, options={}, stated=usual.prompt_tokens)
        if about.lean:
            lean = f"{name}, leanest"
            stated = about.lean_prompt_tokens
            yield Form(name=lean, adapter=adapter, options=about.lean, stated=stated)


async def measured(form: Form) -> int | None:
    """The bytes of its first question without the task; None: it asked nothing."""
    with tempfile.TemporaryDirectory() as folder:
        repository(Path(folder, "work"))
        played = await play(
            form.adapter,
            [{"text": "Hello.", "repeat": "forever"}],
            Path(folder),
            task={"prompt": PROMPT, "kind": "explain"},
            options=dict(form.options),
        )
    sizes = [len(orjson.dumps(one.body)) for one in played.requests if one.method == "POST"]
    return sizes[0] - len(PROMPT) if sizes else None


def repository(folder: Path) -> None:
    """Modules that call one another."""
    folder.mkdir()
    for number in range(MODULES):
        lines = [f"from module_{number - 1} import step_{number - 1}"] if number else []
        lines += [f"class Part{number}:", "    def run(self, value: int) -> int: return value", ""]
        lines += [f"def step_{number}(value: int) -> int:", f"    return Part{number}().run(value)"]
        (folder / f"module_{number}.py").write_text("\n".join(lines) + "\n")
    git = ("git", "-c", "user.name=T", "-c", "user.email=t@example.com")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "Begin")):
        subprocess.run((*git, *words), cwd=folder, check=True)


def told(form: Form, size: int | None) -> tuple[str, bool]:
    """A line of the table, and whether the adapter is right."""
    if size is None:
        return f"{form.name:<18} asked nothing  MISSED", False
    tokens, stated = size / BYTES_A_TOKEN, form.stated
    right = stated is None or SMALLER * stated <= tokens <= LARGER * stated
    said = "-" if stated is None else f"{stated:,}"
    line = f"{form.name:<18} {size / 1000:7.1f} KB  about {tokens:7,.0f} tokens  stated {said:>7}"
    return line if right else f"{line}  MISSED", right


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench prompts", description=__doc__)
    parser.add_argument("adapters", nargs="*", metavar="ADAPTER", help="default: all installed")
    asked = parser.parse_args(arguments)
    kept = True
    for form in forms(asked.adapters):
        line, right = told(form, anyio.run(measured, form))
        print(line, flush=True)
        kept = kept and right
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
