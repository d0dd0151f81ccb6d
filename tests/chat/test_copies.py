"""Copies of a chat model, and chat models whose fields are changed: which engine thinks, and who shuts it down."""

from __future__ import annotations

import gc

import pytest
from langchain_core.runnables import ConfigurableField

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


def test_closing_the_model_that_was_copied_leaves_its_copy_the_engine(loaded):
    chat = ChatNeuReasoner(model="scripted", policies={})
    chat.invoke("q")
    copied = chat.model_copy(update={"seed": 1})
    copied.invoke("q")
    chat.close()
    assert loaded[0].shutdowns == 0
    assert copied.invoke("q").content and len(loaded) == 1
    copied.close()
    assert loaded[0].shutdowns == 1
    assert chat.invoke("q").content and len(loaded) == 2  # loaded anew


def test_a_copy_whose_engine_was_shut_down_before_it_thought_loads_it_anew(loaded):
    chat = ChatNeuReasoner(model="scripted", policies={})
    chat.invoke("q")
    copied = chat.model_copy()
    chat.close()
    assert loaded[0].shutdowns == 1
    assert copied.invoke("q").content
    assert [engine.shutdowns for engine in loaded] == [1, 0]


def test_configured_for_a_call_it_thinks_with_the_engine_that_is_loaded(loaded):
    chat = ChatNeuReasoner(model="scripted", policies={})
    configured = chat.configurable_fields(seed=ConfigurableField(id="seed"), model=ConfigurableField(id="model"))
    for seed in range(3):
        assert configured.invoke("q", {"configurable": {"seed": seed}}).content
    assert len(loaded) == 1
    said = configured.invoke("q", {"configurable": {"model": "other"}})
    assert said.response_metadata["model_name"] == "other" and len(loaded) == 2
    assert chat.invoke("q").content and len(loaded) == 2
    gc.collect()
    chat.close()
    assert [engine.shutdowns for engine in loaded] == [1, 1]


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
