"""Rounds, each in a child forked from a single-threaded parent, of a small step and of one with 1.3 times its work.

Run as a script: `python round_worker.py ROUNDS`. Prints one JSON line a round.
"""

import dataclasses
import gc
import json
import os
import sys
import traceback

import numpy as np
import torch

from claimbench.meters import rounds
from claimbench.meters.timing import Settings

SETTINGS = Settings(sample_seconds=0.003, passes=5)


def one_round(seed: int) -> str:
    torch.set_num_threads(1)
    generator = np.random.default_rng(seed)
    array = generator.normal(size=(48, 48))
    tensor = torch.from_numpy(generator.normal(size=4096))

    def work(units: int) -> None:
        for _ in range(units):
            array @ array
            torch.tanh(tensor)

    timed = rounds(
        {"method": lambda: work(10), "slower": lambda: work(13)},
        method="method",
        seed=seed,
        settings=SETTINGS,
    )
    return json.dumps(dataclasses.asdict(timed))


def in_a_child(seed: int) -> None:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            print(one_round(seed), flush=True)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"round {seed} ended with status {status}")


if __name__ == "__main__":
    gc.freeze()  # the children need not go through what importing left
    for seed in range(int(sys.argv[1])):
        in_a_child(seed)
