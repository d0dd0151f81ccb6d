"""The files of rows: JSON lines, Parquet, and Inspect's log; the same rows make the same bytes."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from nr_agent.errors import ConfigurationError, MissingExtraError
from nr_agent.export.formats import Format
from nr_agent.store.cleaning import clean_json

Files = Literal["jsonl", "parquet"]
FILES: Final[tuple[Files, ...]] = ("jsonl", "parquet")

SAMPLES: Final = "samples/"
"""Folder of the samples in an Inspect log."""

_GROUP = 1000
"""Rows a row group of a Parquet file: fixed, or the bytes would depend on how much memory there was."""

_LINEAGE = {
    "nr_episode_id": "string",
    "nr_content_hash": "string",
    "nr_domain": "string",
    "nr_task": "string",
    "nr_outcome": "string",
    "nr_model": "string",
    "nr_fingerprint": "string",
    "nr_interventions": "int64",
    "nr_split": "string",
}


class RowFile(Protocol):
    """A file to which rows are written, one after another."""

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a row."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def default_files(format: Format) -> Files:
    """What rows of a format are kept in, unless something else is asked for."""
    return "parquet" if format == "pretokenized" else "jsonl"


def check_files(format: Format, files: str) -> Files:
    """See that rows of a format can be kept in such files.

    Raises:
        ConfigurationError: they cannot, or there is no such kind.
        MissingExtraError: Parquet without pyarrow.
    """
    kind = next((one for one in FILES if one == files), None)
    if kind is None:
        raise ConfigurationError(f"there are no files {files!r}", hint=f"choose from: {', '.join(FILES)}")
    if kind == "parquet":
        if format in ("atif", "inspect"):
            raise ConfigurationError(f"format {format!r} is JSON by its definition", hint="leave --files out")
        _arrow()
    return kind


def file_name(format: Format, files: Files, split: str) -> str:
    """Name of the file with a split's rows."""
    return f"{split}.eval" if format == "inspect" else f"{split}.{files}"


