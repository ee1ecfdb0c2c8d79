"""Ctrl-C and SIGTERM while the event loop runs: obeyed between two of its steps, never in the middle of one.

(asyncio's own handler cancels at once, wherever that is: a connection that has just been made, say, then ends in a traceback.)
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do it to its end. For a guest it has a thread of its own, and the notebook's interrupt is Ctrl-C all the same."""
    if not _guest.get():
        return asyncio.run(work)
    handlers: list[Callable[[], object]] = []

    async def beside() -> T:
        _handlers.set(handlers)
        with ending_at_once():
            return await work

    with _raising(), ThreadPoolExecutor(1) as thread:
        done = thread.submit(copy_context().run, asyncio.run, beside())
        while True:
            try:
                return done.result()
            except KeyboardInterrupt:
                if done.done():
                    raise
                if handlers:
                    handlers[-1]()


@contextmanager
def _raising() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt here, whatever it means to a loop that waits for us meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def as_guest() -> Iterator[None]:
    """In a process that is somebody else's: a loop may be running in it already, as in a notebook, its signals are its own, and
    nothing ends it."""
    token = _guest.set(True)
    try:
        yield
    finally:
        _guest.reset(token)


_guest: ContextVar[bool] = ContextVar("guest", default=False)
# Where no signal comes, since it is not the main thread: what to do about Ctrl-C, the latest before the others.
_handlers: ContextVar[list[Callable[[], object]] | None] = ContextVar("handlers", default=None)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """What is awaited in here is cancelled by a signal. Raises KeyboardInterrupt then."""
    task = asyncio.current_task()
    assert task is not None
    told = False

    def on_signal() -> None:
        nonlocal told
        told = True
        task.cancel()

    with _handled(on_signal):
        try:
            yield
        except asyncio.CancelledError:
            if told:
                raise KeyboardInterrupt from None
            raise


@contextmanager
def ending_gently(say: Callable[[str], None], leave: Callable[[], None]) -> Iterator[asyncio.Event]:
    """An event that the first signal sets; the second ends the process, at once, after `leave`. (In a thread of its own, where
    the process is somebody else's, the second ends what is awaited.)"""
    stop = asyncio.Event()
    beside = _handlers.get()

    def on_signal() -> None:
        if stop.is_set() and beside is not None:
            beside[0]()
            return
        if stop.is_set():
            leave()
            os._exit(130)
        stop.set()
        say("Stopping; waiting a moment for the replies in flight. Once more stops at once.")

    with _handled(on_signal):
        yield stop


@contextmanager
def _handled(on_signal: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    if (beside := _handlers.get()) is not None:
        beside.append(lambda: loop.call_soon_threadsafe(on_signal))
        try:
            yield
        finally:
            beside.pop()
        return
    handled: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not in every thread, and not on Windows: there Ctrl-C stays a KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, on_signal)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
            # Not asyncio's own, which only asks the task to end: what comes now waits for nothing.
            signal.signal(number, signal.default_int_handler)
