"""What an agent may change, for every adapter the same: the model script tries, the files say."""

import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.adapter import Adapter
from tests.real.scene import Played, Turns, changed, fingerprint, placed, play

CHANGES = (
    "echo x > new.txt; echo x >> hello.py; truncate -s 0 hello.py",
    "rm -f hello.py; mv hello.py other.py; ln -s / link; ln hello.py hard; mkdir folder",
    "sed -i s/helo/bye/ hello.py; git add -A; git -c user.name=T -c user.email=t@t commit -qm x",
    'python3 -c \'open("made.py", "w")\'; python3 -c \'import os; os.remove("hello.py")\'',
    "setsid sh -c 'echo x > late.txt'; env -i /bin/sh -c 'echo x > clean.txt'",
    "chmod 777 hello.py; chmod 700 .; touch -t 200001010000 hello.py; chattr +d hello.py",
    "chown 12345:12345 hello.py; ln hello.py $TMPDIR/hard && echo x >> $TMPDIR/hard",
    *(
        f"python3 -c 'import os; os.{attempt}'"
        for attempt in (
            'setxattr("hello.py", "user.a", b"1")',
            'utime("hello.py", (1, 1))',
            'truncate("hello.py", 0)',
            'rename("hello.py", "renamed.py")',
        )
    ),
)
"""What the scripted model tries with its shell, a command a turn."""


def attempts(shell: Callable[[str], Mapping[str, Any]], *others: Mapping[str, Any]) -> Turns:
    """The turns of a model that tries all of CHANGES, then `others` (its own editing tools)."""
    return [*map(shell, CHANGES), *others, {"text": "I tried."}]


async def read_changes_nothing(
    adapter: Adapter, turns: Turns, tmp_path: Path, *, all_said: bool = True, **agent: Any
) -> Played:
    """Under `access: read` neither the work tree nor its .git changes.

    `all_said`: the model got to say all its turns, so every attempt was made.
    """
    work, _ = placed(tmp_path)
    before = fingerprint(work)
    played = await play(adapter, turns, tmp_path, task={"access": "read"}, **agent)
    assert played.requests, played.outcome
    assert not all_said or played.unsaid == 0, played.outcome
    assert not (left := changed(work, before)), left
    assert played.outcome.changes is None or not played.outcome.changes.files
    return played


async def edit_changes_files(
    adapter: Adapter, turns: Turns, tmp_path: Path, **agent: Any
) -> Played:
    """The counter-proof: under `access: edit` the same attempts do change files."""
    played = await play(adapter, turns, tmp_path, task={"access": "edit"}, **agent)
    assert played.outcome.changes is not None, played.outcome
    assert played.outcome.changes.files, played.outcome
    return played


@contextmanager
def outside() -> Generator[Path]:
    """A folder that belongs to no work tree and to no usual place for temporary files."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrate-outside-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
