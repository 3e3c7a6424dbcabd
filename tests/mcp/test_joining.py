"""`orchestrate mcp install`: by the CLI's own command, once."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.adapter import About, McpSetup, Program
from orchestrator.config import Config
from orchestrator.errors import ConfigError, OrchestrateError
from orchestrator.joining import join
from orchestrator.task import McpServer
from tests.scripted_adapter import Scripted

pytestmark = pytest.mark.anyio

SERVER = McpServer(name="orchestrate", command=("/bin/python", "-m", "x", "mcp"))
CLI = """#!/bin/sh
case "$1" in
get) cat "$STORE" ;;
add) shift; test -e "$STORE" && { echo "it is there"; exit 1; }; echo "$*" > "$STORE" ;;
remove) rm "$STORE" ;;
esac
"""


@dataclass
class Joins(Scripted):
    about: About = field(
        default_factory=lambda: About(name="cli", title="CLI", program=Program(name="cli"))
    )

    def mcp_setup(self, program: str, server: McpServer) -> McpSetup:
        add = (program, "add", *server.command)
        show = (program, "get")
        return McpSetup(add=add, remove=(program, "remove"), show=show, note="Name its keys.")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    program = tmp_path / "bin/cli"
    program.parent.mkdir()
    program.write_text(CLI)
    program.chmod(0o700)
    environ = {"PATH": f"{program.parent}:/usr/bin:/bin", "STORE": str(tmp_path / "store")}
    return Config(adapters={"cli": Joins(), "other": Scripted()}, environ=environ)


async def test_it_is_added_once_renewed_where_it_was_another_and_removed(
    tmp_path: Path, config: Config
) -> None:
    store = tmp_path / "store"
    (planned,) = await join("cli", SERVER, config, dry=True)
    assert planned.endswith("cli add /bin/python -m x mcp")
    assert not store.exists()
    assert await join("cli", SERVER, config) == (
        "orchestrate is an MCP server of cli now",
        "Name its keys.",
    )
    assert await join("cli", SERVER, config) == ("nothing to do: cli has it already",)
    store.write_text("/old/python mcp\n")
    await join("cli", SERVER, config)
    assert store.read_text() == "/bin/python -m x mcp\n"
    gone = await join("cli", SERVER, config, leave=True)
    assert gone == ("orchestrate is removed from cli now",)
    assert (await join("cli", SERVER, config, leave=True))[0].startswith("nothing to do")


async def test_what_cannot_be_done_is_told(tmp_path: Path, config: Config) -> None:
    with pytest.raises(ConfigError, match=r"other has no command for it \(these have: cli\)"):
        await join("other", SERVER, config)
    with pytest.raises(ConfigError, match="nothing"):
        await join("nothing", SERVER, config)
    (tmp_path / "bin/cli").write_text("#!/bin/sh\necho broken; exit 1\n")
    with pytest.raises(OrchestrateError, match="failed:\nbroken"):
        await join("cli", SERVER, config)
    (tmp_path / "bin/cli").unlink()
    with pytest.raises(ConfigError, match="cli is not installed"):
        await join("cli", SERVER, config)
