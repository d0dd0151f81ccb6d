"""The ablation finds that one telling channel is enough, and that blind ones have to be many."""

import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nr_agent.detection.ablation import ablate_channels, as_markdown
from nr_agent.detection.labels import StepLabels
from nr_agent.detection.rank import Choice
from nr_agent.detection.trace_files import load_traces
from nr_agent.detection.traces import Traced, TracedStep
from nr_agent.episode import Problem
from nr_agent.errors import DetectorError
from nr_agent.events import LEVELS

SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def test_one_ranked_channel_tells_what_blind_ones_tell_less_well():
    """Failing steps hold the token 7, and some neuron knows it."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SHAPE, intermediate_size=80, num_key_value_heads=2, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config).eval()
    traces, labels, splits = [], [], []
    rng = random.Random(0)
    for number in range(60):
        ids, steps, known = [rng.randint(8, 59) for _ in range(3)], [], []
        for place in range(5):
            failing = rng.random() < 0.4
            own = [rng.randint(8, 59) for _ in range(4)]
            if failing:
                own[rng.randrange(3)] = 7
            steps.append(TracedStep(len(ids), len(ids) + 4, "", [0.0] * 4, [0.0] * 4))
            known.append(StepLabels(failing, None, place % 2 == 0, not failing))
            ids += own
        traces.append(Traced(Problem(text=str(number)), 0, ids, steps))
        labels.append(known)
        splits.append(("train", "train", "held", "test")[number % 4])
    choice = Choice(dict.fromkeys(LEVELS, 1), dict.fromkeys(LEVELS, "any"))
    told = []
    rows = ablate_channels(model, traces, labels, splits, choice, counts=(1, 8, 1000), draws=3, log=told.append)
    assert [(row.level, row.channels) for row in rows] == [(level, count) for level in LEVELS for count in (1, 8)]
    slips = {row.channels: row for row in rows if row.level == "intra_step"}
    assert slips[1].ranked > 0.8 > slips[1].random
    assert slips[8].ranked >= slips[8].random
    assert len(as_markdown(rows).splitlines()) == 2 + len(rows)
    assert told[0].startswith("reading")


def test_a_folder_without_traces_is_refused(tmp_path):
    (tmp_path / "traces.jsonl").write_text('{"key": 1}\n{"no": "trace"}\n')
    for path in (tmp_path / "traces.jsonl", tmp_path / "missing.jsonl"):
        with pytest.raises(DetectorError, match="holds no traces"):
            load_traces(path)
