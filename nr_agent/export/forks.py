"""Where an episode forked: what was given up, and what the line that was kept did from there on."""

from __future__ import annotations

from dataclasses import dataclass

from nr_agent.episode import Episode, Step


@dataclass(frozen=True)
class Fork:
    """A line of thought that was given up, or a step that a recheck changed.

    Attributes:
        start: absolute position at which the two lines part.
        rejected: the steps that lost, in order.
        wrong: whether a recheck says that they are wrong, rather than only less liked.
        confirmed: whether a recheck came to the same: there was nothing wrong with them.
    """

    start: int
    rejected: tuple[Step, ...]
    wrong: bool
    confirmed: bool = False

    @property
    def discarded(self) -> bool:
        """Whether what lost is out of the final sequence; else it stands there, and its correction after it."""
        return self.rejected[0].discarded


def find_forks(episode: Episode) -> list[Fork]:
    """The forks that part from the line that was kept, in the order of their steps.

    A line that parted from another one that was given up itself is left out: its beginning is in no row.
    """
    changed = changed_steps(episode)
    lines: list[list[Step]] = []
    for step in episode.steps:
        if step.kind != "think":
            continue
        if not step.discarded:
            if step.index in changed:
                lines.append([step])
            continue
        before = _predecessor(episode, step)
        if before is None:
            continue
        if not before.discarded:
            lines.append([step])
            continue
        own = next((line for line in lines if line[-1] is before and before.branch == step.branch), None)
        if own is not None:
            own.append(step)
    confirmed = _rechecked(episode, "confirmed")
    return [Fork(line[0].start, tuple(line), line[0].index in changed, line[0].index in confirmed) for line in lines]


def changed_steps(episode: Episode) -> set[int]:
    """Steps that a recheck answered and came out differently: they are wrong as far as anybody knows."""
    return _rechecked(episode, "changed")


def _rechecked(episode: Episode, outcome: str) -> set[int]:
    places = {event.id: event.step for event in episode.events}
    return {
        places.get(one.event_id or "", one.step)
        for one in episode.interventions
        if one.kind == "recheck" and one.outcome == outcome
    }


def _predecessor(episode: Episode, step: Step) -> Step | None:
    """The step after which a step was thought: it ends where this one starts, and was there before it."""
    ends = [one for one in episode.steps if one.index < step.index and one.start + len(one.ids) == step.start]
    # The branch itself first, then what was kept, then whatever was thought last.
    return max(ends, key=lambda one: (one.branch == step.branch, not one.discarded, one.index), default=None)
