"""The mean of two models is one, and whatever has no mean is refused before anything is written."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from nr_agent.cli.main import app
from nr_agent.errors import ConfigurationError, ModelError
from nr_agent.training.averaging import average
from nr_agent.training.pretrain import build_model, save_model


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer):
    """Three of the same shape, whose weights differ."""
    home = tmp_path_factory.mktemp("models")
    for number in range(3):
        torch.manual_seed(number)
        save_model(build_model("tiny", tokenizer), tokenizer, home / str(number))
    return home


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def test_weights_are_the_mean_and_all_else_stays(models, tmp_path):
    run = CliRunner().invoke(
        app,
        ["models", "average", *(str(models / str(number)) for number in range(3)), "--out", str(tmp_path / "mean")],
        catch_exceptions=False,
    )
    assert run.exit_code == 0 and run.stdout.strip() == str(tmp_path / "mean")
    mean = weights(tmp_path / "mean")
    parts = [weights(models / str(number)) for number in range(3)]
    for name, weight in mean.items():
        wanted = torch.stack([part[name] for part in parts]).mean(dim=0)
        assert torch.allclose(weight, wanted.bfloat16().float(), rtol=1e-2, atol=1e-4), name
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (models / "0", tmp_path / "mean")]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    assert all(not torch.equal(weight, parts[0][name]) for name, weight in mean.items() if weight.ndim == 2)


def test_what_has_no_mean_is_refused(models, tmp_path, tokenizer):
    first = str(models / "0")
    with pytest.raises(ConfigurationError, match="mean of 1 models"):
        average([first], tmp_path / "out")
    with pytest.raises(ModelError):
        average([first, str(tmp_path / "nothing")], tmp_path / "out")
    with pytest.raises(ConfigurationError, match="another shape"):
        average([first, "nano"], tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(models / "1", other)
    told = json.loads((other / "tokenizer.json").read_text())
    vocabulary = told["model"]["vocab"]
    one, two = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ConfigurationError, match="another tokenizer"):
        average([first, str(other)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigurationError, match="holds a model already"):
        average([first, str(models / "1")], models / "2")
