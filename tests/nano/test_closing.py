"""A thinking that is closed early is closed with the special token itself, and stays closed, on the real model."""

from __future__ import annotations

import copy

import pytest

from nr_agent import Budget, EpisodeStore, Sampling, create_reasoner
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.policies import EarlyStopPolicy
from nr_agent.testing import ScriptedDetector
from nr_agent.tokens import CLOSING_SENTENCE, CORRECTION_TOKENS, END_THINK, THINK

PROBLEM = "State the final answer to the following arithmetic problem: 412 - 961 + 57 - 8 ="


@pytest.fixture(scope="module", params=["opened by the template", "opened by nobody"])
def opened(request, nano):
    """The engine with a chat template that opens the thinking, and with one that leaves that to the model."""
    if request.param == "opened by the template":
        yield nano
        return
    tokenizer = copy.deepcopy(nano.codec.tokenizer)
    template = tokenizer.chat_template
    assert template.count("<think>") == 1
    tokenizer.chat_template = template.replace("<think>\\n", "").replace("<think>\n", "").replace("<think>", "")
    engine = TorchEngine(nano.model, tokenizer, name="bare", fingerprint=nano.fingerprint)
    yield engine
    engine.shutdown()


@pytest.mark.parametrize("temperature", [0.6, 1.5])
@pytest.mark.parametrize("ended", ["by the detector", "by the budget"])
def test_early_stop_uses_the_special_token_and_does_not_think_again(opened, ended, temperature):
    store, codec = EpisodeStore.in_memory(), opened.codec
    open_id, close_id = codec.control(THINK), codec.control(END_THINK)
    for number in range(12):
        looks = [{"instance": 0.9 if look == number % 4 else 0.1} for look in range(5)]
        reasoner = create_reasoner(
            opened,
            detector=ScriptedDetector(looks, fingerprint=opened.fingerprint) if ended == "by the detector" else None,
            policies={"instance": EarlyStopPolicy(require_answer=False)},
            budget=Budget(max_tokens=400 if ended == "by the detector" else 5 + 7 * number, max_answer_tokens=96),
            sampling=Sampling(temperature=temperature),
            store=store,
            seed=number,
        )
        report = reasoner.invoke({"messages": [("user", PROBLEM)]})["reasoning"]
        episode = store.get(report["episode_id"])
        assert episode.ids.count(open_id) == 1 and episode.ids.count(close_id) == 1
        at = episode.ids.index(close_id)
        assert not {codec.control(token) for token in CORRECTION_TOKENS} & set(episode.ids[at:])
        if report["stop_reason"] in ("early_stop", "token_budget"):
            before = codec.decode(episode.ids[:at])
            assert before.endswith(f"{CLOSING_SENTENCE}\n\n")
            answer = episode.kept[-1]
            assert answer.provenance[0][0] == "inserted" and close_id in answer.ids[: answer.provenance[0][1]]
        # Behind it there is an answer and the end of the turn, or the answer's own limit.
        assert report["answer"] is None or END_THINK not in report["answer"]
        assert episode.ids[-1] in codec.end_ids or report["usage"]["answer"] == 96
