"""The README of an embedded model: what it is, how it was made, how good it is, and where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nr_agent.evaluation.model_card import FamilyRow, as_markdown
from nr_agent.tasks import FAMILIES, HELD_OUT_SHARE

_TEXT = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [reasoning, nr_agent]
---
# {name}

A small reasoning model, trained from scratch for `nr_agent`, so that everything there runs without a network. It thinks
in `<think>` about {count} families of `reasoning-gym` problems, step by step, with self-checks, and answers in
`\\boxed{{}}`. It knows nothing else: give it another kind of problem and it will write nonsense in the same form.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
```

## What it is
{architecture}, {parameters:.1f} M parameters, bfloat16, a context of {context} tokens
(trained on traces of up to {longest}). Its tokenizer has {vocabulary} tokens, words of the families' phrases and single
bytes: any text goes in and comes back unchanged, every digit is a token, `<think>`, `</think>`, `<|recheck|>` and
`<|branch|>` are real tokens.

## How it was made
1. **Pre-training** on traces that a program wrote (`nr_agent.training.traces`): {steps} steps of {batch} tokens
   {start}, Muon and AdamW, seed {seed}. The teacher rechecks and verifies whether or not there is need, as
   distilled reasoning models do; its planted slips are noticed at once and masked from the loss. The errors below are
   the model's own.
2. **Telltale neurons**, all the while: the first {neurons} FFN neurons of each of the last {layers} layers are taught
   to tell when a step holds a slip, repeats, or comes after the answer is known, on planted failures and its own. So
   this is an *instrumented* model: what its neurons tell says nothing of models that nobody taught to tell.
3. **Trigger SFT**: {sft_steps} steps on its own slips and repeated attempts, each followed by `<|recheck|>` or
   `<|branch|>` and a remedy (of rechecks also in the place of the step), mixed with planted ones and clean traces. The
   token and what precedes it are masked from the loss: it reacts to the tokens and does not write them. They are also
   suppressed while it thinks.

The same command makes it again:
`nr-agent models train {name}{on} --steps {total} --sft-steps {sft_steps} --seed {seed} --out DIR`.

Problems come from seeds below 1,000,000; one problem text in {held_out} was never trained on, whatever its seed,
because small families repeat. Families and settings:

{families}

## How good it is
Seeds from 1,000,000 on, no control. *Slips* are wrong equations and wrong counts that can be checked; *noticed* are
those that the next step takes back; *thinking after the answer* is the share of the thinking behind the first step
from which on every trial answer is the final one; *circling* is a step that brings nothing new before that.

{table}

## Limits
It reads these families' wordings, and a few others in which people ask for the same (`nr_agent.training.phrasings`).
A number that is known but stands in the wrong place is not counted as a slip, though it makes answers wrong. It was
never run on a GPU.
"""


def model_readme(name: str, model: Any, build: dict[str, Any], rows: Sequence[FamilyRow]) -> str:
    """The README's text.

    Args:
        name: of the model.
        model: the model.
        build: the build's settings as a dict, with `pretrain`, `sft` and `telltale`.
        rows: measured figures.
    """
    config, pretrain = model.config, build["pretrain"]
    settings = {
        family.name: ", ".join(f"{key} {value}" for key, value in family.settings.items())
        for family in FAMILIES.values()
    }
    return _TEXT.format(
        name=name,
        count=len(FAMILIES),
        architecture=(
            f"{type(model).__name__}: {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
            f"{config.num_attention_heads} heads, FFN of {config.intermediate_size}"
        ),
        parameters=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        longest=pretrain["longest"],
        neurons=build["telltale"]["neurons"],
        layers=build["telltale"]["layers"],
        steps=" and then ".join(str(phase["steps"]) for phase in pretrain["phases"]),
        total=sum(phase["steps"] for phase in pretrain["phases"]),
        batch=pretrain["tokens"],
        seed=pretrain["seed"],
        start="from fresh weights" if pretrain["start"] is None else f"from the weights of `{pretrain['start']}`",
        on="" if pretrain["start"] is None else f" --on {pretrain['start']}",
        sft_steps=build["sft"]["steps"],
        held_out=HELD_OUT_SHARE,
        families="\n".join(f"- `{name}`: {FAMILIES[name].about} ({text})" for name, text in settings.items()),
        table=as_markdown(rows),
    )
