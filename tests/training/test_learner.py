import os
import shutil

import pytest
import torch
from accelerate import Accelerator

from nr_agent.tokens import STEP_END
from nr_agent.training.corpus import Corpus
from nr_agent.training.learner import Learner, worth_fusing
from nr_agent.training.pretrain import build_model
from nr_agent.training.telltale import Telltale
from nr_agent.training.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


def learned(tokenizer, *, fused):
    """Losses and gradients of two batches."""
    torch.manual_seed(0)
    model = build_model("tiny", tokenizer)
    model.resize_token_embeddings(len(tokenizer))
    telltale = Telltale(model, layers=1)
    learner = Learner(model, telltale, Accelerator(), precision="fp32", fused=fused)
    corpus, step_end = Corpus(tokenizer, longest=256), tokenizer.encode(STEP_END, add_special_tokens=False)[0]
    found = []
    for index in range(2):
        losses = learner.learn(corpus.batch(index, 600, {"chain_sum": 1.0, "letter_counting": 1.0}), step_end)
        found.append((losses, {name: weight.grad.clone() for name, weight in model.named_parameters()}))
        for weight in model.parameters():
            weight.grad = None
    return found


@pytest.mark.slow  # compiling takes a minute and more
def test_compiled_layers_learn_what_the_others_do(tokenizer):
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("compiling needs a C++ compiler; what happens without one is the next test")
    for (loss, gradients), (fused_loss, fused_gradients) in zip(
        learned(tokenizer, fused=False), learned(tokenizer, fused=True), strict=True
    ):
        torch.testing.assert_close(fused_loss, loss, rtol=1e-4, atol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(fused_gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_without_a_compiler_training_goes_on_and_says_so(tokenizer, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match=r"training takes longer: no C\+\+ compiler was found"):
        found = learned(tokenizer, fused=True)
    torch.testing.assert_close(found[0][0], learned(tokenizer, fused=False)[0][0])


@pytest.mark.parametrize(("size", "steps", "worth"), [("tiny", 400, False), ("nano", 20, False), ("nano", 400, True)])
def test_what_is_compiled_is_what_takes_long(tokenizer, size, steps, worth):
    assert worth_fusing(build_model(size, tokenizer), steps) is worth
