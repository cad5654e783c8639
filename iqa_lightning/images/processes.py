"""Work shared out among processes, any of which may be killed at any time.

Not by `concurrent.futures`: where a process dies while others start, its pool of Python 3.11 waits
for ever, since what a process is started with is written into a pipe that this process, too, holds
open for reading. Here a process is started with almost nothing, says that it is ready, and is then
sent its work; a pipe whose other end has gone says so.
"""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Result = TypeVar("Result")


PATIENCE = 5.0
"""Seconds that a process has to end when it is told to."""


class ProcessGoneError(RuntimeError):
    """A process ended before its work."""


def in_processes(
    work: Callable[[int], Result], count: int, processes: int
) -> Generator[tuple[int, Result], None, None]:
    """`i, work(i)` for each i below `count`, in the order of their end.

    The processes are spawned and not forked, since this one may have threads and a GPU. They end
    with this one, however it ends.

    Args:
        work: what is done; it travels to the processes.
        count: how often.
        processes: how many do it.

    Raises:
        ProcessGoneError: one was killed, or could not start.
        Exception: what `work` raised.
    """
    started: dict[Connection, BaseProcess] = {}
    left = {k: len(range(k, count, processes)) for k in range(processes)}
    try:
        for k in range(processes):
            started.update([start(k)])
        share = dict(zip(started, left, strict=True))
        while any(left.values()):
            for pipe in wait([pipe for pipe in started if left[share[pipe]]]):
                assert isinstance(pipe, Connection)
                try:
                    kind, content = pipe.recv()
                    if kind == "ready":
                        pipe.send((work, range(share[pipe], count, processes)))
                except (EOFError, OSError) as error:
                    raise ProcessGoneError(f"process {started[pipe].pid} has gone") from error
                if kind == "failed":
                    raise content
                if kind == "done":
                    left[share[pipe]] -= 1
                    yield content
    finally:
        for pipe, process in started.items():
            pipe.close()
            end(process)


def start(k: int) -> tuple[Connection, BaseProcess]:
    """A process and the pipe to it."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs,), name=f"decoder {k}", daemon=True)
    with deaf():
        process.start()
    theirs.close()  # so that its end shows
    return ours, process


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that start in here do not hear Ctrl-C, which reaches the whole group: the first
    process ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(pipe: Connection) -> None:
    """Work for the process at the other end of a pipe, until there is no more to do or nobody
    listens.
    """
    try:
        pipe.send(("ready", None))
        work, share = pipe.recv()
        for i in share:
            pipe.send(attempt(work, i))
    except (EOFError, OSError):
        return


def attempt(work: Callable[[int], Any], i: int) -> tuple[str, Any]:
    """What became of one piece of work."""
    try:
        return "done", (i, work(i))
    except Exception as error:  # it is raised at the other end
        return "failed", error


def end(process: BaseProcess) -> None:
    """End a process, gently if it lets."""
    process.terminate()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join(PATIENCE)
