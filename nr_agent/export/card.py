"""The card that people and data-set hubs read."""

from __future__ import annotations

from nr_agent.export.configs import FOLDER, write_configs
from nr_agent.export.files import file_name
from nr_agent.export.formats import FORMATS, UNTRAINED
from nr_agent.export.manifest import TEMPLATE, Manifest


def write_card(manifest: Manifest, *, template: bool) -> str:
    """The data-set card: Markdown, with a head that makes `datasets.load_dataset(folder)` work as it is."""
    return "".join(
        (
            _head(manifest),
            f"# Reasoning episodes ({manifest.rows} rows)\n\n",
            f"Export `{manifest.export_id}` of nr-agent, format `{manifest.format}`: {FORMATS[manifest.format]}.\n\n",
            f"Mask `{manifest.mask}`: {manifest.mask_effect}.\n\n",
            f"{manifest.tokens} tokens, {manifest.trained_tokens} of them trained. Episodes: {manifest.episodes} "
            f"(outcome: {manifest.outcome}).\n",
            _choices(manifest),
            "\nModels:\n",
            *(f"- {one.name} ({one.fingerprint[:12]}): {one.rows} rows\n" for one in manifest.models),
            "\n",
            _training(manifest, template=template),
        )
    )


def _head(manifest: Manifest) -> str:
    # A log of Inspect is no table, and trajectories differ from row to row in what they hold.
    if manifest.format in ("inspect", "atif"):
        return "---\ntags:\n- reasoning\n- nr-agent\n---\n"
    files = "".join(
        f"  - split: {split}\n    path: {file_name(manifest.format, manifest.files_as, split)}\n"
        for split in manifest.splits
    )
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}tags:\n- reasoning\n- nr-agent\n---\n"


def _choices(manifest: Manifest) -> str:
    lines = [f"- {count} left out: {reason}\n" for reason, count in manifest.refused.items()]
    if manifest.duplicates:
        lines.append(f"- {manifest.duplicates} rows have the content of another one\n")
    if manifest.mix_clean is not None:
        lines.append(
            f"- {manifest.clean_rows} rows are of episodes without an intervention "
            f"(asked for: at most {manifest.mix_clean:.0%})\n"
        )
    if len(manifest.splits) > 1:
        counts = ", ".join(f"{split} {rows} rows" for split, rows in manifest.splits.items())
        lines.append(f"- split by problem: {counts}\n")
    lines += [
        f"- compared to {one.problems} problems of {one.name}: {one.overlapping} overlapped "
        f"({manifest.ngram} neighbouring words in common, or the same words)\n"
        for one in manifest.against
    ]
    return "".join(lines)


def _training(manifest: Manifest, *, template: bool) -> str:
    if manifest.format in UNTRAINED:
        how = {
            "stepwise": "`label` is the index of the first wrong step, -1 where none is known to be wrong.",
            "atif": "A trajectory a line; `lineage.jsonl` tells where each is from, line by line.",
            "inspect": "Look at it with `inspect view start --log-dir .`; "
            "`lineage.jsonl` tells where each sample is from.",
        }[manifest.format]
        return f"## Use\n\n{how}\n"
    longest = manifest.lengths.maximum if manifest.lengths else 0
    configs = list(write_configs(manifest, template=template))
    options = f"max_length={longest}" + (f', chat_template_path="{TEMPLATE}"' if template else "")
    name, kind = ("DPOConfig", "DPO") if manifest.format == "preference" else ("SFTConfig", "SFT")
    code = (
        "```python\n"
        "from datasets import load_dataset\n"
        f"from trl import {name}\n\n"
        f'dataset = load_dataset("{FOLDER}", split="train")\n'
        f"config = {name}({options})\n"
        "```\n"
    )
    return (
        "## Training\n\n"
        f"The longest row has {longest} tokens. A trainer that cuts earlier (TRL: 1024 by default) loses what comes "
        "last: the recoveries and the answers.\n\n"
        + (code if manifest.format != "axolotl" else "")
        + "\nReady to run, once the model (and, for TRL, the folder) is named in it: "
        + " and ".join(f"`{one}`" for one in configs)
        + (f". Or: `nr-agent train --data . --model MODEL --out OUT` ({kind}).\n" if kind == "SFT" else ".\n")
        + (
            f"\n`{TEMPLATE}` keeps the thoughts of an assistant's turn; the chat template of the model drops them.\n"
            if template
            else ""
        )
    )
