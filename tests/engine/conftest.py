"""Engines on tiny random checkpoints of many architectures, with one byte-level tokenizer for all."""

import pytest
from tiny_families import FAMILIES, build

from nr_agent.engine.torch_engine import Limits, TorchEngine
from nr_agent.models.fingerprint import fingerprint
from nr_agent.training.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(samples=50, max_length=512)


@pytest.fixture(scope="session")
def make_engine(tokenizer):
    """Makes an engine of a family; the weights are the same for the same family."""
    made = []

    def make(family="qwen3", **limits):
        model = build(family, len(tokenizer), **FAMILIES[family])
        engine = TorchEngine(
            model, tokenizer, name=family, fingerprint=fingerprint(model), limits=Limits(**limits) if limits else None
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.shutdown()


@pytest.fixture(scope="session")
def qwen(make_engine):
    return make_engine("qwen3")
