"""The neuron detector: its artefact on disk, and its watch over an episode."""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nr_agent.detection.classifier import StepClassifier
from nr_agent.detection.evidence import classify_pattern, name_channels
from nr_agent.detection.features import StepSignal, share_windows, tail
from nr_agent.detection.hashes import tokenizer_hash
from nr_agent.detection.level_settings import LevelSettings
from nr_agent.detection.protocol import Look
from nr_agent.detection.spectrum import WINDOW
from nr_agent.detection.views import Tokens
from nr_agent.engine.protocol import Segment, TapPlan
from nr_agent.episode import ReadingSummary
from nr_agent.errors import DetectorError, DetectorMismatchError
from nr_agent.events import ChannelEvidence, Evidence, FailureEvent, Level
from nr_agent.neurons.mon import MixtureOfNeurons
from nr_agent.neurons.tap import ChannelPlan
from nr_agent.neurons.writes import push_table, strongest

_log = logging.getLogger(__name__)
SCHEMA = 1
_EVENTS = uuid.UUID("6f1d3f0e-5f0e-5b1a-9d35-0d0f9c8f4a11")
_FEATURES_SHOWN = 6
_KINDS: dict[Level, str] = {"intra_step": "calculation", "inter_step": "stagnation", "instance": "overthinking"}


class DetectorManifest(BaseModel):
    """Everything about a detector but its numbers: `detector.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    id: str
    model: str
    fingerprint: str
    tokenizer_hash: str
    mon: MixtureOfNeurons
    levels: list[LevelSettings]
    window: int = WINDOW
    training: dict[str, Any] = {}


@dataclass
class LevelDetector:
    """A level's settings, its classifier, and its columns among the readings."""

    settings: LevelSettings
    classifier: StepClassifier
    columns: Tensor
    signs: Tensor


