"""A branch of the embedded model does not write a step again that stands there."""

import pytest

from nr_agent.engine.protocol import Sampling
from nr_agent.graphs import create_reasoner
from nr_agent.policies import BranchPolicy, Policies
from nr_agent.store import EpisodeStore
from nr_agent.tasks import draw
from nr_agent.testing import ScriptedDetector


def branched(nano, seed, *, fresh, monkeypatch):
    """What was thought before a branch behind the fourth attempt, at temperature 0, and what its fork begins with."""
    asked = []
    submit = nano.submit
    monkeypatch.setattr(nano, "submit", lambda request: asked.append(request) or submit(request))
    seen = []

    def scores(text):
        seen.append(text)
        return {"intra_step": 0.0, "inter_step": 0.99 if len(seen) == 4 else 0.0, "instance": 0.0}

    policies = Policies(on={"inter_step": BranchPolicy(width=1, back=0, fresh=fresh)}, max_interventions=1, name="one")
    store, sampling = EpisodeStore.in_memory(), Sampling(temperature=0)
    reasoner = create_reasoner(
        nano,
        detector=ScriptedDetector(scores, fingerprint=nano.fingerprint),
        policies=policies,
        store=store,
        sampling=sampling,
    )
    output = reasoner.invoke({"messages": [{"role": "user", "content": draw("countdown", seed).text}]})
    monkeypatch.undo()
    return asked, store.get(output["reasoning"]["episode_id"])


@pytest.mark.parametrize("fresh", [True, False])
def test_only_the_forks_are_kept_from_repeating(nano, fresh, monkeypatch):
    asked, episode = branched(nano, 1_600_002, fresh=fresh, monkeypatch=monkeypatch)
    kept = [request.sampling.avoid for request in asked if request.sampling.avoid]
    forked = next(step for step in episode.kept if step.branch != "main")
    assert len(kept) == fresh
    assert forked.ids
    for piece in kept[0] if fresh else ():
        assert not any(tuple(forked.ids[at : at + len(piece)]) == piece for at in range(len(forked.ids)))
