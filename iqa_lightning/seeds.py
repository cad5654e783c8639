"""Where the random numbers of a run come from: one function of what they are drawn for.

Neither the number of a task nor the epoch of the whole walk has a part in it. So a task draws the
same wherever it stands in the stream and whatever comes after it: an order re-indexed from another
equals the run of that order, and a run that is extended equals the longer one.
"""

import hashlib
import json

SCHEME = 2
"""Goes up when the same seed gives other numbers; runs of two schemes cannot be joined. 1 were the
number of the task and the epoch of the walk."""


def seed_of(
    seed: int, purpose: str, task: str = "", phase: str = "", epoch: int = 0, *more: int | str
) -> int:
    """A seed of 63 bits, which NumPy, PyTorch and Python take alike.

    Args:
        seed: of the run.
        purpose: what is drawn, so that two draws in one epoch share nothing.
        task: name of the task, empty outside of any.
        phase: name of the phase, empty where the draw holds for the whole task.
        epoch: of the phase, from 0.
        more: what else tells draws apart: a rank, an image, an earlier task.
    """
    words = json.dumps([seed, purpose, task, phase, epoch, *more])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1
