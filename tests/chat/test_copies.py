"""Copies of a chat model, and chat models whose fields are changed: which engine thinks, and who shuts it down."""

from __future__ import annotations

import pytest

from nr_agent import ChatNeuReasoner, EpisodeStore
from nr_agent.graphs.reasoner import parts_of
from nr_agent.policies import RecheckPolicy
from nr_agent.testing import ScriptedDetector, ScriptedEngine


def scores(text):
    return {"intra_step": 0.9 if "slip" in text else 0.1, "inter_step": 0.99 if "circle" in text else 0.1}


class Loaded(ScriptedEngine):
    """Counts how often it is shut down."""

    shutdowns = 0

    def shutdown(self):
        self.shutdowns += 1
        super().shutdown()


@pytest.fixture
def loaded(monkeypatch):
    """The engines that are loaded by name, in order; no weights are."""
    engines = []

    def load(name):
        engines.append(Loaded(["slip", "b"], name=name))
        return engines[-1]

    monkeypatch.setattr("nr_agent.models.registry.load_engine", load)
    return engines


def test_a_copy_writes_where_it_is_told_and_thinks_with_the_same_engine(loaded):
    stores = [EpisodeStore.in_memory(), EpisodeStore.in_memory()]
    chat = ChatNeuReasoner(model="scripted", store=stores[0])
    chat.invoke("q")
    copied = chat.model_copy(update={"store": stores[1]})
    copied.invoke("q")
    assert [len(list(store.find())) for store in stores] == [1, 1] and len(loaded) == 1
    copied.close()
    assert loaded[0].shutdowns == 0  # it is not the copy's
    chat.invoke("q")
    assert [len(list(store.find())) for store in stores] == [2, 1] and len(loaded) == 1
    chat.close()
    assert loaded[0].shutdowns == 1


def test_a_copy_that_loads_another_model_shuts_down_only_that(loaded):
    chat = ChatNeuReasoner(model="first", policies={})
    chat.invoke("q")
    copied = chat.model_copy(update={"model": "second"})
    assert copied.invoke("q").response_metadata["model_name"] == "second"
    copied.close()
    assert [(engine.name, engine.shutdowns) for engine in loaded] == [("first", 0), ("second", 1)]
    assert chat.invoke("q").response_metadata["model_name"] == "first" and len(loaded) == 2


def test_what_is_assigned_later_takes_effect_and_loads_no_engine_anew(loaded):
    chat = ChatNeuReasoner(model="scripted", detector=ScriptedDetector(scores), policies={})
    made = chat._reasoner()
    assert chat.invoke("q").response_metadata["nr_agent"]["interventions"] == []
    assert chat._reasoner() is made
    chat.policies = {"intra_step": RecheckPolicy()}
    (done,) = chat.invoke("q").response_metadata["nr_agent"]["interventions"]
    assert done["kind"] == "recheck" and chat._reasoner() is not made
    assert parts_of(chat._reasoner()).engine is parts_of(made).engine is loaded[0] and len(loaded) == 1
    chat.close()
    assert loaded[0].shutdowns == 1
