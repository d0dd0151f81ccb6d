"""Fit a detector on a model's own traces: sample, label, rank, train, calibrate, and write its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nr_agent.detection.card import LevelData, evaluate_level
from nr_agent.detection.card_file import write_card
from nr_agent.detection.classifier import (
    StepClassifier,
    TrainingSettings,
    conformal_threshold,
    train_classifier,
    why_silent,
)
from nr_agent.detection.collect import all_channels, as_segment, read_traces
from nr_agent.detection.detector import DetectorManifest, NeuronDetector, align
from nr_agent.detection.features import FEATURE_FAMILIES
from nr_agent.detection.hashes import digest, tokenizer_hash
from nr_agent.detection.labels import StepLabels, base_rates, label_trace
from nr_agent.detection.level_settings import POINTS, LevelSettings
from nr_agent.detection.metrics import average_precision
from nr_agent.detection.probes import read_surroundings
from nr_agent.detection.quality import quiet_maxima
from nr_agent.detection.rank import Choice, Layers, rank_channels
from nr_agent.detection.sampled import sample_or_resume
from nr_agent.detection.sources import OWN_SOURCES, SOURCES, LabelSource
from nr_agent.detection.speed import microseconds_per_token
from nr_agent.detection.splits import fittable, split_of
from nr_agent.detection.traces import Traced, sample_traces
from nr_agent.detection.transfer import between_families, natural_and_injected
from nr_agent.detection.views import View
from nr_agent.engine.protocol import Sampling
from nr_agent.episode import Problem
from nr_agent.errors import DetectorError
from nr_agent.events import LEVELS, Level
from nr_agent.neurons.mon import MixtureOfNeurons
from nr_agent.neurons.ranking import Ranking
from nr_agent.neurons.writes import push_table

CANDIDATES: tuple[View, ...] = (
    *(View((family,)) for family in FEATURE_FAMILIES),
    View(("stats", "spectral", "attribution")),
    View(("stats", "confidence")),
    View(("attribution", "confidence")),
    View(FEATURE_FAMILIES),
    View(("stats",), "token"),
    View(("attribution",), "token"),
    View(("confidence",), "token"),
    View(("stats", "confidence"), "token"),
    View(("stats", "attribution", "confidence"), "token"),
    View(FEATURE_FAMILIES, "token"),
)
"""Families alone and together, of steps and of tokens: all are on the card, the best on held problems ships."""


@dataclass(frozen=True)
class FitSettings:
    """Everything that a fit depends on, besides the model and the problems.

    Attributes:
        channels: channels a level.
        kinds: which channels each level may use.
        temperature: at which traces are sampled: that of later use.
        max_tokens: where a trace that does not end is cut; when it is overdone is not known then. A reasoner's budget
            is larger: kept figures were taken with this, and stay comparable.
        alpha: share of good traces that may be disturbed, a level.
        seed: seed of sampling, splits and training.
        ranking: how channels are ranked.
        layers: which layers they are taken from.
    """

    channels: dict[Level, int] = field(default_factory=lambda: {"intra_step": 48, "inter_step": 16, "instance": 48})
    kinds: dict[Level, str] = field(default_factory=lambda: dict.fromkeys(LEVELS, "any"))
    temperature: float = 0.6
    max_tokens: int = 768
    alpha: dict[Level, float] = field(
        default_factory=lambda: {"intra_step": 0.05, "inter_step": 0.05, "instance": 0.05}
    )
    seed: int = 0
    ranking: Ranking = "mean_difference"
    layers: Layers = "all"

    @classmethod
    def published(cls, **others: Any) -> FitSettings:
        """The published choice, as far as it is known: the middle layer, by what channels add to the logits.

        Heads for circling, FFN neurons for the rest. After arXiv 2604.02972 (second-hand), whose own
        attribution method is another one.
        """
        kinds: dict[Level, str] = {"intra_step": "ffn", "inter_step": "head", "instance": "ffn"}
        return cls(ranking="logit_attribution", layers="middle", kinds=kinds, **others)

    def choice(self) -> Choice:
        """What the ranking needs of this."""
        return Choice(self.channels, self.kinds, self.ranking, self.layers, self.seed)


def fit(
    engine: Any,
    problems: Sequence[Problem],
    out: Path,
    settings: FitSettings | None = None,
    *,
    sample: Callable[..., list[Traced]] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> NeuronDetector:
    """Fit a detector and write it, its card and its traces to a folder.

    Sampling is the slow part; its traces are kept in `out/traces.jsonl`, block by block, and used again by a later
    call with the same model, tokenizer, chat template, problems and settings. A level with too few examples of a
    class to learn from is left out, and its card says so: a model may simply not fail in that way.

    Args:
        engine: the model.
        problems: what it is to think about.
        out: the folder.
        settings: see there.
        sample: samples the traces, as `sample_traces` with the engine does, which is the default.
        log: gets a line now and then.

    Raises:
        DetectorError: no level has enough examples.
        ContextLengthError: a problem leaves no room in the model's context; it is named before anything is sampled.
        ProblemError: a problem that the model's chat template does not take, likewise.
    """
    settings = settings or FitSettings()
    out.mkdir(parents=True, exist_ok=True)
    engine.attach(None)
    traces = sample_or_resume(
        engine,
        problems,
        out,
        sampling=Sampling(temperature=settings.temperature),
        seed=settings.seed,
        max_tokens=settings.max_tokens,
        sample=sample or partial(sample_traces, engine),
        log=log,
    )
    cut = sum(not traced.closed for traced in traces) / max(1, len(traces))
    log(f"{cut:.1%} of the traces were cut at {settings.max_tokens} tokens, or where the context ended")
    return fit_traces(engine, traces, [label_trace(traced) for traced in traces], out, settings, log=log)


def fit_traces(
    engine: Any,
    traces: Sequence[Traced],
    labelled: Sequence[Sequence[StepLabels]],
    out: Path,
    settings: FitSettings | None = None,
    *,
    source: str = "traces of its own",
    label_sources: Mapping[Level, LabelSource] = OWN_SOURCES,
    log: Callable[[str], None] = lambda _: None,
) -> NeuronDetector:
    """`fit` on traces that are there already, with labels from wherever they come, a list a trace.

    Steps whose label is not known for a level (None) do not count for it.

    Args:
        engine: the model.
        traces: what is read.
        labelled: the labels of each trace's steps.
        out: the folder.
        settings: see there.
        source: what the card calls the traces.
        label_sources: where the labels of each level are from; the card says so, with what that cannot tell. By
            default `label_trace`'s.
        log: gets a line now and then.

    Raises:
        DetectorError: no level has enough examples, or the source of one's labels is not said.
    """
    settings = settings or FitSettings()
    out.mkdir(parents=True, exist_ok=True)
    engine.attach(None)
    rates = base_rates(labelled)
    log("  ".join(f"{level}: {rate:.1%} of the steps" for level, rate in rates.items()))
    splits = [split_of(traced.problem.text, settings.seed) for traced in traces]
    levels, left_out = fittable(labelled, splits)
    for level, reason in left_out.items():
        log(f"{level} is left out: {reason}")
    known = _sources_of(levels, label_sources)
    log("ranking channels")
    mon, control, mean, scale = rank_channels(engine.model, traces, labelled, splits, settings.choice())
    mon, control = mon.only(levels), control.only(levels)
    log("reading the chosen channels")
    data = _features(engine.model, traces, labelled, splits, mon, mean, scale)
    random_data = _features(engine.model, traces, labelled, splits, control, mean, scale)
    around = read_surroundings(engine.model, traces)
    classifiers: dict[Level, StepClassifier] = {}
    chosen: list[LevelSettings] = []
    card: dict[str, Any] = {"levels": {}, "left_out": left_out}
    for level in levels:
        view, trials = _train(data[level], settings)
        classifiers[level] = trials[view]
        maxima, alpha = _maxima(level, data[level], view, trials[view]), settings.alpha[level]
        threshold = conformal_threshold(maxima, alpha)
        chosen.append(_calibrated(level, view, maxima, alpha))
        row = evaluate_level(level, data[level], random_data[level], view, threshold, trials, around, alpha)
        silent = None if threshold < 1 else why_silent(alpha, len(maxima))
        row |= {"alpha": alpha, "calibrated_on": len(maxima), "silent": silent}
        row["transfer"] = between_families(data[level], view, traces)
        log(_line(level, row, view, threshold))
        if silent is not None:
            log(f"{level} {silent}")
        card["levels"][level] = row
    made = [engine.fingerprint, asdict(settings), [t.ids for t in traces]]
    if any(known[level] != OWN_SOURCES[level] for level in levels):
        made.append(known)  # the same traces, told otherwise
    manifest = DetectorManifest(
        id=f"{engine.name}-{digest(made)[:8]}",
        model=engine.name,
        fingerprint=engine.fingerprint,
        tokenizer_hash=tokenizer_hash(engine.codec.tokenizer),
        mon=mon,
        levels=chosen,
        training={
            "settings": asdict(settings),
            "traces": len(traces),
            "source": source,
            "labels": known,
            "base_rates": rates,
        },
    )
    columns = torch.tensor([all_channels(engine.model).index(channel) for channel in mon.channels()])
    push = push_table(engine.model, mon.channels())
    detector = NeuronDetector(manifest, mean[columns], scale[columns], classifiers, push, engine.codec.decode)
    detector.save(out)
    log("completing the card")
    if "intra_step" in levels:
        slips = classifiers["intra_step"], data["intra_step"]
        card["injected"] = natural_and_injected(engine, detector, *slips, traces, labelled, splits, seed=settings.seed)
    card["microseconds_per_token"] = microseconds_per_token(engine.model, detector, traces)
    write_card(out, manifest, card)
    return detector


def _sources_of(levels: Sequence[Level], sources: Mapping[Level, LabelSource]) -> dict[Level, LabelSource]:
    """Where the labels of these levels are from.

    Raises:
        DetectorError: of one of them nobody says it, or what is said is no source that is known.
    """
    missing = [level for level in levels if sources.get(level) not in SOURCES]
    if missing:
        raise DetectorError(
            f"there are labels of {', '.join(missing)}, and label_sources names no known source of theirs",
            hint=f"name one of these for each level: {', '.join(SOURCES)}",
        )
    return {level: sources[level] for level in levels}


def _features(
    model: Any,
    traces: Sequence[Traced],
    labelled: Sequence[Sequence[StepLabels]],
    splits: Sequence[str],
    mon: MixtureOfNeurons,
    mean: Tensor,
    scale: Tensor,
) -> dict[Level, LevelData]:
    """All families' features of every labelled step, through the observer that will watch later."""
    levels: list[Level] = [group.level for group in mon.groups]
    channels = mon.channels()
    index = {channel: i for i, channel in enumerate(all_channels(model))}
    columns = torch.tensor([index[channel] for channel in channels])
    blank: dict[Level, StepClassifier] = {level: StepClassifier(1) for level in levels}
    manifest = DetectorManifest(
        id="fitting",
        model="",
        fingerprint="",
        tokenizer_hash="",
        mon=mon,
        levels=[LevelSettings(level=level, families=FEATURE_FAMILIES, threshold=None, alpha=0) for level in levels],
    )
    detector = NeuronDetector(manifest, mean[columns], scale[columns], blank, push_table(model, channels))
    data = {level: LevelData(len(mon.columns(level))) for level in levels}
    for number, values in read_traces(model, traces, channels):
        observer = detector.observe("")
        traced = traces[number]
        for place, (step, label) in enumerate(zip(traced.steps, labelled[number], strict=True)):
            read = align(as_segment(step, values, traced.ids))
            assert read is not None  # noqa: S101 - everything was read
            for level, signal in observer.signals(*read):
                truth = label.of(level.settings.level)
                if truth is not None:
                    extent = step.end - step.start
                    data[level.settings.level].add(signal, truth, splits[number], number, place, extent)
    for level_data in data.values():
        level_data.close(traces)
    return data


