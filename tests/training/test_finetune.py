"""`nr-agent train`: real runs of TRL and PEFT on a tiny model, cut off and taken up, refused and reported."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="trl is not installed (pip install 'nr-agent[train]')")
pytest.importorskip("peft", reason="peft is not installed (pip install 'nr-agent[train]')")
sys.path.append(str(Path(__file__).parents[1] / "export"))

from export_helpers import RECHECKED, RIGHT, SLIP, failure, make_episode, rechecked, remedy, stopped

from nr_agent.cli.main import app
from nr_agent.engine.text import TokenizerCodec
from nr_agent.errors import ConfigurationError, ExportError, MissingExtraError, ModelError, TrainingError
from nr_agent.export import export
from nr_agent.models.registry import load_engine
from nr_agent.store import EpisodeStore
from nr_agent.tokens import CORRECTION_TOKENS
from nr_agent.training.correction_rows import add_correction_tokens, trainable_rows
from nr_agent.training.finetune import FinetuneSettings, finetune
from nr_agent.training.pretrain import build_model, save_model
from nr_agent.training.tokenizer import train_tokenizer

# TRL sets an option that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("default")
SHORT = FinetuneSettings(steps=4, batch=2, save_every=2)


class CutError(Exception):
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny model with the correction tokens."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(samples=100)
    torch.manual_seed(0)
    save_model(build_model("tiny", tokenizer), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def data(model, tmp_path_factory) -> dict[str, Path]:
    """An export in every format and mask that is needed."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("data")
    tokenizer = AutoTokenizer.from_pretrained(model)
    codec = TokenizerCodec(tokenizer, frozenset({tokenizer.eos_token_id}))
    thoughts = [[("m", "Let me add.\n\n")], [("m", SLIP)], [("i", RECHECKED), ("m", RIGHT)]]
    end = [("m", "</think>\n\nThe final answer is \\boxed{47}.<|im_end|>")]
    acted = {"events": [failure(2)], "interventions": [remedy(2, outcome="changed", rolled_back=9)]}
    with EpisodeStore.in_memory() as store:
        for number in range(6):
            asked = {"question": f"What is 12 + {number}?"}
            store.begin(rechecked(codec, f"a{number}", **asked))
            store.begin(stopped(codec, f"b{number}", **asked))
            store.begin(make_episode(codec, thoughts, end, episode_id=f"c{number}", discarded=(2,), **asked, **acted))
        made = {}
        for form, mask in (
            ("messages", "respond"),
            ("pretokenized", "respond"),
            ("pretokenized", "internalize"),
            ("preference", "respond"),
            ("axolotl", "respond"),
        ):
            made[f"{form}-{mask}"] = folder / f"{form}-{mask}"
            export(store, folder / f"{form}-{mask}", format=form, mask=mask, validation=0.2, codec=codec)
        made["empty"] = folder / "empty"
        export(store, folder / "empty", outcome="wrong", codec=codec)
    return made


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("form", ["messages-respond", "pretokenized-respond", "preference-respond"])
def test_a_run_makes_a_checkpoint_that_the_engine_loads(model, data, tmp_path, form, method):
    seen = []
    settings = FinetuneSettings(method=method, steps=2, batch=2)
    done = finetune(str(model), data[form], tmp_path / "out", settings, progress=lambda *told: seen.append(told))
    assert [(step, steps) for step, steps, _ in seen] == [(1, 2), (2, 2)]
    assert done.steps == 2
    assert (tmp_path / "out" / "adapter").is_dir() == (method == "lora")
    engine = load_engine(str(done.model))
    try:
        assert engine.codec.tokenizer.chat_template == load_template(model)
        assert engine.codec.control("<|recheck|>") is not None
    finally:
        engine.shutdown()
    before, after = weights(model), weights(done.model)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name].float(), after[name].float()) for name in before)
    # What TRL left on the way is gone.
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["model", "training.json", *(["adapter"] if method == "lora" else [])]
    )


def load_template(folder: Path) -> str:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).chat_template


def test_training_lowers_the_loss(model, data, tmp_path):
    seen = []
    settings = FinetuneSettings(method="full", steps=40, batch=4, learning_rate=3e-3)
    finetune(
        str(model),
        data["pretokenized-respond"],
        tmp_path / "out",
        settings,
        progress=lambda *told: seen.append(told[2]),
    )
    assert sum(seen[-3:]) < 0.5 * sum(seen[:3])


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(model, data, tmp_path):
    whole = finetune(str(model), data["pretokenized-internalize"], tmp_path / "whole", SHORT)

    def cut(step, steps, loss):
        if step == 3:
            raise CutError

    with pytest.raises(CutError):
        finetune(str(model), data["pretokenized-internalize"], tmp_path / "cut", SHORT, progress=cut)
    assert not (tmp_path / "cut" / "model").exists()
    seen = []
    done = finetune(
        str(model),
        data["pretokenized-internalize"],
        tmp_path / "cut",
        SHORT,
        progress=lambda *told: seen.append(told[0]),
    )
    assert (done.resumed_from, seen) == (2, [3, 4])
    one, other = weights(whole.model), weights(done.model)
    assert all(torch.equal(one[name], other[name]) for name in one)
    # And one that is finished is not run again.
    assert finetune(str(model), data["pretokenized-internalize"], tmp_path / "cut", SHORT, progress=cut) == done


