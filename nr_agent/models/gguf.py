"""A GGUF file as a checkpoint: converted once into a Hugging Face folder, which every later load takes."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nr_agent.errors import MissingExtraError, ModelError
from nr_agent.models.folders import make_once
from nr_agent.settings import load_settings

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and how much there is to do: 0 where that is not known."""

_MAGIC = b"GGUF"
_SHOWN = 3


def silent(stage: str, done: int, total: int) -> None:
    """A progress that nobody watches."""


def is_gguf(file: Path) -> bool:
    """Whether a file is a GGUF file, by its first bytes."""
    with file.open("rb") as opened:
        return opened.read(len(_MAGIC)) == _MAGIC


def converted(file: Path, progress: Progress = silent) -> Path:
    """The Hugging Face folder of a GGUF file, by its content; made when it is asked for first.

    Raises:
        ModelError: the file is broken, incomplete, or of a kind that transformers cannot read.
        MissingExtraError: it has to be converted, and the package `gguf` is not installed.
    """
    stat = file.stat()
    content = _hash(file.resolve(), stat.st_size, stat.st_mtime_ns)
    folder = load_settings().home.expanduser() / "converted" / content / file.stem
    if folder.is_dir():
        return folder
    need_reader()
    try:
        return make_once(folder, lambda work: write_checkpoint(file, work, progress))
    except OSError as error:
        raise ModelError(
            f"{file} cannot be converted: {error}",
            hint=f"make room in {folder.parents[1]}, or set NR_AGENT_HOME to a folder that can be written",
        ) from error


def need_reader() -> None:
    """Make sure that GGUF files can be read.

    Raises:
        MissingExtraError: the package `gguf` is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", extra="gguf")


def write_checkpoint(file: Path, folder: Path, progress: Progress = silent) -> None:
    """Write a GGUF file's model and tokenizer into an empty folder, in a dtype that holds every weight exactly.

    Raises:
        ModelError: the file is broken, incomplete, or of a kind that transformers cannot read.
        OSError: the folder cannot be written.
    """
    progress("reading", 0, 0)
    model, tokenizer, missing = _load(file, folder, progress)
    if missing:
        named = ", ".join(sorted(missing)[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise ModelError(
            f"{file} is incomplete: it lacks {len(missing)} of the model's weights: {named}",
            hint="a file in parts is joined first: llama-gguf-split --merge FIRST_PART WHOLE_FILE",
        )
    progress("writing", 0, 0)
    # The weights are plain numbers by now; transformers would refuse to save what it takes to be quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(_exact_dtype(model))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _load(file: Path, folder: Path, progress: Progress) -> tuple[Any, Any, set[str]]:
    """Model, tokenizer, and the names of the weights that the file has not."""
    import torch  # noqa: PLC0415 - slow to import
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - slow to import
    from transformers.utils import logging  # noqa: PLC0415 - slow to import

    logging.disable_progress_bar()
    # Out of an empty folder: what else lies beside the file (an adapter, a configuration) is none of its content.
    empty = folder / "empty"
    empty.mkdir()
    given: dict[str, Any] = {"gguf_file": str(file.resolve()), "local_files_only": True}
    try:
        with _watched(progress):
            tokenizer = AutoTokenizer.from_pretrained(empty, **given)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                empty,
                **given,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:
        # Readers of a broken file fail in any way: struct.error, IndexError, MemoryError, ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{file} cannot be read as GGUF: {reason}",
            hint="it may be truncated (get it again) or of a kind that transformers does not know "
            "(use the model's Hugging Face folder)",
        ) from error
    finally:
        shutil.rmtree(empty)
    model, told = loaded
    return model, tokenizer, {*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])}


def _exact_dtype(model: Any) -> Any:
    """The smallest dtype in which every weight stays what it is: a file's own where it is not quantised."""
    import torch  # noqa: PLC0415 - slow to import

    weights = list(model.parameters())
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(weight.to(dtype).float(), weight) for weight in weights):
            return dtype
    return torch.float32


@contextmanager
def _watched(progress: Progress) -> Iterator[None]:
    """Tell of every tensor instead of drawing the bar that transformers draws here whatever its settings say."""
    from transformers import modeling_gguf_pytorch_utils as loading  # noqa: PLC0415 - slow to import

    module: Any = loading
    bar = module.tqdm

    def tell(items: Any, **_: Any) -> Iterable[Any]:
        for number, item in enumerate(items, 1):
            yield item
            progress("unpacking", number, len(items))

    module.tqdm = tell
    try:
        yield
    finally:
        module.tqdm = bar


@functools.lru_cache(maxsize=64)
def _hash(file: Path, size: int, modified: int) -> str:
    """Of the content; size and time of change are there to tell a changed file from the one that was read."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:32]
