"""GGUF files: converted once, exactly, whole or not at all; what is broken is refused with a remedy."""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from models_helpers import SPECIAL, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from nr_agent.engine.protocol import Sampling, StopSpec
from nr_agent.errors import DetectorError, MissingExtraError, ModelError
from nr_agent.models.gguf import converted
from nr_agent.models.registry import find_model, has_detector, load_detector, load_engine
from nr_agent.settings import load_settings

TEXTS = (
    "What is 2 + 3? 12345\n\n  x",
    "h\u00e9llo \U0001f600 \u4f60\u597d\ttabs",
    " a sequence, its cache",
    "<|im_start|>user\nhi<|im_end|>\n",
)
IDS = [30, 31, 32, 33, 50, 60, 70]


def converted_folders(home):
    return [path for path in (home / "converted").glob("*/*") if path.name != ".lock"]


def as_transformers_reads(file):
    given = {"gguf_file": file.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **given)
    return model.eval(), AutoTokenizer.from_pretrained(file.parent, **given)


def test_logits_are_those_of_the_model_and_of_transformers_own_reading(written):
    file, model = written
    mine = AutoModelForCausalLM.from_pretrained(converted(file), dtype=torch.float32)
    theirs, _ = as_transformers_reads(file)
    ids = torch.tensor([IDS])
    with torch.no_grad():
        logits = mine(ids).logits
        assert torch.equal(logits, theirs(ids).logits)
        assert torch.equal(logits, model(ids).logits)


def test_the_tokenizer_is_the_same_and_text_comes_back(file):
    mine = AutoTokenizer.from_pretrained(converted(file))
    _, theirs = as_transformers_reads(file)
    assert mine.get_vocab() == theirs.get_vocab()
    assert (mine.chat_template, mine.eos_token, mine.get_added_vocab()) == (
        theirs.chat_template,
        theirs.eos_token,
        theirs.get_added_vocab(),
    )
    for text in TEXTS:
        ids = mine.encode(text)
        assert ids == theirs.encode(text)
        assert mine.decode(ids) == text
    assert {mine.convert_tokens_to_ids(token) for token in SPECIAL} & set(mine.encode(TEXTS[-1]))


def test_an_engine_on_the_file_is_named_after_it_and_writes_what_the_model_writes(written):
    file, model = written
    engine = load_engine(str(file))
    try:
        segment = engine.extend(engine.open(IDS), stop=StopSpec(max_new=20), sampling=Sampling(temperature=0))
        prompt = engine.codec.render([{"role": "user", "content": "What is 2 + 3?"}])
        assert engine.name == "tiny-llama.F32"
        assert engine.codec.decode(prompt).endswith("What is 2 + 3?<|im_end|>\n<|im_start|>assistant\n")
        assert engine.codec.end_ids == {engine.codec.control("<|im_end|>")}
    finally:
        engine.shutdown()
    with torch.no_grad():
        plain = model.generate(torch.tensor([IDS]), max_new_tokens=20, do_sample=False)
    assert segment.ids == plain[0, len(IDS) :].tolist()


@pytest.mark.parametrize(("stored", "expected"), [(np.float32, torch.float32), (np.float16, torch.float16)])
def test_a_checkpoint_is_no_larger_than_exactness_asks(home, tmp_path, stored, expected):
    file = tmp_path / "stored.gguf"
    write_gguf(file, dtype=stored)
    mine = AutoModelForCausalLM.from_pretrained(converted(file), dtype="auto")
    theirs, _ = as_transformers_reads(file)
    assert mine.dtype == expected
    for (name, weight), exact in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(weight.float(), exact), name


def test_a_file_is_converted_once_wherever_it_lies_and_anew_when_it_changed(home, file, tmp_path):
    first = converted(file)
    made = (first / "model.safetensors").stat().st_mtime_ns
    copy = tmp_path / "elsewhere" / file.name
    copy.parent.mkdir()
    shutil.copy(file, copy)
    assert find_model(str(copy)) == first
    assert first.name == "tiny-llama.F32"
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    write_gguf(copy, dtype=np.float16)
    assert find_model(str(copy)) != first
    assert len(converted_folders(home)) == 2


def test_what_lies_beside_the_file_is_none_of_its_content(home, file, tmp_path):
    copy = tmp_path / file.name
    shutil.copy(file, copy)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json"):
        (tmp_path / name).write_text('{"model_type": "gpt2", "eos_token_id": 7, "chat_template": "no"}')
    folder = converted(copy)
    assert AutoTokenizer.from_pretrained(folder).chat_template != "no"
    assert '"eos_token_id": 7' not in (folder / "generation_config.json").read_text()
    assert not (folder / "adapter_config.json").exists()


