"""Which of an episode's steps made up a sequence at some time, whatever became of them later."""

from __future__ import annotations

from nr_agent.episode import Episode, Step


def find_line(episode: Episode, *, branch: str, before: int, length: int) -> list[Step] | None:
    """The steps of a line of thought, from the prompt on; None if they are not there.

    A step that is taken back is marked as such before LangGraph has saved that it is: who resumes from an earlier
    state, after a crash or because somebody goes back in time, needs it once more. So the marks are not asked. The line
    is followed backwards: before each step there is the latest one that ends where it begins.

    Args:
        episode: with its steps.
        branch: on which the line ends.
        before: index of the first step that is not part of it.
        length: of the line, in tokens.
    """
    # Nothing was thought on from a fork that was given up. Forks of a line that was gone back behind have the same
    # names: what was chosen last counts.
    choices = [one for one in episode.interventions if one.kind == "branch" and one.kept is not None]
    kept = {fork: one.kept for one in choices for fork in one.branches}
    left = {fork for fork, winner in kept.items() if fork != winner}
    line: list[Step] = []
    while length > 0:
        last = max(
            (
                step
                for step in episode.steps
                if step.index < before
                and step.ids
                and step.start + len(step.ids) == length
                and (step.branch == branch or step.branch not in left)
            ),
            key=lambda step: (step.branch == branch, step.index),
            default=None,
        )
        if last is None:
            return None
        line.append(last)
        length, before, branch = last.start, last.index, last.branch
    return line[::-1]
