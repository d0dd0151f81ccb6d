"""How few channels keep a detector's quality: the best 8, 16, 32, ... beside as many random ones.

Nothing but the channels' statistics over a step is seen, and problems that neither ranked nor trained are tested on.

python -m benchmarks.channels --traces FIT_FOLDER [--model nano|FOLDER] [--ranking mean_difference|logit_attribution]
    [--layers all|middle] [--kinds any] [--counts 8,16,32] [--draws 2] [--out FILE.json]

The traces are those that `nr-agent fit --out FIT_FOLDER` left; the model must be the one that thought them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from nr_agent.detection.ablation import COUNTS, ablate_channels, as_markdown
from nr_agent.detection.fit import FitSettings
from nr_agent.detection.labels import label_trace
from nr_agent.detection.rank import Choice
from nr_agent.detection.splits import split_of
from nr_agent.detection.trace_files import load_traces
from nr_agent.events import LEVELS
from nr_agent.models.registry import load_engine


def main(arguments: list[str] | None = None) -> None:
    """Rank, read, train at every size; print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True, help="folder of a fit, with traces.jsonl")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--ranking", choices=("mean_difference", "logit_attribution"), default="mean_difference")
    parser.add_argument("--layers", choices=("all", "middle"), default="all")
    parser.add_argument("--kinds", choices=("fitted", "any"), default="fitted", help="as fit has them, or any channel")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    parser.add_argument("--draws", type=int, default=2, help="random choices that are averaged")
    parser.add_argument("--limit", type=int, help="use so many traces only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    traces = load_traces(options.traces / "traces.jsonl")[: options.limit]
    settings = FitSettings()
    kinds = dict.fromkeys(LEVELS, "any") if options.kinds == "any" else settings.kinds
    engine = load_engine(options.model)
    try:
        rows = ablate_channels(
            engine.model,
            traces,
            [label_trace(traced) for traced in traces],
            [split_of(traced.problem.text, settings.seed) for traced in traces],
            Choice(settings.channels, kinds, options.ranking, options.layers, settings.seed),
            counts=[int(count) for count in options.counts.split(",")],
            draws=options.draws,
            log=print,
        )
    finally:
        engine.shutdown()
    print(as_markdown(rows))
    if options.out is not None:
        about = {"model": engine.name, "fingerprint": engine.fingerprint, "traces": len(traces)}
        about |= {"ranking": options.ranking, "layers": options.layers, "kinds": options.kinds, "draws": options.draws}
        options.out.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