def open_rows(path: Path, format: Format, files: Files) -> RowFile:
    """A new file for rows of a format."""
    if format == "inspect":
        return InspectFile(path)
    return ParquetFile(path, format) if files == "parquet" else JsonLines(path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file.

    Raises:
        MissingExtraError: Parquet without pyarrow.
    """
    if path.suffix == ".parquet":
        _arrow()
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_GROUP):
                yield from batch.to_pylist()
    elif path.suffix == ".eval":
        with zipfile.ZipFile(path) as log:
            for name in log.namelist():
                if name.startswith(SAMPLES):
                    yield json.loads(log.read(name))
    else:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield json.loads(line)


class JsonLines:
    """A JSON object a line, in UTF-8."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a row."""
        self._file.write(to_line(values))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ParquetFile:
    """Columns of declared types: nothing is guessed from the first rows."""

    def __init__(self, path: Path, format: Format) -> None:
        pa = _arrow()
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

        self._schema = _schema(format)
        self._table = pa.Table
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a row, with others."""
        self._rows.append(values)
        if len(self._rows) == _GROUP:
            self._write()

    def close(self) -> None:
        """Write the rest and the footer."""
        if self._rows:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        table = self._table.from_pylist(self._rows, schema=self._schema)
        self._writer.write_table(table, row_group_size=_GROUP)
        self._rows = []


class InspectFile:
    """One evaluation log (`.eval`, version 2): a ZIP of its samples as they come, and of the head once they are known.

    Its times are fixed and so is how it is compressed, so that the same samples make the same bytes.
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w")
        self._summaries: list[dict[str, Any]] = []
        self._models: dict[str, None] = {}
        self._usage: dict[str, dict[str, int]] = {}
        self._values: list[str] = []
        self._times: list[str] = []
        self._hash = hashlib.sha256()

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a sample."""
        line = to_line(values)
        self._hash.update(line.encode())
        self._put(f"{SAMPLES}{values['id']}_epoch_1.json", line)
        names = ("id", "epoch", "input", "target", "metadata", "scores", "started_at", "completed_at", "total_time")
        summary = {name: values[name] for name in (*names, "uuid", "model_usage") if name in values}
        self._summaries.append(summary | {"completed": True, "message_count": len(values["messages"])})
        self._models[values["output"]["model"]] = None
        for model, counts in values["model_usage"].items():
            whole = self._usage.setdefault(model, dict.fromkeys(counts, 0))
            self._usage[model] = {name: whole[name] + count for name, count in counts.items()}
        self._values += [one["value"] for one in values.get("scores", {}).values()]
        self._times += [values[name] for name in ("started_at", "completed_at") if name in values]

    def close(self) -> None:
        """Write the head."""
        first, last = min(self._times, default=""), max(self._times, default="")
        name, models, count = self._hash.hexdigest()[:22], list(self._models), len(self._summaries)
        dataset = {"name": "nr_agent", "samples": count, "sample_ids": [one["id"] for one in self._summaries]}
        head = {
            "version": 2,
            "status": "success",
            "eval": {
                "eval_id": name,
                "run_id": name,
                "task": "nr_agent",
                "task_id": name,
                # Inspect wants a time; an export without one has no episodes that ended.
                "created": first or "1970-01-01T00:00:00+00:00",
                "dataset": dataset,
                "model": models[0] if len(models) == 1 else "several",
                "config": {},
            },
            "plan": {"name": "plan", "steps": []},
            "results": {"total_samples": count, "completed_samples": count, "scores": self._scores()},
            "stats": {"started_at": first, "completed_at": last, "model_usage": self._usage},
        }
        self._put("_journal/start.json", to_line({"version": 2, "eval": head["eval"], "plan": head["plan"]}))
        self._put("summaries.json", json.dumps(clean_json(self._summaries), ensure_ascii=False, allow_nan=False))
        self._put("header.json", to_line(head))
        self._zip.close()

    def _scores(self) -> list[dict[str, Any]]:
        if not self._values:
            return []
        right = sum(value == "C" for value in self._values) / len(self._values)
        metrics = {"accuracy": {"name": "accuracy", "value": right}}
        return [{"name": "correct", "scorer": "correct", "metrics": metrics}]

    def _put(self, name: str, text: str) -> None:
        entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        self._zip.writestr(entry, text.encode(), zipfile.ZIP_DEFLATED, compresslevel=6)


def to_line(values: Mapping[str, Any]) -> str:
    """A JSON object on a line of its own."""
    # JSON leaves these line separators alone, and some readers split lines at them.
    line = json.dumps(clean_json(dict(values)), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return line.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085") + "\n"


def _arrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="export") from error
    return pa


def _schema(format: Format) -> Any:
    pa = _arrow()
    text, number = pa.string(), pa.int32()
    turn = pa.struct([("role", text), ("content", text)])
    part = pa.struct([("type", text), ("text", text), ("train", pa.bool_())])
    columns: dict[Format, list[tuple[str, Any]]] = {
        "messages": [("messages", pa.list_(turn))],
        "axolotl": [("messages", pa.list_(pa.struct([("role", text), ("content", pa.list_(part))])))],
        "pretokenized": [
            ("input_ids", pa.list_(number)),
            ("attention_mask", pa.list_(pa.int8())),
            ("labels", pa.list_(number)),
        ],
        "preference": [("prompt", text), ("chosen", text), ("rejected", text)],
        "stepwise": [
            ("id", text),
            ("generator", text),
            ("problem", text),
            ("steps", pa.list_(text)),
            ("final_answer_correct", pa.bool_()),
            ("label", pa.int64()),
        ],
    }
    types = {"string": text, "int64": pa.int64()}
    beside = [] if format == "pretokenized" else [(name, types[kind]) for name, kind in _LINEAGE.items()]
    return pa.schema([*columns[format], *beside])
