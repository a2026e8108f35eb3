"""The one thread that uses the database: it imports SQLAlchemy and reads while probes wait, and can hold up nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from reports.history.location import Location

if TYPE_CHECKING:
    from reports.history.store import Store

_Answer = TypeVar("_Answer")


class NoAnswer(Exception):
    """The history can't be used, or not in time; the text says why, in a line without a password."""


class Clerk:
    """Does what it is asked, one thing after another. A daemon: a database that hangs does not keep the process."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.notices: list[str] = []
        self._requests: SimpleQueue[tuple[Future[Any], Callable[[Store], Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, work: Callable[[Store], _Answer]) -> Future[_Answer]:
        """Have something done; :func:`answer` waits for it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="history", daemon=True)
            self._thread.start()
        future: Future[_Answer] = Future()
        self._requests.put((future, work))
        return future

    def dismiss(self) -> None:
        """No more requests."""
        self._requests.put(None)

    def _serve(self) -> None:
        store: Store | None = None
        while (request := self._requests.get()) is not None:
            future, work = request
            try:
                if store is None:
                    # Not at start-up: an ordinary run spends this time while its probes wait for the network.
                    from reports.history.store import Store

                    store = Store(self.location)
                    self.notices = store.notices
                future.set_result(work(store))
            except BaseException as error:  # noqa: BLE001  # whatever it is, it is told and ends no run
                future.set_exception(error)


def answer(future: Future[_Answer], deadline: float) -> _Answer:
    """What was asked for, if it comes by a time of the monotonic clock. Raises NoAnswer."""
    try:
        return future.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        raise NoAnswer("no answer in time") from None
    except Exception as error:
        from reports.history.store import HistoryError

        told = str(error) if isinstance(error, HistoryError) else f"{type(error).__name__}: {error}"
        raise NoAnswer(told) from error
