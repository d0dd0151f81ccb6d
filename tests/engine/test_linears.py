"""Products in blocks: the same numbers, the same modules, and nothing left behind."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from nr_agent.engine.linears import BlockedLinear, block, unblock
from nr_agent.engine.protocol import ExtendRequest, Sampling, StopSpec
from nr_agent.engine.torch_engine import TorchEngine
from nr_agent.models.registry import load_engine

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="blocks are for MKL")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1536, 576), (576, 1536), (49152, 576), (1031, 640)])
@torch.inference_mode()
def test_blocks_give_the_same_products_for_any_number_of_rows(shape, bias):
    torch.manual_seed(0)
    plain = nn.Linear(shape[1], shape[0], bias=bias)
    blocked = nn.Linear(shape[1], shape[0], bias=bias)
    blocked.load_state_dict(plain.state_dict())
    block(blocked)
    assert type(blocked) is (nn.Linear if shape[0] == 1031 else BlockedLinear)  # a prime cannot be cut evenly
    for rows in (1, 3, 4, 7, 8, 15, 16, 33):
        given = torch.randn(rows, 1, shape[1])
        assert torch.allclose(blocked(given), plain(given), atol=1e-4, rtol=1e-4), rows


@pytest.mark.parametrize(
    "module",
    [nn.Linear(64, 64), nn.Linear(1024, 1024, dtype=torch.bfloat16), nn.Linear(1024, 1024, device="meta")],
    ids=["small", "half", "meta"],
)
def test_other_weights_are_left_alone(module):
    block(module)
    assert type(module) is nn.Linear


def test_gradients_still_flow():
    module = nn.Linear(1024, 1024)
    block(module)
    module(torch.randn(8, 1024)).sum().backward()
    assert module.weight.grad is not None


@pytest.fixture(scope="module")
def wide():
    """A llama whose weights are large enough to be cut."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    return LlamaForCausalLM(config).eval()


def test_eight_rows_in_steps_write_what_generate_writes_one_by_one(wide):
    prompts = [[(7 * row + 3 * place) % 500 for place in range(5 + row)] for row in range(8)]
    alone = [
        wide.generate(torch.tensor([prompt]), max_new_tokens=24, min_new_tokens=24, do_sample=False)[0].tolist()
        for prompt in prompts
    ]
    tokenizer = load_engine("nano").codec.tokenizer
    engine = TorchEngine(wide, tokenizer, name="wide", fingerprint="wide")
    greedy = Sampling(temperature=0, suppress=(wide.config.eos_token_id,))
    try:
        assert any(type(module) is BlockedLinear for module in wide.modules())
        refs = [engine.open(prompt) for prompt in prompts]
        for _ in range(3):
            steps = [engine.submit(ExtendRequest(ref, StopSpec(max_new=8), greedy)) for ref in refs]
            refs = [step.result().ref for step in steps]
        together = [engine.tokens(ref) for ref in refs]
    finally:
        engine.shutdown()
    assert together == alone
    assert not any(type(module) is BlockedLinear for module in wide.modules())


def test_unblock_finds_every_block(wide):
    block(wide)
    unblock(wide)
    assert {type(module) for module in wide.modules() if isinstance(module, nn.Linear)} == {nn.Linear}
    given = torch.randn(8, 512)
    down = wide.model.layers[0].mlp.gate_proj
    assert torch.equal(down(given), functional.linear(given, down.weight))
