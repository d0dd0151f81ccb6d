"""The formats beside conversations: Parquet, pairs, steps, trajectories and logs are what their readers expect."""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from export_helpers import ANSWER, RECHECKED, RIGHT, SLIP, failure, make_episode, rechecked, remedy, stopped

from nr_agent.errors import ConfigurationError
from nr_agent.events import ChannelEvidence, Evidence
from nr_agent.export import export, verify
from nr_agent.export.files import read_rows, to_line
from nr_agent.export.forks import find_forks
from nr_agent.export.formats import build_rows
from nr_agent.export.rows import Refused
from nr_agent.graphs.baseline import create_baseline
from nr_agent.policies.baselines import SelfRefine
from nr_agent.store import EpisodeStore
from nr_agent.testing import ScriptedEngine

CLOSED = [("m", f"</think>\n\n{ANSWER}")]
FIRST = "Let me add. 12, 35.\n\n"
ENDED = f"{RIGHT}</think>\n\n{ANSWER}"


def rolled_back(codec, episode_id="r", **fields):
    """A slip that was taken back, and the recheck in its place."""
    thoughts = [[("m", FIRST)], [("m", SLIP)], [("i", RECHECKED), ("m", RIGHT)]]
    fields = {"events": [failure(2)], "interventions": [remedy(2, outcome="changed", rolled_back=9)]} | fields
    return make_episode(codec, thoughts, CLOSED, episode_id=episode_id, discarded=(2,), **fields)


def branched(codec, episode_id="b"):
    """Two lines of two steps and of one lost against a third."""
    thoughts = [[("m", FIRST)], [("m", SLIP)], [("m", "So 46.\n\n")], [("m", "No.\n\n")], [("m", RIGHT)]]
    made = make_episode(codec, thoughts, CLOSED, episode_id=episode_id, discarded=(2, 3, 4), interventions=[])
    names = ["main", "main", "branch-1", "branch-1", "branch-2", "branch-3", "branch-3"]
    steps = [step.model_copy(update={"branch": name}) for step, name in zip(made.steps, names, strict=True)]
    steps[3] = steps[3].model_copy(update={"start": steps[2].start + len(steps[2].ids)})
    return made.model_copy(update={"steps": steps})


def rows(folder: Path, name: str = "train.jsonl") -> list[dict]:
    return list(read_rows(folder / name))


# --- Parquet ---


def test_parquet_holds_what_the_lines_hold(codec, store, tmp_path):
    for episode in (rechecked(codec, "a"), rolled_back(codec, "b"), stopped(codec, "c")):
        store.begin(episode)
    for form in ("pretokenized", "messages", "axolotl", "preference", "stepwise"):
        found = {}
        for kind in ("jsonl", "parquet"):
            export(store, tmp_path / f"{form}-{kind}", format=form, files=kind, codec=codec)
            found[kind] = rows(tmp_path / f"{form}-{kind}", f"train.{kind}")
        assert found["jsonl"], form
        assert found["jsonl"] == found["parquet"], form


def test_pretokenized_is_parquet_with_three_columns_of_fixed_types(codec, store, tmp_path):
    import pyarrow.parquet as pq

    store.begin(rechecked(codec))
    export(store, tmp_path / "out", format="pretokenized")
    schema = pq.read_schema(tmp_path / "out" / "train.parquet")
    assert {name: str(schema.field(name).type.value_type) for name in schema.names} == {
        "input_ids": "int32",
        "attention_mask": "int8",
        "labels": "int32",
    }


def test_parquet_is_the_same_byte_for_byte(codec, store, tmp_path):
    for number in range(30):
        store.begin(rechecked(codec, f"e{number:02}", question=f"What is 12 + {number}?"))
    for name in ("one", "two"):
        export(store, tmp_path / name, format="pretokenized", validation=0.3)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("form", ["pretokenized", "preference", "stepwise"])
def test_datasets_opens_the_folder_with_its_splits(codec, store, tmp_path, form):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (pip install 'nr-agent[export]')")
    for number in range(20):
        store.begin(rolled_back(codec, f"e{number:02}", question=f"What is 12 + {number}?"))
    manifest = export(store, tmp_path / "out", format=form, files="parquet", validation=0.3, codec=codec)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == manifest.splits
    for name, split in loaded.items():
        assert [dict(row) for row in split] == rows(tmp_path / "out", f"{name}.parquet")
        assert len(split) > 0


def test_what_is_json_by_definition_is_not_written_as_parquet(store, tmp_path):
    with pytest.raises(ConfigurationError, match="JSON by its definition"):
        export(store, tmp_path / "out", format="atif", files="parquet")


