"""The rules of a description: which lines they match and what these lines then say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Discriminator, Field, GetCoreSchemaHandler, Tag, model_validator
from pydantic_core import CoreSchema, core_schema

from adapters.jsonl.paths import PathField, Scope, WhenField, is_list
from adapters.jsonl.values import (
    ASKED,
    ERROR_KINDS,
    PLAN_STATUSES,
    RAN,
    ROLES,
    STOP_REASONS,
    TOOL_KINDS,
    TOOL_STATUSES,
    AskedWord,
    Constant,
    ErrorWord,
    KindWord,
    PlanWord,
    RanWord,
    Regex,
    Role,
    RoleWord,
    Scalar,
    StatusWord,
    StopWord,
    Strict,
    Value,
    amount_of,
    count_of,
    flag_of,
    form,
    name_of,
    printed,
    read,
    same,
    shown,
    status_of,
    text_of,
)
from orchestrator.events import (
    Context,
    Error,
    Location,
    Message,
    MessageDelta,
    Notice,
    Permission,
    Plan,
    PlanEntry,
    RateLimit,
    Retry,
    SessionStarted,
    Subagent,
    Thought,
    ThoughtDelta,
    ToolCall,
    TurnFinished,
    TurnStarted,
    Update,
    Usage,
)
from orchestrator.model_errors import error_kind

# --- conditions ------------------------------------------------------------


class Test(Strict):
    """A condition other than equality. All that are given must hold."""

    exists: bool | None = Field(
        default=None, description="Whether there is a value (null is none)."
    )
    matches: Regex | None = Field(
        default=None, description="The text contains this regular expression."
    )
    is_not: Scalar | list[Scalar] | None = Field(
        default=None, description="The value is there and is none of these."
    )

    @model_validator(mode="after")
    def _something(self) -> Test:
        if not self.model_fields_set:
            raise ValueError("`exists`, `matches` or `is_not`")
        return self

    def holds(self, value: object | None) -> bool:
        """Whether the value (None: not there) is as wanted."""
        if self.exists is not None and self.exists != (value is not None):
            return False
        if self.matches is not None and not self.matches.search(text_of(value) or shown(value)):
            return False
        return self.is_not is None or (value is not None and not _is_any(value, self.is_not))


def _is_any(value: object | None, wanted: Scalar | Sequence[Scalar]) -> bool:
    """Whether the value, or one of those that a path with `[]` found, is one of the wanted."""
    if value is None:
        return False  # most rules are about other lines
    values = value if is_list(value) else [value]
    scalars: Sequence[Scalar] = [wanted] if isinstance(wanted, str | int | float) else wanted
    return any(same(one, scalar) for one in values for scalar in scalars)


Condition = Annotated[
    Annotated[Scalar, Tag("leaf")]
    | Annotated[Test, Tag("table")]
    | Annotated[list[Scalar], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "table" if isinstance(value, Test) else form(value)),
]


# --- rules ------------------------------------------------------------


class BaseRule(Strict):
    """When a line matches, and what it then says."""

    when: dict[WhenField, Condition] = Field(
        {}, description="All must hold: path = value, a list of values (any of them), or a test."
    )
    each: PathField | None = Field(
        None, description="A list in the line: the rule is asked for each item; `.` is the item."
    )

    def read(self, line: Scope) -> Iterable[Update]:
        """What the line says by this rule."""
        if self.each is not None:
            return (update for scope in self.scopes(line) for update in self.updates(scope))
        return self.updates(line) if self._applies(line) else ()

    def scopes(self, line: Scope) -> Iterator[Scope]:
        """The line, or its items, where everything in `when` holds."""
        items: object = [line.item]
        if self.each is not None:
            items = self.each.find(line)
        for item in items if is_list(items) else ():
            scope = Scope(line.line, item)
            if self._applies(scope):
                yield scope

    def _applies(self, scope: Scope) -> bool:
        for path, condition in self.when.items():  # noqa: SIM110 (a generator takes twice as long)
            if not _holds(path.find(scope), condition):
                return False
        return True

    def updates(self, scope: Scope) -> Iterator[Update]:
        """What one match says; nothing if a value that is needed is not there."""
        yield from ()


def _holds(value: object | None, condition: Scalar | Test | Sequence[Scalar]) -> bool:
    return condition.holds(value) if isinstance(condition, Test) else _is_any(value, condition)


class SessionRule(BaseRule):
    """The agent's own conversation. It may be stated on every line: only what is new is said."""

    emit: Literal["session.started"]
    session_id: Value = Field(description="What the agent can be resumed with.")
    model: Value | None = Field(None, description="The model that the agent says it uses.")
    tools: Value | None = Field(None, description="The names of the tools that it has.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        if session_id := name_of(read(self.session_id, scope)):
            tools = read(self.tools, scope)
            yield SessionStarted(
                session_id=session_id,
                model=text_of(read(self.model, scope)),
                tools=[tool for tool in tools if isinstance(tool, str)] if is_list(tools) else None,
            )


class TurnStartedRule(BaseRule):
    """The agent goes to work (again). What ended or failed before is no longer the last word."""

    emit: Literal["turn.started"]

    def updates(self, scope: Scope) -> Iterator[Update]:
        yield TurnStarted()


class _Said(BaseRule):
    text: Value = Field(description="The text.")
    id: Value | None = Field(None, description="What the pieces of one message have in common.")


class _Spoken(_Said):
    role: RoleWord | None = Field(None, description="`assistant` unless stated.")

    def speaker(self, scope: Scope) -> Role:
        """Whose message it is."""
        if self.role is None:
            return "assistant"
        return ROLES.get(shown(read(self.role, scope)), "assistant")


class MessageRule(_Spoken):
    """A whole message. The assistant's last one is the run's text."""

    emit: Literal["message"]

    def updates(self, scope: Scope) -> Iterator[Update]:
        if (text := text_of(read(self.text, scope))) is not None:
            yield Message(text, name_of(read(self.id, scope)), self.speaker(scope))


class MessageDeltaRule(_Spoken):
    """A piece of a message. Where no whole message follows, the pieces are put together."""

    emit: Literal["message.delta"]

    def updates(self, scope: Scope) -> Iterator[Update]:
        if (text := text_of(read(self.text, scope))) is not None:
            yield MessageDelta(text, name_of(read(self.id, scope)), self.speaker(scope))


class ThoughtRule(_Said):
    """A whole block of the model's reasoning."""

    emit: Literal["thought"]

    def updates(self, scope: Scope) -> Iterator[Update]:
        if (text := text_of(read(self.text, scope))) is not None:
            yield Thought(text=text, id=name_of(read(self.id, scope)))


class ThoughtDeltaRule(_Said):
    """A piece of the model's reasoning."""

    emit: Literal["thought.delta"]

    def updates(self, scope: Scope) -> Iterator[Update]:
        if (text := text_of(read(self.text, scope))) is not None:
            yield ThoughtDelta(text=text, id=name_of(read(self.id, scope)))


class ToolCallRule(BaseRule):
    """A tool call, or news of one: an upsert by id."""

    emit: Literal["tool_call"]
    id: Value = Field(description="The call's id.")
    status: StatusWord | None = Field(None, description="pending, in_progress, completed, failed.")
    kind: KindWord | None = Field(
        None, description="read, edit, delete, move, search, execute, think, fetch, other."
    )
    title: Value | None = Field(None, description="What the call is, in a few words.")
    input: Value | None = Field(None, description="The call's arguments: any JSON.")
    output: Value | None = Field(None, description="What it gave: any JSON, shown as text.")
    exit_code: Value | None = Field(None, description="A command's exit status.")
    diff: Value | None = Field(None, description="A unified diff of what it changed.")
    locations: Value | None = Field(None, description="Path or paths that it touched.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        if id_ := name_of(read(self.id, scope)):
            yield ToolCall(
                id=id_,
                status=TOOL_STATUSES.get(shown(read(self.status, scope))),
                kind=TOOL_KINDS.get(shown(read(self.kind, scope))),
                title=text_of(read(self.title, scope)),
                input=read(self.input, scope),
                output=printed(read(self.output, scope)),
                locations=_locations(read(self.locations, scope)),
                diff=printed(read(self.diff, scope)),
                exit_code=status_of(read(self.exit_code, scope)),
            )


def _locations(value: object) -> list[Location] | None:
    paths = value if is_list(value) else [value]
    return [Location(path=path) for path in paths if isinstance(path, str) and path] or None


class PlanRule(BaseRule):
    """The agent's plan, whole. `text` and `status` are read in each entry."""

    emit: Literal["plan"]
    entries: PathField = Field(description="The list of entries.")
    text: Value = Field(description="An entry's text; `.` is the entry.")
    status: PlanWord | None = Field(None, description="pending, in_progress, completed.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        found = self.entries.find(scope)
        if is_list(found):
            entries = [self._entry(Scope(scope.line, entry)) for entry in found]
            yield Plan(entries=[entry for entry in entries if entry.text])

    def _entry(self, scope: Scope) -> PlanEntry:
        status = PLAN_STATUSES.get(shown(read(self.status, scope)), "pending")
        return PlanEntry(text=text_of(read(self.text, scope)) or "", status=status)


class PermissionRule(BaseRule):
    """The agent was allowed or denied something; a denial is `denied` unless the check passes."""

    emit: Literal["permission"]
    id: Value = Field(description="The permission's or the call's id.")
    status: AskedWord = Field(description="requested, granted, denied.")
    tool: Value | None = Field(None, description="The tool it was about.")
    reason: Value | None = Field(None, description="Why.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        id_ = name_of(read(self.id, scope))
        status = ASKED.get(shown(read(self.status, scope)))
        if id_ and status is not None:
            tool, reason = text_of(read(self.tool, scope)), text_of(read(self.reason, scope))
            yield Permission(id=id_, status=status, tool=tool, reason=reason)


class SubagentRule(BaseRule):
    """An agent that this agent started."""

    emit: Literal["subagent"]
    id: Value = Field(description="Its id.")
    status: RanWord = Field(description="started, completed, failed.")
    child_agent: Value | None = Field(None, description="Its name.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        id_ = name_of(read(self.id, scope))
        status = RAN.get(shown(read(self.status, scope)))
        if id_ and status is not None:
            child = text_of(read(self.child_agent, scope))
            yield Subagent(id=id_, status=status, child_agent=child)


class UsageRule(BaseRule):
    """Tokens and cost. What is not stated stays unknown; 0 is zero."""

    emit: Literal["usage"]
    input_tokens: Value | None = Field(None, description="Without cached ones (use `minus`).")
    output_tokens: Value | None = Field(None, description="With reasoning (use `plus`).")
    cache_read_tokens: Value | None = Field(None, description="Read from the cache.")
    cache_write_tokens: Value | None = Field(None, description="Written to the cache.")
    reasoning_tokens: Value | None = Field(None, description="Reasoning, part of the output.")
    cost_usd: Value | None = Field(None, description="Dollars, as the CLI reckons them.")
    counts: Literal["delta", "run", "session"] = Field(
        "delta", description="What a line counts: itself, all of the run, or all of the session."
    )
    scope: Literal["call", "turn", "run"] = Field("call", description="What the tokens are of.")

    @property
    def counts_tokens(self) -> bool:
        """Whether it states tokens."""
        said = (self.input_tokens, self.output_tokens, self.cache_read_tokens)
        also = (self.cache_write_tokens, self.reasoning_tokens)
        return any(value is not None for value in (*said, *also))

    def updates(self, scope: Scope) -> Iterator[Update]:
        cost = amount_of(read(self.cost_usd, scope))
        usage = Usage(
            input_tokens=count_of(read(self.input_tokens, scope)),
            output_tokens=count_of(read(self.output_tokens, scope)),
            cache_read_tokens=count_of(read(self.cache_read_tokens, scope)),
            cache_write_tokens=count_of(read(self.cache_write_tokens, scope)),
            reasoning_tokens=count_of(read(self.reasoning_tokens, scope)),
            cost_usd=cost,
            cost_source=None if cost is None else "agent",
            scope=self.scope,
        )
        if usage != Usage(scope=self.scope):
            yield usage


class ContextRule(BaseRule):
    """How full the model's context window is, in tokens."""

    emit: Literal["context"]
    used: Value | None = Field(None, description="Tokens in it.")
    size: Value | None = Field(None, description="Tokens that fit.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        used, size = count_of(read(self.used, scope)), count_of(read(self.size, scope))
        if used is not None or size is not None:
            yield Context(used=used, size=size)


class RateLimitRule(BaseRule):
    """The provider's word on its limits."""

    emit: Literal["rate_limit"]
    status: Value = Field(description="The word.")
    resets_at: Value | None = Field(None, description="RFC 3339.")
    exhausted: Value | None = Field(None, description="Whether nothing is left.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        if status := text_of(read(self.status, scope)):
            yield RateLimit(
                status=status,
                resets_at=text_of(read(self.resets_at, scope)),
                exhausted=flag_of(read(self.exhausted, scope)),
            )


class RetryRule(BaseRule):
    """The agent tries a request again by itself."""

    emit: Literal["retry"]
    reason: Value = Field(description="Why.")
    attempt: Value | None = Field(None, description="Which attempt this is.")
    of: Value | None = Field(None, description="Of how many.")
    delay_s: Value | None = Field(None, description="After how many seconds.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        if (reason := printed(read(self.reason, scope))) is not None:
            yield Retry(
                reason=reason,
                attempt=count_of(read(self.attempt, scope)),
                of=count_of(read(self.of, scope)),
                delay_s=amount_of(read(self.delay_s, scope)),
            )


class NoticeRule(BaseRule):
    """Something worth knowing that decides nothing."""

    emit: Literal["notice"]
    text: Value = Field(description="The text.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        if (text := printed(read(self.text, scope))) is not None:
            yield Notice(text=text)


class ErrorRule(BaseRule):
    """The turn failed for good. What is tried again is a `retry` or a `notice`."""

    emit: Literal["error"]
    text: Value = Field(description="What failed.")
    kind: ErrorWord | None = Field(
        None, description="Without it, the text and `status` decide (a 401 is `auth_failed`)."
    )
    status: Value | None = Field(None, description="The HTTP status, if there was one.")
    retryable: Value | None = Field(None, description="Whether it may work the next time.")
    hint: Value | None = Field(None, description="What to do about it.")
    resets_at: Value | None = Field(None, description="When it may work again, RFC 3339.")

    def updates(self, scope: Scope) -> Iterator[Update]:
        # An error without the text that was expected is still an error.
        found = printed(read(self.text, scope))
        text = found or printed(scope.item) or ""
        kind = ERROR_KINDS.get(shown(read(self.kind, scope)))
        yield Error(
            kind=kind or error_kind(text, status_of(read(self.status, scope))),
            text=text,
            retryable=flag_of(read(self.retryable, scope)),
            hint=text_of(read(self.hint, scope)),
            resets_at=text_of(read(self.resets_at, scope)),
        )
        yield TurnFinished(stop_reason="error")


class TurnFinishedRule(BaseRule):
    """The agent's own word that it is done: `end_turn` is what success needs."""

    emit: Literal["turn.finished"]
    stop_reason: StopWord = Field(
        description="end_turn, max_tokens, max_turn_requests, refusal, cancelled, error."
    )

    @model_validator(mode="after")
    def _not_always(self) -> TurnFinishedRule:
        if not self.when and _may_be(self.stop_reason, Constant):
            raise ValueError("a fixed `stop_reason` needs a `when`: not every line is the end")
        return self

    def updates(self, scope: Scope) -> Iterator[Update]:
        reason = STOP_REASONS.get(shown(read(self.stop_reason, scope)))
        if reason is not None:
            yield TurnFinished(stop_reason=reason)


def _may_be(value: object, kind: type[Constant]) -> bool:
    return any(isinstance(one, kind) for one in (value if is_list(value) else [value]))


class IgnoreRule(BaseRule):
    """A line that is known and of no interest: kept as `unparsed`, with that reason."""

    emit: Literal["ignore"]


class _ByWhatItEmits:
    """Makes schemas of the rules that a description has: those of all take longer to make than
    everything else that reading it takes. A problem is told as by `Discriminator("emit")`.
    """

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        by_itself = core_schema.no_info_plain_validator_function
        choices: dict[object, CoreSchema] = {
            emit: by_itself(rule.model_validate) for emit, rule in RULES.items()
        }
        return core_schema.tagged_union_schema(choices, "emit")


Rule = Annotated[
    SessionRule
    | TurnStartedRule
    | MessageRule
    | MessageDeltaRule
    | ThoughtRule
    | ThoughtDeltaRule
    | ToolCallRule
    | PlanRule
    | PermissionRule
    | SubagentRule
    | UsageRule
    | ContextRule
    | RateLimitRule
    | RetryRule
    | NoticeRule
    | ErrorRule
    | TurnFinishedRule
    | IgnoreRule,
    _ByWhatItEmits(),
]
RULES: Mapping[str, type[BaseRule]] = MappingProxyType(
    {
        "session.started": SessionRule,
        "turn.started": TurnStartedRule,
        "message": MessageRule,
        "message.delta": MessageDeltaRule,
        "thought": ThoughtRule,
        "thought.delta": ThoughtDeltaRule,
        "tool_call": ToolCallRule,
        "plan": PlanRule,
        "permission": PermissionRule,
        "subagent": SubagentRule,
        "usage": UsageRule,
        "context": ContextRule,
        "rate_limit": RateLimitRule,
        "retry": RetryRule,
        "notice": NoticeRule,
        "error": ErrorRule,
        "turn.finished": TurnFinishedRule,
        "ignore": IgnoreRule,
    }
)
"""Every rule by what it emits."""
