"""Stored episodes under other policies: what would have been decided differently, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nr_agent.actions import Action, Recheck, Stop
from nr_agent.answers import states_answer
from nr_agent.episode import NOT_KEPT, Episode, Intervention, Step
from nr_agent.errors import PolicyError
from nr_agent.events import AnyFailureEvent
from nr_agent.policies.composition import Policies
from nr_agent.policies.protocol import PolicyContext
from nr_agent.policies.remedies import least_tokens
from nr_agent.tokens import STEP_END

_BUDGETS: Final = ("token_budget", "step_budget", "time_budget", "context")


@dataclass(frozen=True)
class Point:
    """A step with events, at which policies were asked.

    Attributes:
        step: its index.
        events: what was seen in it.
        was: what was done, in a word: `continue`, `recheck`, `rollback` (a recheck in the step's place), `branch`,
            `stop`, `ask_human`.
        now: what the other policies decide.
        policy: which of them.
        exact: whether everything before it was decided as it was recorded. Behind a difference the thinking would
            have gone another way, and nobody knows where.
        tokens_behind: tokens thought behind this step, which a stop would have saved.
    """

    step: int
    events: tuple[AnyFailureEvent, ...]
    was: str
    now: str
    policy: str
    exact: bool
    tokens_behind: int

    @property
    def changed(self) -> bool:
        """Whether it is decided differently."""
        return self.was != self.now


@dataclass(frozen=True)
class Replay:
    """An episode under other policies.

    Attributes:
        episode: as it was.
        points: its steps with events in order, up to the first at which it would have been stopped.
    """

    episode: Episode
    points: list[Point]

    @property
    def first_change(self) -> Point | None:
        """Where the other policies first decide differently; what is behind it is conjecture."""
        return next((point for point in self.points if point.changed), None)


def replay(episode: Episode, policies: Policies) -> Replay:
    """Ask policies again at every step of a finished episode.

    They see what they would have seen in the graph: the events and the thinking are the recorded ones, the counters
    are those of their own decisions. Under the policies that it was recorded with, an episode is as it was. Where they
    ask the detector for other alarms than those of the recording, nobody knows which events there would have been, and
    nothing is exact.

    Raises:
        PolicyError: the episode was stored without its texts, which policies read.
        PolicyError: a policy returned something that is no action.
    """
    if any(step.text == NOT_KEPT for step in episode.steps):
        raise PolicyError(
            f"episode {episode.id} was stored without its texts, and policies read them",
            hint="replay episodes of a store that keeps texts (keep_text)",
        )
    # Whether there was somebody to ask was no choice of the policies.
    asked = any(one.kind == "ask_human" for one in episode.interventions)
    policies = replace(policies, attended=bool(episode.settings.get("attended", asked)))
    walk = _Walk(episode)
    points: list[Point] = []
    for step in walk.moments():
        events = tuple(event for event in episode.events if event.step == step.index)
        if not events or walk.closes(step):
            continue
        decision = policies.decide([walk.context(event, step) for event in events])
        done = walk.interventions_on(events)
        was, now = _recorded(done), describe(decision.action)
        if not done and not isinstance(decision.action, Stop) and not walk.had_room(decision.action, step):
            now = "continue"  # it could not be carried out
        exact = same_alarms(episode, policies) and not any(point.changed for point in points)
        points.append(Point(step.index, events, was, now, decision.policy, exact, walk.tokens_behind(step)))
        walk.count(decision.action.type if now != "continue" else "continue", done, same=was == now)
        if now == "stop":
            break
    return Replay(episode, points)


def same_alarms(episode: Episode, policies: Policies) -> bool:
    """Whether an episode was recorded with the alarms that policies ask for; older ones are taken for such."""
    return dict(episode.settings.get("alarms", policies.alarms)) == dict(policies.alarms)


def describe(action: Action) -> str:
    """An action in a word."""
    return "rollback" if isinstance(action, Recheck) and action.rollback else action.type


def _recorded(done: Sequence[Intervention]) -> str:
    """What the policies decided: where a person was asked, that; what the person said then is not theirs."""
    if not done:
        return "continue"
    first = next((one for one in done if one.kind == "ask_human"), done[0])
    return "rollback" if first.kind == "recheck" and first.rolled_back else first.kind


@dataclass
class _Walk:
    """How far the replay is: the counters of `nr_agent.graphs.control`, taken from the record."""

    episode: Episode
    steps: int = 0
    tokens: int = 0
    last: int | None = None
    last_kind: str | None = None
    branched: bool = False
    interventions: dict[str, int] = field(default_factory=dict)
    line: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.thoughts = [step for step in self.episode.steps if step.kind == "think"]
        self.forked = {name: one for one in self.episode.interventions for name in one.branches}
        self.first: dict[str, int] = {}
        for step in self.thoughts:
            self.first.setdefault(step.branch, step.index)

    def moments(self) -> Any:
        """The steps behind which something was decided, each with the counters of that moment."""
        for step in self.thoughts:
            fork = self.forked.get(step.branch) if self.first[step.branch] == step.index else None
            if fork is not None and step.branch != fork.kept:
                continue  # it counts with the fork that was kept
            self._think([step] if fork is None else self._candidates(fork), len(fork.branches) if fork else 1)
            if fork is not None and self.branched:
                self.last, self.branched = self.steps - 1, False
            self.line.append(step)
            yield step
            for done in self.interventions_on([event for event in self.episode.events if event.step == step.index]):
                if done.rolled_back:
                    self.line = [kept for kept in self.line if kept.start < done.position]

    def context(self, event: AnyFailureEvent, step: Step) -> PolicyContext:
        """What a policy sees."""
        forks = {one.index for fork in self._fork_of(step) for one in self._candidates(fork)}
        return PolicyContext(
            event=event,
            step=event.step,
            steps=self.steps,
            since_intervention=None if self.last is None else self.steps - self.last,
            last_intervention=self.last_kind,
            interventions=dict(self.interventions),
            tokens_used=self.tokens,
            tokens_left=self.tokens_left,
            events=tuple(one for one in self.episode.events if one.step <= step.index or one.step in forks),
            domain=self.episode.problem.domain,
            answer_stated=any(states_answer(one.text) for one in self.line),
            text=step.text,
            before="".join(one.text for one in self.line if one.index < step.index),
            metadata=self.episode.problem.metadata,
        )

    @property
    def tokens_left(self) -> int:
        """Of the budget."""
        budget: Mapping[str, Any] = self.episode.settings.get("budget", {})
        return max(0, int(budget.get("max_tokens", 0)) - self.tokens)

    def interventions_on(self, events: Sequence[AnyFailureEvent]) -> list[Intervention]:
        """What was done about events."""
        ids = {event.id for event in events}
        return [one for one in self.episode.interventions if one.event_id in ids]

    def count(self, kind: str, done: Sequence[Intervention], *, same: bool) -> None:
        """Count what was decided; where it is what was done, also what a person made of it."""
        kinds = [one.kind for one in done] if same else [kind]
        for one in kinds:
            if one != "continue":
                self.interventions[one] = self.interventions.get(one, 0) + 1
                self.last, self.last_kind = self.steps, one
        self.branched = same and "branch" in kinds

    def closes(self, step: Step) -> bool:
        """Whether the model closed its thinking with this step: then nothing is decided behind it."""
        # Where the closing is spelled out, it ends the segment that a blank line would have ended.
        return step.stop == "stop_id" or (step.stop == "stop_string" and not step.text.endswith(STEP_END))

    def had_room(self, action: Action, step: Step) -> bool:
        """Whether budget and context, as far as the record knows them, had room for an action."""
        behind, least = self.tokens_behind(step), least_tokens(action)
        if self.episode.stop_reason in _BUDGETS and behind == 0:
            return False
        return self.tokens_left >= least and not (self.episode.stop_reason == "context" and behind < least)

    def tokens_behind(self, step: Step) -> int:
        """Tokens of the thinking behind a step."""
        forks = {one.index for fork in self._fork_of(step) for one in self._candidates(fork)}
        return sum(len(one.ids) for one in self.thoughts if one.index > step.index and one.index not in forks)

    def _think(self, thought: Sequence[Step], count: int) -> None:
        self.steps += count
        self.tokens += sum(len(step.ids) for step in thought)

    def _fork_of(self, step: Step) -> list[Intervention]:
        fork = self.forked.get(step.branch)
        return [fork] if fork is not None and self.first[step.branch] == step.index else []

    def _candidates(self, fork: Intervention) -> list[Step]:
        return [
            step for step in self.thoughts if step.branch in fork.branches and self.first[step.branch] == step.index
        ]
