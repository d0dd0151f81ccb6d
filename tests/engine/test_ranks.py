"""A model that is spread over two processes is read, and thinks, as the whole one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_families import FAMILIES, build

from nr_agent.detection.collect import all_channels
from nr_agent.engine.protocol import Sampling, StopSpec
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.models.fingerprint import fingerprint
from nr_agent.neurons.channels import Channel
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.neurons.writes import push_table

IDS = [5, 6, 7, 8, 9]
PUSHED = [Channel("ffn", layer, index) for layer, index in ((1, 3), (2, 90), (0, 7), (2, 1))]

PROGRAM = """
import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.distributed import DistributedConfig

from nr_agent.errors import ChannelError, ConfigurationError
from nr_agent.neurons.attribution import AttributionTap
from nr_agent.neurons.channels import Channel
from nr_agent.engine.torch_engine import Limits, TorchEngine
from nr_agent.models.fingerprint import fingerprint

sys.path.insert(0, sys.argv[3])
from test_ranks import compute

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
config = DistributedConfig(tp_size=2, tp_plan="auto")
model = AutoModelForCausalLM.from_pretrained(f"{folder}/llama", dtype=torch.float32, distributed_config=config).eval()
tokenizer = AutoTokenizer.from_pretrained(f"{folder}/llama")
try:
    TorchEngine(model, tokenizer, name="llama", fingerprint="0")
except ConfigurationError as error:
    print(f"refused: {error}")
try:
    AttributionTap(model, [Channel("head", 0, 1)])
except ChannelError as error:
    print(f"refused: {error}")
engine = TorchEngine(model, tokenizer, name="llama", fingerprint=fingerprint(model), limits=Limits(batch=1))
save_file(compute(engine), f"{folder}/{rank}.safetensors")
print(engine.fingerprint)
engine.shutdown()
dist.barrier()
dist.destroy_process_group()
"""


def compute(engine):
    """Readings of a plain pass, and what a sequence writes and reads through steps, a fork and a rollback."""
    channels = all_channels(engine.model)
    found = {"push": push_table(engine.model, PUSHED)}
    tap = ChannelPlan(channels).install(engine.model)
    with torch.inference_mode():
        engine.model(torch.tensor([IDS]), use_cache=False)
        found["plain"] = tap.take(len(IDS)).clone()
    tap.remove()
    engine.attach(ChannelPlan(channels[::-3]))
    warm = Sampling(temperature=1.0)
    first = engine.extend(engine.open(IDS, seed=4), stop=StopSpec(max_new=12), sampling=warm)
    branch = engine.extend(engine.fork(first.ref, at=9, seed=5), stop=StopSpec(max_new=7), sampling=warm)
    back = engine.extend(engine.rollback(first.ref, to=11), stop=StopSpec(max_new=6), sampling=warm)
    for name, segment in (("first", first), ("branch", branch), ("back", back)):
        found[f"{name}.ids"] = torch.tensor(segment.ids)
        found[f"{name}.values"] = segment.readings.values
    engine.attach(None)
    return {name: tensor.contiguous() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def spread(tokenizer, tmp_path_factory):
    """What both processes found, and what they printed."""
    folder = tmp_path_factory.mktemp("ranks")
    build("llama", len(tokenizer), **FAMILIES["llama"]).save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    here = str(Path(__file__).parent)
    environment = os.environ | {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(rank), here],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Sets come in another order in each process: what all of them do must not hang on it.
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONHASHSEED": str(rank + 1)},
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)], [text for text, _ in outputs]


@pytest.fixture(scope="module")
def whole(tokenizer):
    model = build("llama", len(tokenizer), **FAMILIES["llama"])
    engine = TorchEngine(model, tokenizer, name="llama", fingerprint=fingerprint(model))
    yield compute(engine), engine.fingerprint
    engine.shutdown()


def test_both_processes_have_every_channel_under_its_own_number(spread, whole):
    for found in spread[0]:
        torch.testing.assert_close(found["plain"], whole[0]["plain"], atol=1e-5, rtol=0)


def test_steps_forks_and_rollbacks_are_those_of_the_whole_model(spread, whole):
    for found in spread[0]:
        for name in ("first", "branch", "back"):
            assert torch.equal(found[f"{name}.ids"], whole[0][f"{name}.ids"])
            torch.testing.assert_close(found[f"{name}.values"], whole[0][f"{name}.values"], atol=1e-5, rtol=0)


def test_weights_are_put_together_for_what_channels_push_and_for_the_fingerprint(spread, whole):
    for found, text in zip(*spread, strict=True):
        torch.testing.assert_close(found["push"], whole[0]["push"], atol=1e-5, rtol=1e-5)
        assert text.splitlines()[-1] == whole[1]


def test_batches_that_the_processes_would_make_apart_are_refused(spread):
    for text in spread[1]:
        assert "refused: llama is spread over 2 processes" in text
        assert "Limits(batch=1)" in text


def test_what_heads_write_is_not_guessed_from_a_slice(spread):
    for text in spread[1]:
        assert "refused: what the head channels of layer 0 write is spread over processes" in text