def test_a_checkpoint_that_was_torn_is_left_out(model, data, tmp_path):
    def cut(step, steps, loss):
        if step == 3:
            raise CutError

    with pytest.raises(CutError):
        finetune(str(model), data["pretokenized-respond"], tmp_path / "out", SHORT, progress=cut)
    (tmp_path / "out" / "checkpoints" / "checkpoint-3").mkdir()
    assert finetune(str(model), data["pretokenized-respond"], tmp_path / "out", SHORT).resumed_from == 2


def test_only_the_correction_tokens_rows_are_trained_where_they_are_to_be_learnt(model, data, tmp_path):
    done = finetune(str(model), data["pretokenized-internalize"], tmp_path / "out", SHORT)
    before, after = (
        weights(model)["model.embed_tokens.weight"].float(),
        weights(done.model)["model.embed_tokens.weight"],
    )
    changed = {index for index in range(len(before)) if not torch.equal(before[index], after[index].float())}
    assert set(done.trained_rows) >= changed > set()
    plain = finetune(str(model), data["pretokenized-respond"], tmp_path / "plain", SHORT)
    assert plain.trained_rows == []
    assert torch.equal(weights(plain.model)["model.embed_tokens.weight"].float(), before)


@pytest.mark.parametrize("tied", [True, False])
def test_correction_tokens_are_added_where_they_are_missing(tied):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    core = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))  # noqa: S106
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", extra_special_tokens=["<think>"])  # noqa: S106
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": tied}
    made = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **sizes, **heads))
    before = made.get_input_embeddings().weight.detach().clone()
    assert add_correction_tokens(made, tokenizer) == list(CORRECTION_TOKENS)
    assert add_correction_tokens(made, tokenizer) == []
    assert "<think>" in tokenizer.all_special_tokens
    ids = tokenizer.convert_tokens_to_ids(list(CORRECTION_TOKENS))
    assert [tokenizer.encode(token) for token in CORRECTION_TOKENS] == [[one] for one in ids]
    rows = made.get_input_embeddings().weight
    assert torch.equal(rows[: len(before)], before)
    assert torch.allclose(rows[ids].mean(), before.mean(), atol=0.1)
    assert not torch.equal(rows[ids[0]], rows[ids[1]])
    assert made(input_ids=torch.tensor([ids])).logits.shape[-1] == len(tokenizer)
    assert trainable_rows(made, tokenizer) == {"embed_tokens": ids} | ({} if tied else {"lm_head": ids})


def test_other_settings_are_another_run(model, data, tmp_path):
    finetune(str(model), data["pretokenized-respond"], tmp_path / "out", SHORT)
    with pytest.raises(ConfigurationError, match="another settings"):
        finetune(str(model), data["pretokenized-respond"], tmp_path / "out", FinetuneSettings(steps=5))
    with pytest.raises(ConfigurationError, match="another export_id"):
        finetune(str(model), data["pretokenized-internalize"], tmp_path / "out", SHORT)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigurationError, match="something else"):
        finetune(str(model), data["pretokenized-respond"], tmp_path / "precious", SHORT)


def test_what_cannot_be_trained_on_is_refused_before_anything_is_written(model, data, tmp_path):
    for name, kind, message in (("axolotl-respond", ConfigurationError, "axolotl"), ("empty", ExportError, "no row")):
        with pytest.raises(kind, match=message) as caught:
            finetune(str(model), data[name], tmp_path / "out", SHORT)
        assert caught.value.hint
    with pytest.raises(ExportError, match="no export"):
        finetune(str(model), tmp_path, tmp_path / "out", SHORT)
    with pytest.raises(ModelError, match="no model"):
        finetune("nonsense", data["pretokenized-respond"], tmp_path / "out", SHORT)
    assert not (tmp_path / "out").exists()


def test_an_export_of_another_tokenizer_is_refused(data, tmp_path):
    tokenizer = train_tokenizer(samples=20)
    save_model(build_model("tiny", tokenizer), tokenizer, tmp_path / "other")
    text = (tmp_path / "other" / "tokenizer.json").read_text()
    moved = json.loads(text)
    vocabulary = moved["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(moved))
    with pytest.raises(ExportError):
        finetune(str(tmp_path / "other"), data["pretokenized-respond"], tmp_path / "out", SHORT)


def test_a_loss_that_is_no_number_ends_the_run_with_a_remedy(model, data, tmp_path):
    settings = FinetuneSettings(method="full", steps=30, batch=2, learning_rate=1e20)
    with pytest.raises(TrainingError, match="no number") as caught:
        finetune(str(model), data["pretokenized-respond"], tmp_path / "out", settings)
    assert "--learning-rate" in caught.value.hint


@pytest.mark.parametrize("out", ["/proc/run", "file/run"])
def test_a_place_that_cannot_be_written_is_an_error_with_a_remedy(model, data, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises((TrainingError, ConfigurationError)) as caught:
        finetune(str(model), data["pretokenized-respond"], out, SHORT)
    assert caught.value.hint


def test_without_the_extra_it_is_named(model, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match="peft") as caught:
        finetune(str(model), data["pretokenized-respond"], tmp_path / "out", SHORT)
    assert "nr-agent[train]" in caught.value.hint


def test_the_command_trains_and_prints_where_the_model_is(model, data, tmp_path, capsys):
    line = f"train --model {model} --data {data['pretokenized-respond']} --out {tmp_path / 'out'} --steps 2 --batch 2"
    app(shlex.split(line), standalone_mode=False)
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'out' / 'model'}\n"
    assert "step 2/2" in captured.err
    assert "nr-agent fit" in captured.err
    with pytest.raises(ConfigurationError, match="no method"):
        app(shlex.split(f"{line} --method magic"), standalone_mode=False)
