"""What an agent may ask about sub-tasks: each word with its parameters, as a model reads them, and
as they are checked. What is asked comes from a model: nothing in it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchestrator.delegation import Asked
from orchestrator.document import Text
from orchestrator.errors import NotUnderstoodError, first_problem
from orchestrator.events import Tier
from orchestrator.task import Access, Count, Depth, Dollars, Kind, LimitsModel, Privacy, Seconds

if TYPE_CHECKING:
    from pydantic import JsonValue

M = TypeVar("M", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Bounds(_Model):
    """The most that a sub-task may use; never more than what is left of yours."""

    wall: Seconds | None = Field(default=None, description="Time, such as 10m.")
    cost_usd: Dollars | None = Field(default=None, description="Dollars.")
    tokens: Count | None = Field(default=None, description="Tokens read and written.")
    steps: Count | None = Field(default=None, description="Tool calls.")
    depth: Depth | None = Field(
        default=None, description="How often it may hand work on in its turn."
    )


class Wanted(_Model):
    """A sub-task."""

    prompt: Annotated[str, StringConstraints(pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")] = Field(
        description="All that the other agent needs to know: it sees the files, but not your"
        " conversation."
    )
    kind: Kind | None = Field(
        default=None,
        description="Class of the work; decides who does it unless you name somebody. search,"
        " summary, review and plan only read.",
    )
    agent: Text | None = Field(default=None, description="Who does it, by a name of list_agents.")
    model: Text | None = Field(default=None, description="The model, as that agent names it.")
    tier: Tier | None = Field(default=None, description="local is free and private.")
    files: list[Text] = Field(
        default=[], max_length=1000, description="Files that matter, relative to the folder."
    )
    check: Text | None = Field(
        default=None, description="Shell command whose exit status 0 proves the work."
    )
    access: Access | None = Field(default=None, description="What it may do; default: by kind.")
    privacy: Privacy | None = Field(default=None, description="local: no cloud may see it.")
    workspace: Text | None = Field(default=None, description="A folder inside of yours.")
    limits: Bounds = Bounds()

    def asked(self) -> Asked:
        """The same as a value of the core."""
        stated = self.limits.model_dump(exclude_none=True)
        return Asked(
            prompt=self.prompt,
            kind=self.kind,
            agent=self.agent,
            model=self.model,
            tier=self.tier,
            files=tuple(self.files),
            check=self.check,
            access=self.access,
            privacy=self.privacy,
            workspace=self.workspace,
            limits=LimitsModel.model_validate(stated).limits(),
        )


_WAIT = "true: wait for the end; false: answer at once, and `result` has the rest later."


class Delegate(Wanted):
    """Hand a sub-task to another coding agent (local models, other providers), which works in a
    copy of the folder as it is now. The answer has its text, whether a check proved it, what it
    changed, the command that takes those changes over (`take`), and the cost. Good for a wide
    search, a review by another model, or a part that stands by itself.
    """

    wait: bool = Field(default=True, description=_WAIT)


class DelegateMany(_Model):
    """Hand several sub-tasks on at once; they run side by side, each in a copy of its own. The
    answer has a result for each, in order.
    """

    tasks: list[Wanted] = Field(min_length=1, max_length=100)
    wait: bool = Field(default=True, description=_WAIT)


class Status(_Model):
    """How your sub-tasks stand, or the one named. To wait for one, ask for its `result`: only then
    is a model that you share free for it.
    """

    id: Text | None = None


class Result(_Model):
    """The result of a sub-task; a long text in parts (`next_offset` of the one before)."""

    id: Text
    wait: bool = Field(default=True, description="false: how it stands, if it is not over.")
    offset: Annotated[int, Field(ge=0)] = Field(default=0, description="Where to begin.")


class Cancel(_Model):
    """End a sub-task and all its processes. What it did so far is the answer."""

    id: Text


class ListAgents(_Model):
    """Which agents there are now: model, tier, context window, price, whether they can run."""


WORDS: Mapping[str, type[BaseModel]] = {
    "delegate": Delegate,
    "delegate_many": DelegateMany,
    "status": Status,
    "result": Result,
    "cancel": Cancel,
    "list_agents": ListAgents,
}
"""What may be asked, and with which parameters."""


def meant(word: str, parameters: Mapping[str, JsonValue]) -> BaseModel:
    """The parameters, checked. Raises NotUnderstoodError."""
    model = WORDS.get(word)
    if model is None:
        raise NotUnderstoodError(f"nothing is known of {word[:100]!r} (known: {', '.join(WORDS)})")
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        raise NotUnderstoodError(f"{word}: {first_problem(error)}") from None
