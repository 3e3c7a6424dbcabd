"""What aider says, asks and reads, where it has a terminal, its flags and its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from adapters.programs.aider_front.folders import lend_identity, session_folder
from adapters.programs.aider_front.replacing import nothing
from adapters.programs.aider_front.run import TEXT_CHARS, Run, Stop
from adapters.programs.asked import BAD_SETTINGS

_CONFIG_FILE = ".aider.conf.yml"


DEFAULTS: Mapping[str, object] = {
    "analytics": False,
    "check_update": False,
    "detect_urls": False,
    "disable_playwright": True,
    "fancy_input": False,
    "gitignore": False,
    "notifications": False,
    "pretty": False,
    "show_model_warnings": False,
    "show_release_notes": False,
}
"""Our defaults of aider's settings: no look-up, no litter. Its files and flags still win."""


class _NoConsole:
    """Where aider would print."""

    print = rule = staticmethod(nothing)


class Told:
    """What stands between aider and a terminal, before aider's own class: it is told as lines, and
    answered at once.
    """

    told_of: Run
    hushed = False

    def __init__(self, pretty: object, yes: object, *arguments: object, **options: object) -> None:
        options.update(fancy_input=False, notifications=False)
        self.console = _NoConsole()
        # Nobody is there to be asked: what is not refused by a flag is allowed.
        super().__init__(False, yes is not False, *arguments, **options)  # type: ignore[call-arg]  # noqa: FBT003
        self.console = _NoConsole()

    def _told(self, level: str, text: object) -> None:
        if level == "error":
            self.told_of.last_complaint = str(text).strip()
        if not self.hushed and str(text).strip():
            self.told_of.lines.say("log", level=level, text=str(text).strip()[:TEXT_CHARS])

    def tool_error(self, message: object = "", strip: bool = True) -> None:
        super().tool_error(str(message), strip)  # type: ignore[misc]
        self._told("error", message)

    def tool_warning(self, message: object = "", strip: bool = True) -> None:
        super().tool_warning(str(message), strip)  # type: ignore[misc]
        self._told("warning", message)

    def tool_output(self, *messages: object, **options: object) -> None:
        super().tool_output(*map(str, messages), **options)  # type: ignore[misc]
        if not options.get("log_only"):
            self._told("info", " ".join(map(str, messages)))

    def confirm_ask(self, question: str, *arguments: object, **options: object) -> bool:
        self.hushed = True
        answer: bool = super().confirm_ask(question, *arguments, **options)  # type: ignore[misc]
        self.hushed = False
        subject = options.get("subject")
        said = "yes" if answer else "no"
        self.told_of.lines.say("auto_answer", question=question, subject=subject, answer=said)
        return answer

    def prompt_ask(self, question: str, *arguments: object, **options: object) -> object:
        answer = super().prompt_ask(question, *arguments, **options)  # type: ignore[misc]
        self.told_of.lines.say("auto_answer", question=question, answer=str(answer))
        return answer

    def offer_url(self, *arguments: object, **options: object) -> bool:
        return False

    def get_input(self, *arguments: object, **options: object) -> NoReturn:
        raise EOFError

    def rule(self) -> None: ...

    def ring_bell(self) -> None: ...

    def print(self, message: object = "") -> None:
        self._told("info", message)

    def assistant_output(self, message: object, pretty: object = None) -> None: ...

    def user_input(self, inp: str, log_only: bool = True) -> None:
        super().user_input(inp, log_only=True)  # type: ignore[misc]


def screen(original: Callable[..., object], run: Run) -> object:
    """`Told` in the place of aider's class, which it is then made of."""
    assert isinstance(original, type)  # noqa: S101  (it is a class in every version)
    return type("Screen", (Told, original), {"told_of": run})


def parser(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """Aider's flags, with our defaults and without the work tree's configuration if unwanted."""

    def refuse(message: str) -> NoReturn:
        raise Stop(f"aider: {message}", code=BAD_SETTINGS, kind="bad_usage", retryable=False)

    def get_parser(default_config_files: Sequence[str], git_root: str | None) -> object:
        settings = run.settings
        own = str(Path.home() / _CONFIG_FILE)
        known = [file for file in default_config_files if settings.project_config or file == own]
        parser = original(known, git_root)
        folder = session_folder(run)
        parser.set_defaults(  # type: ignore[attr-defined]
            **DEFAULTS,
            input_history_file=str(folder / "input.history"),
            chat_history_file=str(folder / "chat.history.md"),
        )
        parser.error = refuse  # type: ignore[attr-defined]
        parse = parser.parse_args  # type: ignore[attr-defined]

        def parse_args(*arguments: object, **options: object) -> object:
            run.asked = parse(*arguments, **options)
            if getattr(run.asked, "gui", None):
                refuse("--gui shows a page in a browser: there is nothing to tell as lines")
            return run.asked

        parser.parse_args = parse_args  # type: ignore[attr-defined]
        return parser

    return get_parser


def search_path(original: Callable[..., object], run: Run) -> Callable[..., object]:
    """Where settings of models, `.env` and the like are looked for."""

    def generate(default_file: str, git_root: str | None, named: str | None) -> object:
        if run.settings.project_config:
            return original(default_file, git_root, named)
        found = [Path.home() / default_file]
        if named and Path(named).name != default_file:
            found.append(Path(named))
        return [str(path.resolve()) for path in found]

    return generate


def is_command(original: Callable[..., object], run: Run) -> Callable[..., object]:
    # A prompt is words for the model, also if it begins with "/" or "!".
    if run.settings.prompt is None:
        return original

    def is_command(self: object, text: str) -> bool:
        return False

    return is_command


def setup_git(run: Run) -> Callable[..., object]:
    """In the place of one that makes a repository where there is none, and edits its settings."""

    def setup_git(root: str | None, io: object) -> str | None:
        if root is None:
            run.lines.say("notice", text="this is no git repository, and none is made")
        else:
            lend_identity(root)
        return root

    return setup_git
