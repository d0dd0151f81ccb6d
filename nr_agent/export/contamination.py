"""Decontamination: problems that overlap a benchmark stay out of training data.

The rule. Texts are compared by their words: runs of letters, digits and underscores of the text in Unicode's NFKC
form, in lower case. A problem overlaps a benchmark's when they have 13 neighbouring words in common, in the same
order, or, where one of the two has fewer than 13 words, when all their words are the same. The number can be chosen;
it is in the manifest, with the hash of every benchmark file.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nr_agent.episode import Record
from nr_agent.errors import ExportError
from nr_agent.export.files import read_rows

NGRAM = 13
_WORD = re.compile(r"\w+")
_FIELDS = ("problem", "question", "prompt", "input", "text", "messages")


class Benchmark(Record):
    """A benchmark file that problems were compared to.

    Attributes:
        name: of the file.
        sha256: of its bytes.
        problems: how many problems it holds.
        overlapping: how many episodes' problems overlap one of them.
    """

    name: str
    sha256: str
    problems: int
    overlapping: int = 0


class Decontamination:
    """Looks for problems in benchmark files.

    Args:
        paths: JSON, JSON lines or Parquet, with a field `problem`, `question`, `prompt`, `input`, `text` or
            `messages`; or plain text, a problem a line.
        ngram: how many neighbouring words make an overlap.

    Raises:
        ExportError: a file cannot be read, or has no problems in it.
    """

    def __init__(self, paths: Sequence[str | Path], *, ngram: int = NGRAM) -> None:
        self.ngram = ngram
        self._runs: dict[tuple[str, ...], int] = {}
        self._short: dict[tuple[str, ...], int] = {}
        self._files: list[Benchmark] = []
        self._found: list[int] = []
        for number, path in enumerate(paths):
            self._files.append(self._read(Path(path), number))
            self._found.append(0)

    @property
    def files(self) -> list[Benchmark]:
        """The files, with what was found so far."""
        pairs = zip(self._files, self._found, strict=True)
        return [file.model_copy(update={"overlapping": found}) for file, found in pairs]

    def overlaps(self, text: str) -> bool:
        """Whether a problem overlaps one of a benchmark; counts it."""
        words = _words(text)
        number = self._short.get(words)
        if number is None:
            number = next((self._runs[run] for run in _runs(words, self.ngram) if run in self._runs), None)
        if number is None:
            return False
        self._found[number] += 1
        return True

    def _read(self, path: Path, number: int) -> Benchmark:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            texts = list(_texts(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ExportError(
                f"the benchmark file {path} cannot be read: {reason}",
                hint="give JSON, JSON lines or Parquet with a field problem, or text with a problem a line",
            ) from error
        if not any(_words(text) for text in texts):
            raise ExportError(
                f"the benchmark file {path} has no problem in it", hint="see that it was downloaded whole"
            )
        for text in texts:
            words = _words(text)
            if 0 < len(words) < self.ngram:
                self._short.setdefault(words, number)
            for run in _runs(words, self.ngram):
                self._runs.setdefault(run, number)
        return Benchmark(name=path.name, sha256=digest, problems=len(texts))


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _runs(words: tuple[str, ...], size: int) -> Iterable[tuple[str, ...]]:
    return (words[at : at + size] for at in range(len(words) - size + 1))


def _texts(path: Path) -> Iterator[str]:
    if path.suffix == ".json":
        rows = json.loads(path.read_bytes())
        rows = rows.get("samples", [rows]) if isinstance(rows, dict) else rows if isinstance(rows, list) else [rows]
    elif path.suffix in (".jsonl", ".parquet"):
        rows = read_rows(path)
    else:
        rows = (line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip())
    for row in rows:
        yield _text_of(row)


def _text_of(row: Any) -> str:
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        raise ValueError(f"a row is no object, but {row!r:.40}")
    value = next((row[name] for name in _FIELDS if row.get(name)), None)
    if isinstance(value, list):
        value = "\n".join(str(turn["content"]) for turn in value if turn.get("role") == "user")
    if not isinstance(value, str):
        raise ValueError(f"a row has none of the fields {', '.join(_FIELDS)}")
    return value
