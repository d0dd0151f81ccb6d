"""A PostgreSQL server for a benchmark: as it comes, in a folder of its own, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEBIAN = Path("/usr/lib/postgresql")


@contextmanager
def postgres_server() -> Iterator[str | None]:
    """A server on a socket; gives its URL, or None where there is no server to start or no driver for it.

    Nothing is changed but where it listens: a commit waits for the disk.
    """
    programs = _find_programs()
    root = os.geteuid() == 0
    if programs is None or (root and not _has_user("postgres")):
        sys.stderr.write("there is no PostgreSQL server to start, or nobody to start it as\n")
        yield None
        return
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    folder = Path(tempfile.mkdtemp(prefix="nrpg"))
    try:
        if root:
            shutil.chown(folder, "postgres")
        folder.chmod(0o755)
        initdb = [*as_user, programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres"]
        _run([*initdb, "-E", "UTF8", "--no-locale"], folder)
        control = [*as_user, programs / "pg_ctl", "-D", folder / "data", "-w"]
        start = [*control, "-l", folder / "log", "-o", f"-k {folder} -c listen_addresses=''", "start"]
        _run(start, folder)
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            _run([*control, "-m", "immediate", "stop"], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(url: str, name: str) -> str:
    """Make an empty database beside the one of a URL, if there is none of that name; gives its URL."""
    import psycopg  # noqa: PLC0415 - only where there is a server
    from psycopg import sql  # noqa: PLC0415
    from sqlalchemy import make_url  # noqa: PLC0415

    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _run(command: list[str | Path], folder: Path) -> None:
    # Through a pipe it would wait until the server itself has ended.
    nowhere = subprocess.DEVNULL
    subprocess.run(command, check=True, stdout=nowhere, stderr=nowhere, cwd=folder)  # noqa: S603 - nobody else's words


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _find_programs() -> Path | None:
    try:
        import psycopg  # noqa: F401, PLC0415
    except ImportError:
        return None
    found = shutil.which("initdb")
    newest = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return Path(found).parent if found else newest[-1].parent if newest else None
