"""What aider does with an answer: edits, commits, lint and tests."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from adapters.programs.aider_front.folders import git_says
from adapters.programs.aider_front.replacing import pair
from adapters.programs.aider_front.run import TEXT_CHARS, Run
from adapters.programs.model_calls import count

_DIFF_CHARS = 2 * 1024 * 1024


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None


def prepare_to_edit(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """Looks at the files before they are edited; says which edits were not allowed."""

    def prepare_to_edit(self: object, edits: Sequence[Sequence[object]]) -> object:
        paths = {str(edit[0]): None for edit in edits if edit[0]}
        before: dict[str, str | None] = {}
        for path in paths:
            before[path] = _read(Path(self.abs_root_path(path)))  # type: ignore[attr-defined]
        self.orchestrate_before = before  # type: ignore[attr-defined]
        allowed = original(self, edits)
        kept = {str(edit[0]) for edit in allowed if edit[0]}  # type: ignore[attr-defined]
        for path in paths:
            if path not in kept:
                run.lines.say("denied", id=f"denied-{path}", path=path, reason="aider skipped it")
        return allowed

    return prepare_to_edit


def apply_updates(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """Applies what the model wrote, and tells it file by file."""

    def apply_updates(self: object) -> object:
        self.orchestrate_before = {}  # type: ignore[attr-defined]
        run.last_complaint = ""
        edited = original(self)
        before: dict[str, str | None] = self.orchestrate_before  # type: ignore[attr-defined]
        for path, text in before.items():
            _tell_edit(run, Path(self.abs_root_path(path)), text)  # type: ignore[attr-defined]
        if getattr(self, "dry_run", False):
            for path in sorted(map(str, edited)):  # type: ignore[call-overload]
                run.lines.say("denied", id=f"denied-{path}", path=path, reason="dry run")
        elif run.last_complaint and not getattr(self, "reflected_message", None):
            run.blame("incomplete", run.last_complaint)
        return edited

    return apply_updates


def _tell_edit(run: Run, path: Path, before: str | None) -> None:
    after = _read(path)
    if after == before:
        return
    try:
        shown = str(path.relative_to(Path(run.settings.workspace).resolve()))
    except ValueError:  # outside of the workspace
        shown = str(path)
    run.edits += 1
    id_ = f"edit-{run.edits}"
    change = "created" if before is None else "deleted" if after is None else "changed"
    if len(before or "") + len(after or "") > _DIFF_CHARS:  # comparing it would take long
        run.lines.say("edit", id=id_, path=shown, change=change)
        return
    diff = difflib.unified_diff(
        (before or "").splitlines(keepends=True),
        (after or "").splitlines(keepends=True),
        "/dev/null" if before is None else f"a/{shown}",
        "/dev/null" if after is None else f"b/{shown}",
    )
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in diff)
    run.lines.say("edit", id=id_, path=shown, change=change, diff=text[:TEXT_CHARS])


def lint_edited(original: Callable[..., object], run: Run) -> Callable[..., object]:
    def lint_edited(self: object, fnames: Sequence[str]) -> object:
        run.commands += 1
        id_, files = f"lint-{run.commands}", sorted(name for name in fnames if name)
        run.lines.say("lint", id=id_, status="in_progress", files=files)
        run.open_call = ("lint", id_)
        run.linting, self.io.hushed = True, True  # type: ignore[attr-defined]
        errors = original(self, fnames)
        run.linting, self.io.hushed = False, False  # type: ignore[attr-defined]
        run.open_call = None
        status = "failed" if errors else "completed"
        # aider names the interpreter that it runs the linter with, to the model as well.
        output = str(errors or "").replace(sys.executable, "python")
        run.lines.say("lint", id=id_, status=status, output=output.strip()[:TEXT_CHARS])
        return output

    return lint_edited


def cmd_test(original: Callable[..., object], run: Run) -> Callable[..., object]:
    def cmd_test(self: object, args: object) -> object:
        run.testing = True
        errors = original(self, args)
        run.testing = False
        if errors and not run.turns:
            run.blame("check_failed", "the tests fail")  # --test, and nothing was asked
        return errors

    return cmd_test


def run_cmd(run: Run) -> Callable[..., object]:
    def run_cmd(command: str, *arguments: object, **options: object) -> tuple[int, str]:
        cwd = options.get("cwd")
        return run.execute(command, None if cwd is None else str(cwd))

    return run_cmd


def commit(original: Callable[..., object], run: Run) -> Callable[..., object]:
    def commit(self: object, *arguments: object, **options: object) -> object:
        complaints = count(self.io, "num_error_outputs")  # type: ignore[attr-defined]
        done = original(self, *arguments, **options)
        if done:
            hash_, message = map(str, pair(done))
            root = str(getattr(self, "root", "."))
            files = git_says(root, "show", "--format=", "--name-only", hash_)
            run.lines.say("commit", hash=hash_, message=message, files=files)
        elif count(self.io, "num_error_outputs") != complaints:  # type: ignore[attr-defined]
            run.blame("unknown", run.last_complaint)
        return done

    return commit