# --- preference ---


def test_a_step_that_was_taken_back_loses_against_what_came_instead(codec, store, tmp_path):
    store.begin(rolled_back(codec))
    pairs = {}
    for mask in ("respond", "internalize"):
        export(store, tmp_path / mask, format="preference", mask=mask, codec=codec)
        [pairs[mask]] = rows(tmp_path / mask)
    prompt = codec.decode(codec.render([{"role": "user", "content": "What is 12 + 35?"}])) + FIRST
    for mask, trigger in (("respond", ""), ("internalize", RECHECKED)):
        pair = pairs[mask]
        assert (pair["prompt"], pair["rejected"], pair["chosen"]) == (prompt, SLIP, trigger + ENDED)


def test_a_step_that_was_corrected_in_place_loses_against_its_correction(codec, store, tmp_path):
    store.begin(rechecked(codec))
    export(store, tmp_path / "out", format="preference", mask="internalize", codec=codec)
    [pair] = rows(tmp_path / "out")
    assert pair["prompt"].endswith(FIRST)
    # The trigger goes with the step that it answered.
    assert (pair["rejected"], pair["chosen"]) == (SLIP, ENDED)


def test_a_step_that_was_confirmed_loses_against_nothing(codec, store, tmp_path):
    store.begin(rolled_back(codec, "taken-back", interventions=[remedy(2, outcome="confirmed", rolled_back=9)]))
    store.begin(rechecked(codec, "in-place", interventions=[remedy(2, outcome="confirmed")]))
    store.begin(rolled_back(codec, "unclear", interventions=[remedy(2, outcome="unclear", rolled_back=9)]))
    manifest = export(store, tmp_path / "out", format="preference", codec=codec)
    assert manifest.refused == {"no fork: nothing was given up": 2}
    assert [row["nr_episode_id"] for row in rows(tmp_path / "out")] == ["unclear"]


def test_every_line_that_lost_is_a_pair_of_its_own(codec, store, tmp_path):
    store.begin(branched(codec))
    export(store, tmp_path / "out", format="preference", codec=codec)
    assert [(row["rejected"], row["chosen"]) for row in rows(tmp_path / "out")] == [
        (f"{SLIP}So 46.\n\n", ENDED),
        ("No.\n\n", ENDED),
    ]


def test_a_line_that_parted_from_a_line_that_was_given_up_is_no_pair(codec):
    episode = branched(codec)
    steps = list(episode.steps)
    # The second of the first line, as the retry of a step that was given up on another branch.
    steps[3] = steps[3].model_copy(update={"branch": "branch-9"})
    forks = find_forks(episode.model_copy(update={"steps": steps}))
    assert [[step.index for step in fork.rejected] for fork in forks] == [[2], [4]]


def test_an_episode_without_a_fork_is_left_out_and_counted(codec, store, tmp_path):
    store.begin(rechecked(codec, interventions=[], events=[]))
    manifest = export(store, tmp_path / "out", format="preference", codec=codec)
    assert manifest.refused == {"no fork: nothing was given up": 1}


def test_the_chosen_text_ends_the_turn_so_that_no_end_is_learnt_inside_a_thought(codec, store, tmp_path):
    for episode in (rolled_back(codec, "a"), rechecked(codec, "b"), branched(codec, "c")):
        store.begin(episode)
    export(store, tmp_path / "out", format="preference", codec=codec)
    assert all(row["chosen"].endswith("<|im_end|>") for row in rows(tmp_path / "out"))


# --- stepwise ---


def test_the_label_is_the_index_of_the_first_wrong_step(codec, store, tmp_path):
    store.begin(rechecked(codec, "in-place"))
    store.begin(rolled_back(codec, "rolled"))
    store.begin(make_episode(codec, [[("m", FIRST)], [("m", RIGHT)]], CLOSED, episode_id="sound"))
    export(store, tmp_path / "out", format="stepwise", codec=codec)
    first, slip, right = FIRST.strip(), SLIP.strip(), RIGHT.strip()
    assert [(row["id"], row["steps"], row["label"], row["final_answer_correct"]) for row in rows(tmp_path / "out")] == [
        ("in-place:3", [first, slip, right], 1, True),
        ("rolled:2", [first, slip], 1, None),
        ("rolled:3", [first, right], -1, True),
        ("sound:2", [first, right], -1, True),
    ]