def _train(data: LevelData, settings: FitSettings) -> tuple[View, dict[View, StepClassifier]]:
    """Train every candidate; the one with the best average precision on held problems is chosen."""
    train, held = data.split("train"), data.split("held")
    trials: dict[View, StepClassifier] = {}
    best: tuple[float, View] = (-1.0, CANDIDATES[0])
    for view in CANDIDATES:
        unseen = data.seen("held", view)
        trials[view] = train_classifier(
            data.seen("train", view), train.labels, (unseen, held.labels), TrainingSettings(seed=settings.seed)
        )
        quality = average_precision(trials[view].score(unseen), held.labels)
        best = max(best, (quality, view), key=lambda pair: pair[0])
    return best[1], trials


def _maxima(level: Level, data: LevelData, view: View, classifier: StepClassifier) -> list[float]:
    """Largest score of each calibration trace over the steps at which the level must stay silent."""
    return quiet_maxima(level, classifier.score(data.seen("calibration", view)), data.split("calibration"))


def _calibrated(level: Level, view: View, maxima: Sequence[float], alpha: float) -> LevelSettings:
    """A level with the thresholds of its share of disturbed good traces and of the others that policies ask for."""
    shares = {share: conformal_threshold(maxima, share) for share in (alpha, *POINTS)}
    return LevelSettings(
        level=level,
        families=view.families,
        unit=view.unit,
        threshold=shares[alpha] if shares[alpha] < 1 else None,
        alpha=alpha,
        points=tuple((share, shares[share]) for share in POINTS if shares[share] < 1),
    )


def _line(level: Level, row: dict[str, Any], view: View, threshold: float) -> str:
    return (
        f"{level}: {view}  AUROC {row['auroc']:.3f}  AP {row['average_precision']:.3f}  "
        f"recall {row['recall']:.2f} at {threshold:.3f}, disturbs {row['false_alarm_traces']:.1%} of good traces"
    )
