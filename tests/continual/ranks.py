"""Two ranks that stay: two processes that walk one stream after another together, so that no test
waits for imports.

Lightning finds them as it finds the processes of torchrun, by `LOCAL_RANK`. That it starts ranks
itself, and that a run under each launcher does, is for the tests that type `trainer=ddp`.
"""

import multiprocessing
import os
import socket
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.walks import walk

TWO_RANKS = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


class Ranks:
    """The pair; it starts with the first walk, and anew after one that failed."""

    def __init__(self) -> None:
        self.processes: list[multiprocessing.Process] = []
        self.pipes: list[Connection] = []

    def start(self) -> None:
        """Start both ranks on a free port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        fresh = multiprocessing.get_context("spawn")  # a fork would share the threads of torch
        for rank in range(2):
            here, there = fresh.Pipe()
            process = fresh.Process(target=serve, args=(rank, port, there), daemon=True)
            process.start()
            there.close()
            self.processes.append(process)
            self.pipes.append(here)

    def walk(self, output: Path, *overrides: str, seconds: float = 300) -> Path:
        """A run on both ranks; its folder.

        Raises:
            AssertionError: A rank failed or died, with what it said, or took too long.
        """
        if not self.processes:
            self.start()
        for pipe in self.pipes:
            pipe.send((output, (*overrides, *TWO_RANKS)))
        waiting = list(self.pipes)
        while waiting:
            ready = wait(waiting, seconds)
            said = [answer(pipe) for pipe in ready] or ["the ranks took too long"]
            if any(said):  # the other rank may wait for this one for ever
                self.stop()
                raise AssertionError("\n".join(filter(None, said)))
            waiting = [pipe for pipe in waiting if pipe not in ready]
        return next(output.glob("*/*/*/split*/seed*"))

    def stop(self) -> None:
        """End both ranks."""
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.pipes = [], []


def answer(pipe: Connection) -> str:
    """Nothing, or what went wrong in a rank."""
    try:
        return str(pipe.recv())
    except EOFError:
        return "a rank died"


def serve(rank: int, port: int, pipe: Connection) -> None:
    """Walk whatever comes through the pipe, and answer with nothing or with a traceback."""
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    while True:
        output, overrides = pipe.recv()
        try:
            walk(output, *overrides)
            pipe.send("")
        except BaseException:
            pipe.send(f"rank {rank}: {traceback.format_exc()}")
