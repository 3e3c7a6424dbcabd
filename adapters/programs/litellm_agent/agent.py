"""mini-swe-agent's agent with our model and environment; its prompts are its own.

To be imported when mini-swe-agent is known to be there.
"""

from __future__ import annotations

import yaml  # mini-swe-agent's own dependency
from minisweagent.agents.default import DefaultAgent
from minisweagent.config import builtin_config_dir
from minisweagent.environments.local import LocalEnvironment
from minisweagent.exceptions import FormatError, LimitsExceeded, Submitted
from minisweagent.models.litellm_model import LitellmModel
from minisweagent.models.utils.actions_toolcall import BASH_TOOL

from adapters.programs.asked import Json
from adapters.programs.litellm_agent.answers import is_answer, request_text, why_unusable
from adapters.programs.litellm_agent.calls import Caller, model_kwargs
from adapters.programs.litellm_agent.run import Run
from adapters.programs.litellm_agent.settings import Settings
from adapters.programs.model_calls import ModelError


def agent_of(settings: Settings, run: Run, caller: Caller, history: list[Json]) -> object:
    """The agent, which is to be run with `request_text`. `history`: of the session that goes on."""
    config = yaml.safe_load((builtin_config_dir / "mini.yaml").read_text(encoding="utf-8"))
    templates = config["agent"]
    model = Model(
        settings,
        run,
        caller,
        goes_on=bool(history),
        model_kwargs=model_kwargs(settings, config["model"].pop("model_kwargs", {})),
        cost_tracking="ignore_errors",
        set_cache_control="default_end" if "claude" in settings.model.lower() else None,
        **config["model"],
    )
    return Agent(
        settings,
        run,
        history,
        model=model,
        env=Environment(settings, run),
        system_template=templates["system_template"],
        instance_template=templates["instance_template"],
        step_limit=0,
        cost_limit=settings.cost_usd or 0.0,
    )


class Model(LitellmModel):  # type: ignore[misc]  # untyped
    """Calls the model as `Caller` does. A text can end the turn, as with every other agent."""

    def __init__(
        self, settings: Settings, run: Run, caller: Caller, *, goes_on: bool, **config: object
    ) -> None:
        super().__init__(model_name=settings.model, **config)
        self._settings = settings
        self._run = run
        self._caller = caller
        self._goes_on = goes_on

    def _query(self, messages: list[Json], **kwargs: object) -> object:
        request = self.config.model_kwargs | kwargs
        model = self._settings.model
        return self._caller.complete(model=model, messages=messages, tools=[BASH_TOOL], **request)

    def _calculate_cost(self, response: object) -> dict[str, float]:
        return {"cost": self._caller.cost or 0.0}

    def _parse_actions(self, response: object) -> object:
        choice = response.choices[0]  # type: ignore[attr-defined]
        if choice.finish_reason == "content_filter":
            raise ModelError("the model refused to answer", kind="refused")
        run = self._run
        worked = run.tool_calls > 0 or self._goes_on or self._settings.may_only_answer
        if is_answer(choice.message, choice.finish_reason, worked=worked):
            raise Submitted(choice.message.model_dump(), _exit("Submitted"))
        try:
            return super()._parse_actions(response)
        except FormatError:
            run.cut_off = choice.finish_reason == "length"
            run.lines.say("format_error", text=why_unusable(choice))
            raise


class Environment(LocalEnvironment):  # type: ignore[misc]  # untyped
    """Runs commands of the model in our shell, as far as the limit of steps allows."""

    def __init__(self, settings: Settings, run: Run) -> None:
        super().__init__(cwd=settings.workspace)
        self._settings = settings
        self._run = run

    def execute(
        self, action: Json, cwd: str = "", *, timeout: int | None = None
    ) -> dict[str, object]:
        steps = self._settings.steps
        if steps is not None and self._run.tool_calls >= steps:
            raise LimitsExceeded(_exit("LimitsExceeded", limit="steps"))
        ran = self._run.execute(action.get("command"), self._settings)
        output: dict[str, object] = {
            "output": ran.output,
            "returncode": -1 if ran.exit_code is None else ran.exit_code,
            "exception_info": ran.problem,
        }
        self._check_finished(output)
        return output


class Agent(DefaultAgent):  # type: ignore[misc]  # untyped
    """Goes on with a session, and keeps it after each message."""

    def __init__(self, settings: Settings, run: Run, history: list[Json], **config: object) -> None:
        self._settings = settings
        self._run = run
        self._history = history
        super().__init__(**config)

    def add_messages(self, *messages: Json) -> list[Json]:
        if self._history and not self.messages:
            # The first are the system's and the user's: a session that goes on has its own.
            asked: Json = {"role": "user", "content": request_text(self._settings)}
            messages = (*self._history, asked)
        added: list[Json] = super().add_messages(*messages)
        if self._run.session is not None:
            self._run.session.save(self.messages, self._settings.model)
        return added


def _exit(status: str, **more: object) -> Json:
    """mini-swe-agent's last message."""
    extra = {"exit_status": status, "submission": "", **more}
    return {"role": "exit", "content": "", "extra": extra}