def test_where_nobody_knows_which_step_is_wrong_there_is_no_row(codec, store, tmp_path):
    store.begin(rechecked(codec, "a", correct=False, interventions=[], events=[]))
    store.begin(rechecked(codec, "b", interventions=[remedy(2, outcome="unclear")]))
    manifest = export(store, tmp_path / "out", format="stepwise", outcome="any", codec=codec)
    assert (manifest.rows, manifest.refused) == (0, {"whether a step is wrong is not known": 2})


# --- trajectories and logs ---


def test_trajectories_are_valid_atif_and_tell_everything(codec, store, tmp_path):
    atif = pytest.importorskip("atif", reason="atif is not installed (pip install atif)")
    for episode in (
        rechecked(codec, "a", thread_id="t"),
        rolled_back(codec, "b"),
        stopped(codec, "c"),
        branched(codec, "d"),
    ):
        store.begin(episode)
    for name, codec_or_none in (("cut", codec), ("whole", None)):
        export(store, tmp_path / name, format="atif", outcome="any", codec=codec_or_none)
        for row in rows(tmp_path / name):
            atif.Trajectory.model_validate(row)
    by_name = {row["trajectory_id"]: row for row in rows(tmp_path / "cut")}
    inserted = [step for step in by_name["a"]["steps"] if step.get("llm_call_count") == 0]
    assert [step["message"] for step in inserted] == [RECHECKED]
    said = [
        step.get("reasoning_content") or step["message"] for step in by_name["a"]["steps"] if step["source"] == "agent"
    ]
    assert "".join(said) == f"{FIRST}{SLIP}{RECHECKED}{ENDED}"
    [lost] = by_name["b"]["subagent_trajectories"]
    assert lost["steps"][0]["reasoning_content"] == SLIP
    references = [
        result["subagent_trajectory_ref"][0]["trajectory_id"]
        for step in by_name["b"]["steps"]
        for result in step.get("observation", {}).get("results", [])
        if "subagent_trajectory_ref" in result
    ]
    assert references == [lost["trajectory_id"]]
    assert len(by_name["b"]["subagent_trajectories"]) + len(by_name["b"]["steps"]) > 5


def test_a_trajectory_leaves_a_step_whole_that_it_cannot_cut(codec, other_codec, store, tmp_path):
    store.begin(rechecked(codec, "a"))
    for name, cutter in (("other", other_codec), ("none", None)):
        export(store, tmp_path / name, format="atif", codec=cutter)
    assert rows(tmp_path / "other") == rows(tmp_path / "none")
    with EpisodeStore(tmp_path / "e.db", redact=lambda text: text.replace("35", "[x]")) as redacted:
        redacted.begin(rechecked(codec, "a"))
        export(redacted, tmp_path / "redacted", format="atif", codec=codec)
    [row] = rows(tmp_path / "redacted")
    said = [step.get("reasoning_content") for step in row["steps"]]
    assert f"{RECHECKED}{RIGHT}".replace("35", "[x]") in said


