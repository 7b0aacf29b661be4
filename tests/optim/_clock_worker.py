"""Two fits in one of two processes, which saves by its own clock: one runs to its end, one to a NaN; prints JSON.

    python _clock_worker.py FOLDER MINUTES

The variables COORDINATOR and PROCESS say where and which of two this is.
"""

import json
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax.experimental import multihost_utils

from acqdesign.base.sharding import device_mesh
from acqdesign.optim import Callback, Checkpoints, NonFiniteError, fit
from acqdesign.optim.checkpoint import checkpoint_steps


class Counts(Callback):
    """How many steps it saw."""

    steps = 0

    def after(self, fit):
        self.steps += 1


def learn(rate, folder, minutes, *callbacks):
    """Five steps on a logarithm, of which a rate of 2 leaves the domain."""
    return fit(
        lambda x, key: (jnp.log(x).sum(), {}),
        jnp.ones(2, jnp.float32),
        optimizer=optax.sgd(rate),
        steps=5,
        key=jax.random.key(0),
        log_every=100,
        callbacks=[*callbacks, Checkpoints(folder, every=100, minutes=minutes)],
        mesh=device_mesh("anatomies=2", {"anatomies": 2}),
    )


def main(folder, minutes):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(os.environ["COORDINATOR"], 2, int(os.environ["PROCESS"]))
    learn(0.01, Path(folder) / "whole", minutes)
    multihost_utils.sync_global_devices("saved")
    saved = [int(stem[5:]) for stem in checkpoint_steps(Path(folder) / "whole")]
    counts = Counts()
    try:
        learn(2.0, Path(folder) / "broken", minutes, counts)
    except NonFiniteError:
        print(json.dumps({"saved": saved, "steps until the NaN": counts.steps}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
