"""The embedded LRM's tokenizer: bytes, words of its problems, and every digit by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from nr_agent.tasks import FAMILIES, TRAINING_SEEDS, draw
from nr_agent.tokens import (
    BRANCH,
    CHAT_TEMPLATE,
    CLOSING_SENTENCE,
    END_OF_TEXT,
    END_THINK,
    RECHECK,
    THINK,
    TURN_END,
    TURN_START,
)
from nr_agent.training.traces import teach

SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, THINK, END_THINK, RECHECK, BRANCH)

# A blank line, a line break, a digit, a word with its space, anything else by itself: a boundary between
# two of these is a token boundary, so texts can be encoded piece by piece.
_PIECES = Regex(r"\n\n|\n|[0-9]| ?[A-Za-z]+| |[^\sA-Za-z0-9]|\s")


def train_tokenizer(vocab_size: int = 640, samples: int = 3000, max_length: int = 2048) -> PreTrainedTokenizerFast:
    """Learn the tokenizer from the teacher's problems and traces.

    Args:
        vocab_size: tokens in all: special ones, 256 bytes, and merges.
        samples: problems a family to learn from.
        max_length: the model's context, in tokens.

    Returns:
        A byte-level BPE tokenizer: any text goes in and comes back unchanged.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, behavior="isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_texts(samples), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START, THINK, END_THINK, RECHECK, BRANCH],
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    # User text that spells one of these stays text when the template is applied with sanitising.
    tokenizer.chat_control_tokens = list(SPECIAL_TOKENS)
    return tokenizer


def _texts(samples: int) -> Iterator[str]:
    # Problems are repeated more than traces are: their fixed phrases should become whole words.
    roles = f"user\n{CLOSING_SENTENCE}assistant\nThe final answer is \\boxed{{"
    for family in FAMILIES:
        for seed in range(TRAINING_SEEDS.start, TRAINING_SEEDS.start + samples):
            problem = draw(family, seed)
            yield problem.text
            yield roles
            yield teach(family, problem.text, random.Random(seed)).thinking