class NeuronDetector:
    """Watches the MoN of one model.

    Args:
        manifest: what it is.
        mean: `[channels]`, usual reading of each channel.
        scale: `[channels]`, its standard deviation.
        classifiers: one a level.
        push: `[channels, vocabulary]`, see `push_table`.
        decode: ids to text, so that events can say what channels write; without it they do not.
    """

    def __init__(
        self,
        manifest: DetectorManifest,
        mean: Tensor,
        scale: Tensor,
        classifiers: dict[Level, StepClassifier],
        push: Tensor,
        decode: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        self.manifest = manifest
        self.decode = decode
        self.id = manifest.id
        self.fingerprint = manifest.fingerprint
        self.channels = manifest.mon.channels()
        self.plan: TapPlan = ChannelPlan(self.channels)
        self.mean = mean
        self.scale = scale
        self.push = push
        groups = {group.level: group for group in manifest.mon.groups}
        self.levels = [
            LevelDetector(
                settings,
                classifiers[settings.level],
                torch.tensor(manifest.mon.columns(settings.level)),
                torch.tensor([1.0 if value >= 0 else -1.0 for value in groups[settings.level].scores]),
            )
            for settings in manifest.levels
        ]

    def observe(self, episode_id: str) -> NeuronObserver:
        """Begin to watch an episode."""
        return NeuronObserver(self, episode_id)

    def at(self, alarms: Mapping[Level, float]) -> NeuronDetector:
        """The same detector where other shares of good traces may be disturbed, by level.

        A level for which there is no threshold for so small a share stays silent, and a warning says so.

        Raises:
            DetectorError: no share that is as low is ever calibrated.
        """
        levels = [one.at(alarms[one.level]) if one.level in alarms else one for one in self.manifest.levels]
        for level in levels:
            if level.level in alarms and level.threshold is None:
                _log.warning(
                    "%s stays silent about %s: what it was fitted on allows no threshold that disturbs only %g of the "
                    "good traces; fit it on more problems",
                    self.id,
                    level.level,
                    alarms[level.level],
                )
        manifest = self.manifest.model_copy(update={"levels": levels})
        classifiers = {level.settings.level: level.classifier for level in self.levels}
        return NeuronDetector(manifest, self.mean, self.scale, classifiers, self.push, self.decode)

    def save(self, folder: Path) -> None:
        """Write `detector.json` and `detector.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"mean": self.mean, "scale": self.scale}
        for level in self.levels:
            for name, value in level.classifier.state_dict().items():
                tensors[f"{level.settings.level}.{name}"] = value.contiguous()
        save_file(tensors, folder / "detector.safetensors")
        (folder / "detector.json").write_text(self.manifest.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, engine: Any) -> NeuronDetector:
        """Read a detector for an engine.

        Raises:
            DetectorError: the folder holds no whole detector.
            DetectorMismatchError: it was fitted on another model or tokenizer, or with another window.
        """
        try:
            manifest = DetectorManifest.model_validate_json((folder / "detector.json").read_bytes())
            tensors = load_file(folder / "detector.safetensors")
        except (OSError, ValidationError, SafetensorError, json.JSONDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise DetectorError(f"the detector in {folder} is broken: {reason}", hint="fit it again") from error
        _check_fit(manifest, engine)
        classifiers: dict[Level, StepClassifier] = {}
        for settings in manifest.levels:
            prefix = f"{settings.level}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            classifier = StepClassifier(state["mean"].shape[0], state["inner.weight"].shape[0])
            classifier.load_state_dict(state)
            classifiers[settings.level] = classifier.eval()
        with engine.quiet() as model:
            push = push_table(model, manifest.mon.channels())
        return cls(manifest, tensors["mean"], tensors["scale"], classifiers, push, engine.codec.decode)


@dataclass
class NeuronObserver:
    """One episode's watch. Its memory is the end of each group's signal."""

    detector: NeuronDetector
    episode_id: str
    history: dict[Level, Tensor] = field(default_factory=dict)

    def fork(self) -> NeuronObserver:
        """An independent watch with the same memory."""
        return NeuronObserver(self.detector, self.episode_id, dict(self.history))

    @torch.no_grad()
    def look(self, segment: Segment, *, step: int, text: str) -> Look:
        """Score a step at every level, and raise an event where a threshold is crossed.

        Raises:
            DetectorMismatchError: other channels were read than this detector's.
        """
        look = Look()
        read = align(segment)
        if read is None:
            return look
        raw, written, logprobs, entropies = read
        watched = len(self.detector.channels)
        if raw.shape[1] != watched:
            raise DetectorMismatchError(
                f"{raw.shape[1]} channels were read, and the detector {self.detector.id} watches {watched}",
                hint="another detector was attached to the engine since: share one, or load a second engine",
            )
        for level, signal in self.signals(raw, written, logprobs, entropies):
            name = level.settings.level
            score = float(level.classifier.score(level.settings.view.see([signal]))[0])
            look.scores[name] = score
            look.summaries.append(_summarise(name, signal.values, score))
            threshold = level.settings.threshold
            if threshold is not None and score > threshold:
                look.events.append(self._event(level, signal, score, segment, step, text))
        return look

    def signals(
        self, raw: Tensor, written: Tensor, logprobs: Tensor, entropies: Tensor
    ) -> list[tuple[LevelDetector, StepSignal]]:
        """Every level's view of the next step, which is remembered; spectra that are looked at are computed at once."""
        seen = [(level, self.signal(level, raw, written, logprobs, entropies)) for level in self.detector.levels]
        share_windows([signal for level, signal in seen if "spectral" in level.settings.families])
        for level, signal in seen:
            self.history[level.settings.level] = tail(signal.history, signal.signal)
        return seen

    def signal(
        self, level: LevelDetector, raw: Tensor, written: Tensor, logprobs: Tensor, entropies: Tensor
    ) -> StepSignal:
        """A level's view of a step: its channels, standardised, with what they push and what came before."""
        detector, columns = self.detector, level.columns
        values = raw[:, columns]
        return StepSignal(
            values=(values - detector.mean[columns]) / detector.scale[columns],
            push=values * detector.push[columns[:, None], written].T,
            logprobs=logprobs,
            entropies=entropies,
            history=self.history.get(level.settings.level, torch.zeros(WINDOW - 1)),
            signs=level.signs,
        )

    def channels(self, level: LevelDetector, signal: StepSignal, start: int) -> list[ChannelEvidence]:
        """The channels of a level that went furthest in a step that begins at `start`, and what they wrote there."""
        detector = self.detector
        columns = {str(detector.channels[column]): column for column in level.columns.tolist()}
        named = name_channels(signal.values, list(columns), start)
        if detector.decode is None:
            return named
        told = []
        for one in named:
            column = columns[one.channel]
            # A neuron that reads below zero pushes the other way.
            raw = one.z * float(detector.scale[column]) + float(detector.mean[column])
            told.append(one.model_copy(update={"writes": strongest(raw * detector.push[column], detector.decode)}))
        return told

    def standing(self, level: LevelDetector, signal: StepSignal) -> dict[str, tuple[float, float]]:
        """The features that stand out most, by name: the value of each, and how many standard deviations it is off.

        Where tokens are scored, these are the features of the worst one; without tokens there are none.
        """
        addresses = [str(self.detector.channels[column]) for column in level.columns.tolist()]
        view = level.settings.view
        seen, names = view.see([signal]), view.names(addresses)
        if isinstance(seen, Tokens):
            if not len(seen.values):
                return {}
            features = seen.values[int(level.classifier.each(seen.values).argmax())]
        else:
            features = seen[0]
        standard = (features - level.classifier.mean) / level.classifier.scale
        order = standard.abs().topk(min(_FEATURES_SHOWN, len(names))).indices.tolist()
        return {names[i]: (float(features[i]), float(standard[i])) for i in order}

    def _event(
        self,
        level: LevelDetector,
        signal: StepSignal,
        score: float,
        segment: Segment,
        step: int,
        text: str,
    ) -> FailureEvent:
        name = level.settings.level
        standing = self.standing(level, signal)
        spectrum = None if signal.windows is None else signal.windows[-1]
        return FailureEvent.from_state(
            {
                "id": str(uuid.uuid5(_EVENTS, f"{self.episode_id}:{step}:{name}")),
                "level": name,
                "kind": _KINDS[name],
                "step": step,
                "position": segment.start + len(segment.ids) - 1,
                "score": score,
                "threshold": level.settings.threshold or 0.0,
                "detector": self.detector.id,
                "evidence": Evidence(
                    channels=self.channels(level, signal, segment.start),
                    features={name: round(value, 4) for name, (value, _) in standing.items()},
                    pattern=classify_pattern(torch.cat([signal.history, signal.signal]), spectrum),
                    text=text.strip()[:200],
                ).model_dump(),
            }
        )


def align(segment: Segment) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Readings of the states that wrote the segment's tokens, and those tokens; None where none were read."""
    if segment.readings is None:
        return None
    positions = segment.readings.positions
    inside = (positions >= segment.start - 1) & (positions < segment.start + len(segment.ids) - 1)
    if not inside.any():
        return None
    index = positions[inside] + 1 - segment.start
    return (
        segment.readings.values[inside],
        torch.tensor(segment.ids)[index],
        _numbers(segment.logprobs)[index],
        _numbers(segment.entropies)[index],
    )


def _check_fit(manifest: DetectorManifest, engine: Any) -> None:
    """A detector belongs to the model, the vocabulary and the window that it was fitted with.

    Raises:
        DetectorMismatchError: one of these is another.
    """
    fit_one = f"fit one for it: nr-agent fit --model {getattr(engine, 'folder', None) or engine.name} --out DIR"
    if manifest.fingerprint != engine.fingerprint:
        raise DetectorMismatchError(
            f"this detector was fitted on {manifest.model} (fingerprint {manifest.fingerprint}), "
            f"the engine runs {engine.name} ({engine.fingerprint})",
            hint=fit_one,
        )
    own = tokenizer_hash(engine.codec.tokenizer)
    if manifest.tokenizer_hash != own:
        raise DetectorMismatchError(
            f"this detector was fitted on {manifest.model} with a tokenizer of another vocabulary "
            f"({manifest.tokenizer_hash[:16]}), the engine's is {own[:16]}",
            hint=f"load the model with the tokenizer that it had, or {fit_one}",
        )
    if manifest.window != WINDOW:
        raise DetectorMismatchError(
            f"this detector was fitted on spectra over {manifest.window} tokens, this library takes them over {WINDOW}",
            hint=fit_one,
        )


def _numbers(values: list[float | None]) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in values])


def _summarise(level: Level, values: Tensor, score: float) -> ReadingSummary:
    lowest, highest = values.aminmax()
    spread = values.std(0, correction=0).mean()
    mean, maximum, minimum, std = torch.stack([values.mean(), highest, lowest, spread]).tolist()
    return ReadingSummary(
        level=level, tokens=len(values), mean=mean, maximum=maximum, minimum=minimum, std=std, score=score
    )