def test_a_killed_conversion_leaves_nothing_and_the_next_one_cleans_up(home, file):
    code = (
        "import sys, time, pathlib; from nr_agent.models import gguf\n"
        "def tell(stage, done, total):\n"
        "    if done == total > 0: print('halfway', flush=True); time.sleep(600)\n"
        "gguf.converted(pathlib.Path(sys.argv[1]), tell)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "halfway\n"
    finally:
        process.kill()
        process.communicate()
    (left,) = converted_folders(home)
    assert left.name.endswith(".part")
    folder = converted(file)
    assert converted_folders(home) == [folder]
    load_engine(str(file)).shutdown()


def test_two_at_once_do_no_harm(home, file):
    code = (
        "import sys, pathlib; from nr_agent.models.gguf import converted; print(converted(pathlib.Path(sys.argv[1])))"
    )
    call = [sys.executable, "-c", code, str(file)]
    both = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert folders == {str(folder) for folder in converted_folders(home)}
    assert len(folders) == 1


def test_who_asks_meanwhile_waits_and_takes_what_the_first_one_made(home, file):
    stages = []
    started = threading.Event()

    def slowly(stage, done, total):
        stages.append(stage)
        started.set()
        time.sleep(0.01)

    found = []
    first = threading.Thread(target=lambda: found.append(converted(file, slowly)))
    first.start()
    assert started.wait(60)
    second = converted(file, lambda *told: pytest.fail("it was converted twice"))
    first.join(60)
    assert found == [second]
    assert {"reading", "unpacking", "writing"} == set(stages)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
def test_a_truncated_file_is_refused_and_leaves_nothing(home, file, tmp_path, kept):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(ModelError, match=r"cut\.gguf cannot be read as GGUF: .+") as caught:
        load_engine(str(cut))
    assert "truncated" in caught.value.hint
    assert converted_folders(home) == []


def test_a_broken_header_is_refused(home, file, tmp_path):
    broken = tmp_path / "broken.gguf"
    content = bytearray(file.read_bytes())
    content[8:24] = b"\xff" * 16
    broken.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.gguf cannot be read as GGUF"):
        load_engine(str(broken))
    assert converted_folders(home) == []


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    file = tmp_path / "page.gguf"
    file.write_text("<html>404</html>")
    with pytest.raises(ModelError, match="no GGUF file"):
        find_model(str(file))


def test_missing_tensors_are_refused_instead_of_drawn_at_random(home, tmp_path):
    file = tmp_path / "part-00001-of-00002.gguf"
    write_gguf(file, without=("blk.1.ffn_up.weight",))
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights: model\.layers\.1\.mlp\.up_proj") as caught:
        converted(file)
    assert "--merge" in caught.value.hint


def test_an_unknown_architecture_is_refused_with_its_name(home, tmp_path):
    file = tmp_path / "odd.gguf"
    write_gguf(file, architecture="nonesuch")
    with pytest.raises(ModelError, match="nonesuch") as caught:
        converted(file)
    assert "Hugging Face folder" in caught.value.hint


def test_a_model_without_a_chat_template_is_refused_when_it_is_loaded(home, tmp_path):
    file = tmp_path / "base.gguf"
    write_gguf(file, template=None)
    with pytest.raises(ModelError, match="chat template"):
        load_engine(str(file))


def test_without_the_package_the_extra_is_named_and_a_converted_file_still_loads(home, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError) as caught:
        find_model(str(file))
    assert caught.value.hint == "pip install 'nr-agent[gguf]'"
    monkeypatch.undo()
    monkeypatch.setenv("NR_AGENT_HOME", str(home))
    folder = find_model(str(file))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert find_model(str(file)) == folder


def test_a_home_that_cannot_be_written_is_told(home, file):
    home.write_text("a file")
    with pytest.raises(ModelError, match="cannot be converted") as caught:
        find_model(str(file))
    assert "NR_AGENT_HOME" in caught.value.hint


def test_the_hint_for_a_detector_does_not_point_into_the_data_home(file):
    engine = load_engine(str(file))
    try:
        with pytest.raises(DetectorError) as caught:
            load_detector(str(file), engine)
    finally:
        engine.shutdown()
    assert "--out DIR" in caught.value.hint
    assert str(load_settings().home) not in str(caught.value)
    assert not has_detector(str(file))


def test_a_folder_of_gguf_files_names_one(file):
    with pytest.raises(ModelError, match=r"config\.json is missing") as caught:
        find_model(str(Path(file).parent))
    assert str(file) in caught.value.hint
