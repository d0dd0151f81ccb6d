"""Build an embedded LRM from nothing: pre-training, trigger SFT, detector, card. One folder, ready to ship."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nr_agent.detection.fit import fit
from nr_agent.evaluation.model_card import measure_families
from nr_agent.evaluation.model_readme import model_readme
from nr_agent.events import LEVELS
from nr_agent.models.across import sampler
from nr_agent.models.registry import DETECTOR_FOLDER, load_engine
from nr_agent.tasks import FAMILIES, FITTED_FROM, draw
from nr_agent.training.own_careful import careful_examples
from nr_agent.training.own_failures import own_examples
from nr_agent.training.own_rounds import own_traces
from nr_agent.training.own_tells import told_examples
from nr_agent.training.pretrain import TELLTALE_FILE, PretrainSettings, pretrain, save_model
from nr_agent.training.telltale import LAYERS, NEURONS, Telltale
from nr_agent.training.trigger_sft import SftSettings, trigger_sft

SAMPLED_FROM = 200_000
"""First training seed of the traces that the trigger SFT learns from."""


@dataclass(frozen=True)
class BuildSettings:
    """How much of everything.

    Attributes:
        pretrain: the pre-training.
        sft: the trigger SFT.
        sampled: problems a family whose traces the trigger SFT learns from.
        fitted: problems a family whose traces the detector is fitted on.
        measured: problems a family for the card at temperature 0.6; at 0 a third of them.
    """

    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    sft: SftSettings = field(default_factory=SftSettings)
    sampled: int = 150
    fitted: int = 220
    measured: int = 300


def build(out: Path, settings: BuildSettings, *, log: Callable[[str], None]) -> Path:
    """Run every stage that has not been run in this folder yet.

    Returns:
        The folder of the finished model: checkpoint, tokenizer, detector and card.
    """
    base, model = out / "pretrain" / "model", out / settings.pretrain.size
    log("pre-training")
    pretrain(out / "pretrain", settings.pretrain, log=log)
    if not (model / "config.json").exists():
        _teach_triggers(base, model, settings, log)
    engine = load_engine(str(model))
    sample = sampler(engine, str(model))
    try:
        if not (model / DETECTOR_FOLDER / "detector.json").exists():
            log("fitting the detector")
            problems = [draw(name, seed) for seed in _seeds(FITTED_FROM, settings.fitted) for name in FAMILIES]
            fit(engine, problems, out / "fit", sample=sample, log=log)
            (model / DETECTOR_FOLDER).mkdir()
            for name in ("detector.json", "detector.safetensors", "card.json", "card.md", "reliability.svg"):
                (model / DETECTOR_FOLDER / name).write_bytes((out / "fit" / name).read_bytes())
        log("measuring")
        engine.attach(None)
        n = {0.6: settings.measured, 0.0: max(1, settings.measured // 3)}
        rows = measure_families(engine, list(FAMILIES), n=n, sample=sample, log=log)
        about = asdict(settings) | {"telltale": {"neurons": len(LEVELS) * NEURONS, "layers": LAYERS}}
        readme = model_readme(settings.pretrain.size, engine.model, about, rows)
    finally:
        engine.shutdown()
    (out / "measured.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    (model / "README.md").write_text(readme)
    return model


def _teach_triggers(base: Path, out: Path, settings: BuildSettings, log: Callable[[str], None]) -> None:
    log("sampling the model's own failures")
    traces = own_traces(base.parent / "own-failures.jsonl", base, SAMPLED_FROM, settings.sampled)
    tokenizer = AutoTokenizer.from_pretrained(base)
    own = own_examples(tokenizer, traces)
    careful = careful_examples(tokenizer, traces)
    told = told_examples(tokenizer, traces, settings.sft.longest)
    log(f"trigger SFT on {len(own)} of its own steps with what came of them, {len(careful)} to be taken carefully")
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    telltale = Telltale(model)
    telltale.load_state_dict(load_file(base.parent / TELLTALE_FILE))
    examples = [*own, *careful]
    trained = trigger_sft(
        model, tokenizer, examples, list(FAMILIES), settings.sft, telltale=telltale, told=told, log=log
    )
    save_model(trained, tokenizer, out)


def _seeds(first: int, count: int) -> range:
    return range(first, first + count)
