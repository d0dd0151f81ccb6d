"""Do the channels that tell of slips take part in them? The model without them, beside the model without random ones.

Arms on the same problems and seeds: intact; the channels of one level's MoN replaced by their means; as many random
channels of the same kinds and layers, several draws. If slips change no more without the MoN than without random
channels, the channels tell of slips and do not cause them.

python -m benchmarks.ablation [--model nano|FOLDER] [--detector FOLDER] [--level intra_step] [--channels 48] [--n 60]
    [--seed 1700000] [--draws 3] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from nr_agent.engine.protocol import Sampling
from nr_agent.evaluation.ablating import as_markdown, measure_ablation
from nr_agent.events import LEVELS
from nr_agent.models.registry import load_detector, load_engine
from nr_agent.neurons.channels import Channel
from nr_agent.tasks import DEVELOPMENT_SEEDS, draw, family_names


def main(arguments: list[str] | None = None) -> None:
    """Think in every arm; print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--detector", help="folder of a detector; the model's own by default")
    parser.add_argument("--level", choices=LEVELS, default="intra_step")
    parser.add_argument("--channels", type=int, help="only so many of the level's channels, the first most telling")
    parser.add_argument("--tasks", help="families, separated by commas; all by default")
    parser.add_argument("--n", type=int, default=60, help="problems a family")
    parser.add_argument("--seed", type=int, default=1_700_000)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    seeds = range(options.seed, options.seed + options.n)
    if not (seeds.start in DEVELOPMENT_SEEDS and seeds[-1] in DEVELOPMENT_SEEDS):
        parser.error(f"seeds are to lie between {DEVELOPMENT_SEEDS.start} and {DEVELOPMENT_SEEDS.stop - 1}")
    engine = load_engine(options.model)
    try:
        detector = load_detector(options.model, engine, folder=options.detector)
        group = next(one for one in detector.manifest.mon.groups if one.level == options.level)
        channels = [Channel.parse(address) for address in group.channels[: options.channels]]
        problems = [draw(family, number) for number in seeds for family in family_names(options.tasks)]
        sampling = Sampling(temperature=options.temperature)
        rows = measure_ablation(
            engine, channels, problems, sampling=sampling, seed=options.seed, draws=options.draws, log=print
        )
    finally:
        engine.shutdown()
    print(as_markdown(rows))
    if options.out is not None:
        about = {"model": engine.name, "fingerprint": engine.fingerprint, "detector": detector.id}
        about |= {"level": options.level, "channels": list(map(str, channels)), "temperature": options.temperature}
        options.out.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
