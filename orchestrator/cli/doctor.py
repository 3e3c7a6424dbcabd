"""`doctor`: what is there, what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.cli.frame import (
    ConfigOption,
    ListForm,
    ListOption,
    errors,
    looked_at,
    put,
    put_json,
    tabled,
)

if TYPE_CHECKING:
    from orchestrator.discovery.diagnosis import Diagnosis


def doctor(output: ListOption = ListForm.TEXT, config: ConfigOption = None) -> None:
    """Look at agents, model servers, keys and sandboxes; for each problem tell one remedy.

    Keys are told by name, nothing is sent to any cloud.

    \b
    orchestrate doctor
    orchestrate doctor --output json
    """  # noqa: D301 (click takes \b for: leave these lines alone)
    import anyio

    from orchestrator.discovery.diagnosis import diagnose

    with errors():
        found = anyio.run(diagnose, looked_at(config))
        if output is ListForm.JSON:
            put_json(found, indented=True)
        else:
            put("\n\n".join(_sections(found)))


def _sections(found: Diagnosis) -> Iterator[str]:
    from orchestrator.cli.models import models_told
    from orchestrator.errors import shown

    yield _agents(found)
    yield _servers(found)
    if any(server.models for server in found.servers):
        yield models_told(list(found.servers))
    yield _rest(found)
    yield _supervision(found)
    if found.problems:
        told = [f"- {shown(one.what)}\n  {shown(one.remedy)}" for one in found.problems]
        yield "\n".join(["Problems:", *told])
    elif not found.ways:
        yield "No problems found."
    if found.ways:
        numbered = [f"{number}. {way}" for number, way in enumerate(found.ways, 1)]
        yield "\n".join(["No agent works yet. The shortest ways to one:", *numbered])


def _agents(found: Diagnosis) -> str:
    rows = [["AGENT", "PROGRAM", "VERSION", "TESTED", "AUTH"]]
    for one in found.adapters:
        path = one.path or (f"not installed ({one.install})" if one.install else "-")
        tested = {True: "no", False: "yes", None: "?" if one.path else "-"}[one.untested]
        rows.append([one.name, one.problem or path, one.version or "-", tested, one.auth])
    return tabled(rows)


def _servers(found: Diagnosis) -> str:
    if not found.servers:
        return "No model server answers at its usual port."
    rows = [["SERVER", "KIND", "ADDRESS", "STATE", "VERSION", "DIALECTS"]]
    for one in found.servers:
        state = "up" if one.problem is None else one.problem.kind
        version, dialects = one.version or "?", ", ".join(one.dialects) or "-"
        rows.append([one.name, one.kind, one.base_url, state, version, dialects])
    return tabled(rows)


def _rest(found: Diagnosis) -> str:
    held, mode = found.sandbox, found.local
    bwrap = held.bwrap or f"no ({held.bwrap_problem})"
    landlock = f"ABI {held.landlock}" if held.landlock else "no"
    local = f"on: {mode.model or 'its own model'} at {mode.base_url}" if mode.on else "off"
    rows = [
        ("keys", ", ".join(found.keys) or "none"),
        ("local mode", local),
        ("bubblewrap", bwrap),
        ("user namespaces", "yes" if held.user_namespaces else "no"),
        ("Landlock", landlock),
        ("seccomp", "yes" if held.seccomp else "no"),
    ]
    from orchestrator.errors import shown

    return "\n".join(f"{name:<16} {shown(text)}" for name, text in rows)


def _supervision(found: Diagnosis) -> str:
    """What holds of every agent that is run here, and what does not: with its remedy."""
    from orchestrator.errors import shown

    lines = ["Supervision:"]
    for one in found.supervision:
        lines.append(f"{'  holds' if one.holds else '  not':<9} {one.name}: {shown(one.text)}")
        if one.remedy is not None:
            lines.append(f"{'':<12} {shown(one.remedy)}")
    return "\n".join(lines)
