"""What fits: a model's window, size and tools against an agent and its task."""

from dataclasses import replace

import pytest

from orchestrator.adapter import About, Agent
from orchestrator.events import Error
from orchestrator.fit import Fit, billions, estimate, fit
from orchestrator.server import Model, ModelServer
from orchestrator.task import Task

KIND = ModelServer(
    name="ollama",
    title="Ollama",
    port=1,
    more_context="OLLAMA_CONTEXT_LENGTH={context} ollama serve",
    context_hint="Or set `num_ctx` in the model's Modelfile.",
)
HEAVY = About(
    name="heavy",
    title="Heavy",
    program=None,
    prompt_tokens=6_300,
    lean_prompt_tokens=1_900,
    lean={"compact": True},
    window_option="window",
    tools=True,
)
STIFF = About(name="stiff", title="Stiff", program=None, prompt_tokens=6_300)
LIGHT = About(name="light", title="Light", program=None, prompt_tokens=1_000, tools=False)
AGENT = Agent(name="mine", adapter="heavy", model="qwen:14b")


def fits(model: Model, about: About = HEAVY, agent: Agent = AGENT, **known: object) -> Fit | Error:
    given: dict[str, object] = {"wanted": 100, **known}
    return fit(agent, about, model, KIND, **given)  # type: ignore[arg-type]


def fitted(model: Model, **known: object) -> Fit:
    found = fits(model, **known)  # type: ignore[arg-type]
    assert isinstance(found, Fit)
    return found


def refused(model: Model, **known: object) -> Error:
    found = fits(model, **known)  # type: ignore[arg-type]
    assert isinstance(found, Error)
    return found


def test_what_nobody_knows_is_no_reason_against_anything():
    assert fitted(Model(name="x")) == Fit(agent=AGENT)


def test_a_large_window_is_told_to_the_agent_and_nothing_else_changes():
    found = fitted(Model(name="x:14b", context=32_768))
    assert (dict(found.agent.options), found.notes) == ({"window": 32_768}, ())


def test_what_the_user_has_set_stands():
    agent = replace(AGENT, options={"compact": False, "window": 9})
    found = fitted(Model(name="x", context=16_384), agent=agent)
    assert dict(found.agent.options) == {"compact": False, "window": 9}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Model(name="x:14b", context=8_192), "the window of x:14b has 8192 tokens"),
        (Model(name="x:7b"), "x:7b has 7 billion parameters"),
    ],
)
def test_a_small_window_or_a_small_model_gets_the_leanest_form(model, why):
    found = fitted(model)
    assert found.agent.options["compact"] is True
    assert found.notes == (f"compact: Heavy in its leanest form, as {why}",)


def test_an_agent_in_the_users_own_home_keeps_the_form_that_it_has_there():
    found = fitted(Model(name="qwen:7b", context=64_000), agent=replace(AGENT, profile="user"))
    assert "compact" not in found.agent.options
    assert not any("leanest" in note for note in found.notes)


def test_a_window_that_holds_not_even_the_leanest_form_is_refused_with_what_would_help():
    error = refused(Model(name="x", context=4_000), others={"light": replace(LIGHT, lean={})})
    assert error.kind == "context_overflow"
    assert error.text == (
        "The window of x has 4000 tokens: too few for Heavy"
        " (its own prompt 1900, the task about 100, an answer 2048)."
    )
    assert error.hint == (
        "Give it more: `OLLAMA_CONTEXT_LENGTH=32768 ollama serve`."
        " Or set `num_ctx` in the model's Modelfile. Or use light, which fits."
        " Or give the task less to read (`files:`)."
    )


def test_force_opens_no_window():
    assert refused(Model(name="x", context=4_000), force=True).kind == "context_overflow"


def test_a_long_task_wants_a_window_that_holds_it():
    error = refused(Model(name="x", context=32_768), wanted=60_000)
    assert error.hint is not None
    assert "OLLAMA_CONTEXT_LENGTH=131072" in error.hint
    assert "which fits" not in error.hint


def test_a_model_that_can_hold_no_more_is_not_told_to():
    error = refused(Model(name="x", context=2_048, context_possible=2_048))
    assert error.hint == "Or give the task less to read (`files:`)."


def test_a_server_that_nobody_can_tell_how_to_widen():
    plain = ModelServer(name="p", title="P", port=None)
    found = fit(AGENT, HEAVY, Model(name="x", context=2_048), plain, wanted=1)
    assert isinstance(found, Error)
    assert (found.hint or "").startswith("Start its server with a larger context.")
    bare = replace(KIND, context_hint=None)
    found = fit(AGENT, HEAVY, Model(name="x", context=2_048), bare, wanted=1)
    assert isinstance(found, Error)
    assert "Modelfile" not in (found.hint or "")


def test_a_heavy_agent_on_a_small_model_is_warned_about_and_the_one_that_would_fit_is_named():
    others = {"light": LIGHT, "silent": About(name="silent", title="S", program=None)}
    found = fitted(Model(name="x:3b"), about=STIFF, others=others)
    text = "Stiff is heavy for x:3b (3 billion parameters): 6300 tokens of instructions"
    assert found.notes == (f"{text}; light would fit",)
    assert fitted(Model(name="x:3b"), about=STIFF).notes == (text,)
    assert fitted(Model(name="x:3b"), about=STIFF, others=others, force=True).notes == ()
    assert fitted(Model(name="x:3b"), about=LIGHT).notes == ()


@pytest.mark.parametrize("needs", [True, False])
def test_a_model_without_tools_is_refused_to_those_who_need_them(needs):
    about = replace(HEAVY, tools=needs)
    found = fits(Model(name="x", tools=False), about=about)
    assert isinstance(found, Error) == needs


def test_without_tools_the_one_that_needs_none_is_named():
    error = refused(Model(name="x", tools=False), others={"heavy": HEAVY, "light": LIGHT})
    assert error.kind == "tools_unsupported"
    assert error.text == "x calls no tools, and Heavy does nothing without them."
    assert error.hint == (
        "Take a model that does, such as qwen2.5-coder:14b, or use light, which needs none."
    )
    kind = replace(KIND, tools_hint="Start it with `--jinja`.")
    found = fit(AGENT, HEAVY, Model(name="x", tools=False), kind, wanted=1)
    assert isinstance(found, Error)
    assert (found.hint or "").endswith("qwen2.5-coder:14b. Start it with `--jinja`.")


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (Model(name="qwen2.5-coder:7b"), 7.0),
        (Model(name="qwen3-coder-30b-a3b-instruct"), 30.0),
        (Model(name="x", parameters="14.8B"), 14.8),
        (Model(name="x:70b", parameters="494M"), 0.494),
        (Model(name="gpt-oss"), None),
        (Model(name="phi-4-mini"), None),
    ],
)
def test_the_size_of_a_model_by_its_server_or_by_its_name(model, size):
    assert billions(model) == size


def test_a_task_is_measured_by_its_prompt_and_its_files():
    assert estimate(Task(prompt="x" * 350), [350]) == 200
