from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nr_agent.engine.text import TokenizerCodec
from nr_agent.store import EpisodeStore


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The embedded model's kind of tokenizer, learnt from little."""
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed (pip install 'nr-agent[tasks]')")
    from nr_agent.training.tokenizer import train_tokenizer

    return train_tokenizer(samples=200)


@pytest.fixture(scope="session")
def codec(tokenizer: Any) -> TokenizerCodec:
    return TokenizerCodec(tokenizer, frozenset({tokenizer.eos_token_id}))


@pytest.fixture(scope="session")
def other_tokenizer(tokenizer: Any) -> Any:
    """Another model's, which reads 5 where the first one wrote 4."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = state["model"]["vocab"]
    words["4"], words["5"] = words["5"], words["4"]
    core = Tokenizer.from_str(json.dumps(state))
    other = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=tokenizer.eos_token)
    other.chat_template = tokenizer.chat_template
    return other


@pytest.fixture(scope="session")
def other_codec(other_tokenizer: Any) -> TokenizerCodec:
    return TokenizerCodec(other_tokenizer, frozenset({other_tokenizer.eos_token_id}))


@pytest.fixture
def store() -> Iterator[EpisodeStore]:
    with EpisodeStore.in_memory() as opened:
        yield opened


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NR_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NR_AGENT_STORE", raising=False)