def test_a_log_holds_every_episode_with_its_score(codec, store, tmp_path):
    store.begin(rechecked(codec, "a"))
    store.begin(stopped(codec, "b", correct=False))
    export(store, tmp_path / "out", format="inspect", outcome="any")
    samples = rows(tmp_path / "out", "train.eval")
    with zipfile.ZipFile(tmp_path / "out" / "train.eval") as log:
        head = json.loads(log.read("header.json"))
        assert [one["id"] for one in json.loads(log.read("summaries.json"))] == ["a", "b"]
    assert [sample["scores"]["correct"]["value"] for sample in samples] == ["C", "I"]
    assert head["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 0.5
    reasoning, answer = samples[0]["messages"][1]["content"]
    assert reasoning["reasoning"] == f"{FIRST}{SLIP}{RECHECKED}{RIGHT}".strip()
    assert answer["text"] == ANSWER
    sources = [event["source"] for event in samples[0]["events"]]
    assert sources.count("nr_agent/failure") == sources.count("nr_agent/intervention") == 1


@pytest.mark.parametrize(("form", "name"), [("atif", "train.jsonl"), ("inspect", "train.eval")])
def test_evidence_that_is_no_number_is_null_in_strict_json(codec, store, tmp_path, form, name):
    channel = ChannelEvidence(channel="FFN 1:2", z=math.inf, position=3)
    evidence = Evidence(channels=[channel], features={"mean": math.nan, "std": 0.5})
    store.begin(rechecked(codec, events=[failure(2).model_copy(update={"evidence": evidence})]))
    export(store, tmp_path / "out", format=form)
    path = tmp_path / "out" / name
    if form == "inspect":
        with zipfile.ZipFile(path) as log:
            texts = [log.read(one).decode() for one in log.namelist()]
    else:
        texts = path.read_text(encoding="utf-8").splitlines()
    for text in texts:
        json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    [row] = rows(tmp_path / "out", name)
    results = [one for step in row.get("steps", []) for one in step.get("observation", {}).get("results", [])]
    seen = [one["extra"] for one in results] + [event["data"] for event in row.get("events", [])]
    [written] = [one["evidence"] for one in seen if "evidence" in one]
    assert written["features"] == {"mean": None, "std": 0.5}
    assert written["channels"][0]["z"] is None


def test_a_line_is_strict_json_whatever_is_in_it():
    assert to_line({"a": math.nan, "b": [-math.inf, 1.5], "c": {"d": (math.inf,)}}) == (
        '{"a":null,"b":[null,1.5],"c":{"d":[null]}}\n'
    )


def test_inspect_reads_the_log(codec, store, tmp_path):
    inspect_log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed (pip install inspect-ai)")
    store.begin(rechecked(codec, "a"))
    export(store, tmp_path / "out", format="inspect")
    log = inspect_log.read_eval_log(str(tmp_path / "out" / "train.eval"))
    assert (log.status, log.samples[0].scores["correct"].value) == ("success", "C")


@pytest.mark.parametrize("form", ["preference", "stepwise", "atif", "inspect"])
def test_every_format_can_be_verified_and_is_the_same_byte_for_byte(codec, store, tokenizer, tmp_path, form):
    for number in range(8):
        store.begin(rolled_back(codec, f"e{number}", question=f"What is 12 + {number}?"))
    for name in ("one", "two"):
        manifest = export(store, tmp_path / name, format=form, validation=0.4, codec=codec)
    assert all(manifest.splits.values())
    assert verify(tmp_path / "one", tokenizer).rows == manifest.rows
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


# --- trainers' configuration files ---


@pytest.mark.parametrize("mask", ["respond", "internalize"])
@pytest.mark.parametrize("form", ["messages", "pretokenized", "axolotl", "preference"])
def test_configurations_name_the_files_and_leave_room_for_the_longest_row(codec, store, tmp_path, form, mask):
    for number in range(8):
        store.begin(rolled_back(codec, f"e{number}", question=f"What is 12 + {number}?"))
    manifest = export(store, tmp_path / "out", format=form, mask=mask, validation=0.4, codec=codec)
    found = {path.name: yaml.safe_load(path.read_text()) for path in (tmp_path / "out").glob("*.yaml")}
    assert (
        set(found)
        == {
            "messages": {"trl_sft.yaml", "axolotl.yaml", "llamafactory_sft.yaml"},
            "pretokenized": {"trl_sft.yaml", "axolotl.yaml", "llamafactory_sft.yaml"},
            "axolotl": {"axolotl.yaml"},
            "preference": {"trl_dpo.yaml"},
        }[form]
    )
    for name, values in found.items():
        assert (
            max(values.get(option, 0) for option in ("max_length", "sequence_len", "cutoff_len"))
            >= manifest.lengths.maximum
        )
        for named in ("chat_template_path", "chat_template_jinja"):
            assert (tmp_path / "out" / values.get(named, ".")).exists()
        if name == "axolotl.yaml":
            assert all(
                (tmp_path / "out" / one["path"]).is_file() for one in values["datasets"] + values["test_datasets"]
            )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("form", "name"), [("messages", "sft"), ("pretokenized", "sft"), ("preference", "dpo")])
def test_trl_reads_its_configuration(codec, store, tmp_path, form, name):
    pytest.importorskip("trl", reason="trl is not installed (pip install 'nr-agent[train]')")
    import trl

    store.begin(rolled_back(codec))
    export(store, tmp_path / "out", format=form, codec=codec)
    config = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        parser = trl.TrlParser((trl.ScriptArguments, config, trl.ModelConfig))
        arguments: Any = parser.parse_args_and_config(
            ["--config", str(tmp_path / "out" / f"trl_{name}.yaml"), "--bf16", "false", "--use_cpu", "true"]
        )
    assert arguments[1].max_length > 20
    assert arguments[2].use_peft


def test_what_refines_itself_is_a_conversation(store):
    engine = ScriptedEngine(["2+2=4"])
    report = create_baseline(engine, SelfRefine(rounds=1), store=store).invoke(
        {"messages": [{"role": "user", "content": "What is 2+2?"}]}
    )["reasoning"]
    with pytest.raises(Refused, match="conversation"):
        build_rows(store.get(report["episode_id"]), "messages", "respond", engine.codec)
