"""The one thread that writes: takes operations from a bounded queue and acknowledges them after the commit."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, NoReturn

from nr_agent.errors import StoreError
from nr_agent.store import operations, standing
from nr_agent.store.database import Database, is_transient, reason_of
from nr_agent.store.operations import Operation
from nr_agent.store.owner import new_owner
from nr_agent.store.spool import Spool

_log = logging.getLogger(__name__)

OnError = Literal["spool", "raise"]

_BATCH = 200
_LINGER = 0.25  # seconds that operations may wait for company
_IDLE = 1.0  # seconds without work after which the thread ends; the next operation starts another
_ATTEMPTS = 2
_PAUSE = 0.2  # seconds between two attempts


class Writer:
    """Writes operations in the order in which they are put.

    Args:
        database: to write to.
        spool: where operations go that it will not take; None keeps them in memory.
        on_error: whether a failure is spooled, or raised to the next caller.
        capacity: operations that may wait; `put` waits for room.
        heartbeat: seconds between two signs of life for the running episodes.
    """

    def __init__(
        self, database: Database, *, spool: Spool | None, on_error: OnError, capacity: int, heartbeat: float
    ) -> None:
        self.database = database
        self.spool = spool
        self.on_error = on_error
        self.capacity = capacity
        self.heartbeat = heartbeat
        self._full = min(_BATCH, capacity)
        self.reset()

    def reset(self) -> None:
        """Begin empty, as a forked child must: what its parent has queued, its parent writes."""
        self._pid = os.getpid()
        self.owner = new_owner()
        self._state = threading.Condition(threading.RLock())
        self._queue: deque[Operation] = deque()
        self._taken = 0
        self._done = 0
        self._waiting = 0
        self._closed = False
        self._hurried = False
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._awaited: dict[int, Exception | None] = {}
        self._aside: dict[str, list[Operation]] = {}
        self._unsaved: list[Operation] = []
        self._running: set[str] = set()
        self._began: set[str] = set()
        self._runs: set[str] = set()
        self._last_heartbeat = time.monotonic()

    def put(
        self,
        batch: Sequence[Operation],
        *,
        wait: bool = False,
        soon: bool = False,
        queued: Callable[[], object] | None = None,
    ) -> None:
        """Queue operations.

        Args:
            batch: written in this order, with nothing in between.
            wait: return only after the commit.
            soon: do not let them wait for company.
            queued: called once they are queued, before anything else is.

        Raises:
            StoreError: the store is closed, or (`on_error="raise"`) something could not be written.
        """
        self._renew_after_fork()
        with self._state:
            self._raise_error()
            while not self._closed and self._queue and len(self._queue) + len(batch) > self.capacity:
                self._state.wait()
            if self._closed:
                raise StoreError(f"the episode store {self.database.label} is closed", hint="open it again")
            idle = not self._queue
            self._queue.extend(batch)
            self._taken += len(batch)
            if queued is not None:
                queued()
            self._ensure_thread()
            # Whoever writes lets operations wait for company, and need not be told of all of them.
            self._hurried |= soon and bool(self._queue)
            if idle or soon or len(self._queue) >= self._full:
                self._state.notify_all()
            if wait:
                self._await_commit(batch)

    def flush(self) -> None:
        """Wait until everything that was queued so far is committed, or was set aside.

        Raises:
            StoreError: (`on_error="raise"`) something could not be written.
        """
        self._renew_after_fork()
        with self._state:
            self._wait_until_done()
            self._raise_error()

    def aside(self, episode_id: str) -> list[Operation]:
        """Operations of an episode that the database has not taken, in order."""
        with self._state:
            return list(self._aside.get(episode_id, ()))

    def began(self, episode_id: str) -> bool:
        """Whether the episode runs, was new when it was begun here, and all that was put of it is well."""
        return self._pid == os.getpid() and self._error is None and episode_id in self._began

    def let_go(self, episode_id: str) -> None:
        """An episode is not this process's any more: it has ended, or somebody else goes on with it."""
        self._running.discard(episode_id)
        self._began.discard(episode_id)

    @property
    def episodes_aside(self) -> list[str]:
        """Episodes with operations that the database has not taken."""
        with self._state:
            return list(self._aside)

    def close(self) -> None:
        """Write what is queued, end the thread, and close the database.

        Raises:
            StoreError: records could be written neither to the database nor to the spool.
        """
        self._renew_after_fork()
        try:
            if threading.current_thread() is not self._thread:
                self.flush()
        finally:
            with self._state:
                self._closed = True
                self._state.notify_all()
                thread = self._thread
            if thread is not None and thread is not threading.current_thread():
                thread.join()
            self.database.dispose()
        if self._unsaved and not self.database.in_memory:
            self._save_aside([])
            if self._unsaved:
                raise StoreError(f"{len(self._unsaved)} records could not be written anywhere", hint="see the log")

    def _await_commit(self, batch: Sequence[Operation]) -> None:
        """Wait for a batch's commit, and raise what became of this batch, not of another one."""
        self._awaited |= dict.fromkeys((operation.ordinal for operation in batch), None)
        self._wait_until_done()
        errors = [self._awaited.pop(operation.ordinal) for operation in batch]
        for error in errors:
            if error is not None:
                self._error = None if self._error is error else self._error  # it is told once
                self._raise(error)
        self._raise_error()

    def _wait_until_done(self) -> None:
        ticket = self._taken
        self._waiting += 1
        try:
            while self._done < ticket:
                self._ensure_thread()
                self._state.notify_all()
                self._state.wait()
        finally:
            self._waiting -= 1

    def _run(self) -> None:
        while True:
            with self._state:
                if not self._await_work():
                    self._thread = None
                    self._state.notify_all()
                    return
                batch = [self._queue[index] for index in range(min(_BATCH, len(self._queue)))]
                self._hurried = self._hurried and len(batch) < len(self._queue)
            try:
                self._commit(batch)
            except Exception as error:  # whatever it was, callers must not wait for ever
                _log.exception("the episode store's writer met an error that it does not know")
                self._blame(batch, error)
            self._acknowledge(batch)

    def _await_work(self) -> bool:
        """Wait for a batch; False when the thread is to end."""
        deadline = time.monotonic() + _LINGER
        idle_since = time.monotonic()
        while True:
            now = time.monotonic()
            if self._queue:
                hurried = self._hurried or self._waiting or self._closed or len(self._queue) >= self._full
                if hurried or now >= deadline:
                    return True
                self._state.wait(deadline - now)
                continue
            if self._closed:
                return False
            if self._running and not self.database.in_memory:
                if now - self._last_heartbeat >= self.heartbeat:
                    return True
                self._state.wait(self.heartbeat)
            elif now - idle_since >= _IDLE:
                return False
            else:
                self._state.wait(_IDLE)
            deadline = time.monotonic() + _LINGER

    def _commit(self, batch: list[Operation]) -> None:
        """Write a batch, or see that it is kept elsewhere."""
        direct = [operation for operation in batch if operation.episode_id not in self._aside]
        late = [operation for operation in batch if operation.episode_id in self._aside]
        if late:
            self._fail(late, None)
        error = self._try(direct)
        if error is None:
            return
        if not is_transient(error) and len(direct) > 1:
            # One of them is at fault, and the others shall not suffer for it.
            for operation in direct:
                self._commit([operation])
            return
        self._fail(direct, error)

    def _try(self, batch: list[Operation]) -> Exception | None:
        for attempt in range(_ATTEMPTS):
            try:
                self._write(batch)
                return None
            except Exception as caught:  # drivers raise errors of their own besides SQLAlchemy's
                error = caught
            if not is_transient(error) or self._closed:
                break
            if attempt < _ATTEMPTS - 1:
                time.sleep(_PAUSE)
        return error

    def _write(self, batch: list[Operation]) -> None:
        now_due = time.monotonic() - self._last_heartbeat >= self.heartbeat
        begun = {one.episode_id: one.values["status"] for one in batch if one.kind == "begin"}
        adding = {one.episode_id for one in batch if one.kind not in ("begin", "finish")}.difference(begun)
        now = datetime.now(UTC)
        lost: list[str] = []
        with self.database.write() as connection:
            if now_due:
                lost = standing.keep_alive(connection, sorted(self._running), owner=self.owner, now=now)
            # Those that are known to run here need no sign of life before it is time for the next one.
            going_on = sorted(adding - self._running.difference(lost))
            standing.touch(connection, going_on, owner=self.owner, now=now)
            new, again = operations.apply_all(connection, map(self._without_run, batch))
        if now_due:
            self._last_heartbeat = time.monotonic()
        for episode_id in lost:
            self.let_go(episode_id)
        # What is begun again may hold more than is known here.
        self._began |= new
        self._began -= again
        self._runs |= {operation.values["run"]["id"] for operation in batch if operation.values.get("run")}
        for operation in batch:
            if operation.kind in ("begin", "finish") and operation.values["status"] != "running":
                self.let_go(operation.episode_id)
            elif begun.get(operation.episode_id, "running") == "running":
                self._running.add(operation.episode_id)

    def _without_run(self, operation: Operation) -> Operation:
        """A beginning that names its run only, if the run has been written."""
        run = operation.values.get("run") if operation.kind == "begin" else None
        if run is None or run["id"] not in self._runs:
            return operation
        return operation.changed(run=None, run_id=run["id"])

    def _fail(self, batch: list[Operation], error: Exception | None) -> None:
        if self.on_error == "raise":
            self._blame(batch, error)
            return
        if error is not None and batch:
            _log.error(
                "the episode store %s does not take %d records (%s); they are kept aside",
                self.database.label,
                len(batch),
                reason_of(error),
            )
        with self._state:
            for operation in batch:
                self._aside.setdefault(operation.episode_id, []).append(operation)
        self._save_aside(batch)

    def _blame(self, batch: list[Operation], error: Exception | None) -> None:
        """Give an error to whoever waits for the batch, and else to the next caller."""
        with self._state:
            for operation in batch:
                self._began.discard(operation.episode_id)
                if operation.ordinal in self._awaited:
                    self._awaited[operation.ordinal] = error
                else:
                    self._error = error

    def _save_aside(self, batch: list[Operation]) -> None:
        self._unsaved += batch
        if self.spool is None:
            return
        try:
            self.spool.append(self._unsaved)
            self._unsaved = []
        except OSError as error:
            _log.error("%s cannot be written (%s); records are in memory only", self.spool.path, error)

    def _acknowledge(self, batch: list[Operation]) -> None:
        with self._state:
            for _ in batch:
                self._queue.popleft()
            self._done += len(batch)
            self._state.notify_all()

    def _raise_error(self) -> None:
        if self._error is None:
            return
        error, self._error = self._error, None
        self._raise(error)

    def _raise(self, error: Exception) -> NoReturn:
        raise error if isinstance(error, StoreError) else self.database.unusable("written", error) from error

    def _ensure_thread(self) -> None:
        if self._queue and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="nr-agent-store", daemon=True)
            self._thread.start()

    def _renew_after_fork(self) -> None:
        if self._pid != os.getpid():
            self.reset()
