"""The embedded LRM's tokenizer: the phrases of its problems by the word, everything else by the byte.

Every digit is a token, and so is every letter of a word that is none of the phrases': what is spelled or counted
is read off, not remembered.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nr_agent.tasks import FAMILIES, TRAINING_SEEDS, draw
from nr_agent.tokens import (
    ANSWER_LEAD,
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
_PIECES = r"\n\n|\n|[0-9]| ?[A-Za-z]+| |[^\sA-Za-z0-9]|\s"
_QUOTED = re.compile(r'"[^"]*"')
_COMMON = 0.02
"""Share of a family's problems and traces that a phrase's word occurs in."""


def train_tokenizer(samples: int = 1000, max_length: int = 2048) -> PreTrainedTokenizerFast:
    """Learn the tokenizer from the teacher's problems and traces.

    Args:
        samples: problems a family to learn from.
        max_length: the model's context, in tokens.

    Returns:
        A byte-level tokenizer with whole words, which are taken as they stand, and no merges: any text goes in and
        comes back unchanged.
    """
    level = pre_tokenizers.ByteLevel(False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["".join(piece for piece, _ in level.pre_tokenize_str(word)) for word in _words(samples)]
    vocabulary = dict.fromkeys([*SPECIAL_TOKENS, *alphabet, *words])
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, [], ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"), level])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL_TOKENS))
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


def _words(samples: int) -> list[str]:
    """The words of the problems' and the teacher's phrases, without what a problem quotes, and letters that spell."""
    roles = f"user\n{CLOSING_SENTENCE}assistant\n{ANSWER_LEAD}"
    common = {piece for piece in _pieces(roles) if len(piece) > 1}
    for family in FAMILIES:
        occurs: Counter[str] = Counter()
        for seed in range(TRAINING_SEEDS.start, TRAINING_SEEDS.start + samples):
            occurs.update(_phrases(family, seed))
        common |= {piece for piece, count in occurs.items() if len(piece) > 1 and count >= _COMMON * samples}
    return sorted(common | {f" {letter}" for letter in string.ascii_lowercase})


def _phrases(family: str, seed: int) -> set[str]:
    text = draw(family, seed).text
    quoted = {piece.strip().lower() for quote in _QUOTED.findall(text) for piece in _pieces(quote)}
    pieces = {*_pieces(_QUOTED.sub("", text)), *_pieces(teach(family, text, random.Random(seed)).thinking)}
    return {piece for piece in pieces if piece.strip().lower() not in quoted}


def _pieces(text: str) -> Iterator[str]:
    return (match[0] for match in re.finditer(_PIECES, text))
