"""The same work done by others: each function prepares it, and returns what does it once and says how long it took.

Every one decodes the same number of tokens for the same prompts, greedily, on the same weights. Those that read
take the last position's values of the same FFN neurons, at the down projection's input, at every token.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.measuring import seconds
from nr_agent.engine.linears import unblock

Prompts = Sequence[Sequence[int]]
Work = Callable[[], float]


def one_by_one(engine: Any, prompts: Prompts, new: int) -> Work:
    """`model.generate` for one prompt after the other."""

    def work() -> None:
        for prompt in prompts:
            engine.model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), **_greedy(new)
            )

    return lambda: seconds(work)


def continuous(engine: Any, prompts: Prompts, new: int) -> Work:
    """All prompts in one go of transformers' continuous batching, which knows no steps.

    Its manager and a cache of the size that is needed are kept from round to round: making them is not counted.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig  # noqa: PLC0415 - a second to import

    model = _plain(engine.model)  # it changes the model's attention for good
    config = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0)
    page = 16
    pages = sum(-(-(len(prompt) + new) // page) + 1 for prompt in prompts)
    batching = ContinuousBatchingConfig(page_size=page, num_blocks=2 * pages)

    def work() -> None:
        outputs = model.generate_batch(
            [list(prompt) for prompt in prompts],
            generation_config=config,
            continuous_batching_config=batching,
            persistent_manager=True,
        )
        lengths = {len(output.generated_tokens) for output in outputs.values()}
        if lengths != {new} or len(outputs) != len(prompts):
            raise RuntimeError(f"generate_batch wrote {lengths} tokens for {len(outputs)} prompts")

    return lambda: seconds(work)


def nnsight(engine: Any, prompts: Prompts, new: int, neurons: Sequence[Any], *, padded: bool) -> Work:
    """Nnsight around `generate`: one prompt after the other, or all in one padded batch.

    Such a batch goes on to the end: it cannot keep its cache from step to step.
    """
    try:
        from nnsight import TransformersModel  # noqa: PLC0415 - may be absent
    except ImportError as error:
        raise ImportError("nnsight is not installed") from error
    tokenizer = copy.deepcopy(engine.codec.tokenizer)
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = TransformersModel(_plain(engine.model), tokenizer=tokenizer, task="text-generation")
    columns = _by_layer(neurons)
    batches = [list(map(list, prompts))] if padded else [[list(prompt)] for prompt in prompts]

    def read_batch(rows: list[list[int]]) -> None:
        with torch.inference_mode(), model.generate(rows, **_greedy(new)) as tracer:
            read = list().save()
            for _ in tracer.iter[:new]:
                for layer, chosen in columns.items():
                    read.append(model.model.layers[layer].mlp.down_proj.input[:, -1][:, chosen])
        if len(read) != new * len(columns) or len(read[0]) != len(rows):
            raise RuntimeError(f"nnsight read {len(read)} times")

    def work() -> None:
        for rows in batches:
            read_batch(rows)

    return lambda: seconds(work)


def transformer_lens(engine: Any, prompts: Prompts, new: int, neurons: Sequence[Any]) -> Work:
    """TransformerLens: its bridge's `generate` with hooks; ragged prompts go one by one."""
    try:
        from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415 - may be absent
    except ImportError as error:
        raise ImportError("TransformerLens is not installed") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bridge = TransformerBridge.boot_transformers(
            str(engine.model.config.name_or_path),
            hf_model=_plain(engine.model),
            tokenizer=copy.deepcopy(engine.codec.tokenizer),
            device="cpu",
        )
    columns = _by_layer(neurons)

    def work() -> None:
        read: list[torch.Tensor] = []

        def hook_for(chosen: torch.Tensor) -> Callable[..., Any]:
            def hook(value: torch.Tensor, hook: Any) -> torch.Tensor:
                read.append(value[:, -1][:, chosen])
                return value

            return hook

        hooks = [(f"blocks.{layer}.mlp.out.hook_in", hook_for(chosen)) for layer, chosen in columns.items()]
        with torch.inference_mode(), bridge.hooks(fwd_hooks=hooks):
            for prompt in prompts:
                bridge.generate(
                    torch.tensor([prompt]), max_new_tokens=new, do_sample=False, verbose=False, stop_at_eos=False
                )
        if len(read) != new * len(columns) * len(prompts):
            raise RuntimeError(f"TransformerLens read {len(read)} times")

    return lambda: seconds(work)


def _plain(model: Any) -> Any:
    """A copy of a model as transformers loads it: what our engine changed to be faster is ours."""
    plain = copy.deepcopy(model)
    unblock(plain)
    return plain


def _greedy(new: int) -> dict[str, Any]:
    return {"do_sample": False, "temperature": None, "top_p": None, "min_new_tokens": new, "max_new_tokens": new}


def _by_layer(neurons: Sequence[Any]) -> dict[int, torch.Tensor]:
    columns: dict[int, list[int]] = defaultdict(list)
    for channel in neurons:
        columns[channel.layer].append(channel.index)
    return {layer: torch.tensor(chosen) for layer, chosen in sorted(columns.items())}
