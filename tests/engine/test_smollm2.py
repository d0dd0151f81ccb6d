"""The engine on a real pretrained model: the public suite on SmolLM2-135M, in full, in float32."""

import os

import pytest
import torch
from plain_pass import TorchConformance
from transformers import AutoTokenizer

from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import Sampling, StopSpec
from nr_agent.engine.torch_engine import Limits
from nr_agent.graphs import Budget, create_reasoner
from nr_agent.models.pull import pull
from nr_agent.models.registry import load_engine
from nr_agent.neurons.tap import ChannelPlan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

QUESTIONS = ("What is 2+3?", "Name three rivers in Europe.", "Write a haiku about rain.")


@pytest.fixture(scope="module")
def folder():
    """SmolLM2's folder: the one that `make test-all` has pulled, or pulled now."""
    return os.environ.get("SMOLLM2") or str(pull("smollm2"))


@pytest.fixture(scope="module")
def engine(folder):
    loaded = load_engine(folder, dtype="float32")
    yield loaded
    loaded.shutdown()


@pytest.fixture(scope="module")
def cramped(folder):
    loaded = load_engine(folder, dtype="float32", limits=Limits(slots=2, chunk=7))
    yield loaded
    loaded.shutdown()


class TestSmolLM2(TorchConformance):
    def plan(self, engine):
        return ChannelPlan(all_channels(engine.model)[::50])


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_text_is_that_of_generate(engine, question):
    ids = engine.codec.render([{"role": "user", "content": question}])
    segment = engine.extend(engine.open(ids), stop=StopSpec(max_new=60), sampling=Sampling(temperature=0))
    with engine.quiet() as model, torch.inference_mode():
        prompt = torch.tensor([ids])
        plain = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=60, do_sample=False, eos_token_id=-1
        )
    assert segment.ids == plain[0, len(ids) :].tolist()


def test_the_prompt_is_the_models_own_and_the_text_makes_sense(engine, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": QUESTIONS[0]}]
    own = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert engine.codec.render(message) == own
    assert engine.codec.decode(own).endswith("<|im_start|>assistant\n")
    sampling = Sampling(temperature=0)
    reasoner = create_reasoner(engine, detector=None, control=False, sampling=sampling, budget=Budget(max_tokens=80))
    output = reasoner.invoke({"messages": message})
    assert output["reasoning"]["stop_reason"] == "finished"
    assert "5" in output["messages"][-1].content
    assert "<|im_end|>" not in output["messages"][-1].content
