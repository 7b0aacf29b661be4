"""Held-out error over time: steps on all planes across the readout beside steps on some, drawn at random.

One process, the sides in turn for each seed, both with the planes shared among the processor's cores; time is that of
the steps, without compiling and judging.

    python benchmarks/traj_planes.py [--shape 64 72 64] [--seeds 3] [--minutes 1]
"""

import argparse
import math
import os
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _harness import machine, versions, write_results

from acqdesign import optim
from acqdesign.base.sharding import device_mesh
from acqdesign.design import Design, Problem, learn, nrmse, squared_error
from acqdesign.design.driver import judge
from acqdesign.encoding import Lines
from acqdesign.recon import CG
from acqdesign.scene import load_scene

ACCELERATION, NOISE, LOOKS = 6, 0.01, 8


class Watch(optim.Callback):
    """Looks at the held-out error at some times, on a clock that stands still meanwhile, and stops at the last one."""

    def __init__(self, other: Problem, rest: Design, times: np.ndarray):
        self.other, self.rest, self.times = other, rest, list(times)
        self.seconds, self.found, self.mark = 0.0, list[list[float]](), 0.0

    def _look(self, fit: Any) -> None:
        design = eqx.combine(jax.tree.map(jnp.array, fit.state.params), self.rest)
        error = judge(self.other, design, jax.random.key(9), jnp.int32(1))[0]["nrmse"]
        self.found.append([fit.done, self.seconds, float(error)])

    def after(self, fit: Any) -> None:
        now = time.perf_counter()
        if fit.done > 1:  # the first one compiles what is around the step
            self.seconds += now - self.mark
        if fit.done == 1 or self.seconds >= self.times[0]:
            self._look(fit)
            while self.times and self.times[0] <= self.seconds:
                self.times.pop(0)
            fit.stop = "" if self.times else "time"
        self.mark = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 72, 64))
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--planes", type=int, nargs="+", default=(8, 4))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1.0, help="time of the steps on all planes, a seed")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", cores)
    images: dict[str, Any] = {"tissue_names": None, "coils": options.coils, "shape": options.shape}
    scene, held = (load_scene("brain", key=key, **images) for key in (None, jax.random.key(5)))
    curves: dict[str, list[Any]] = {}
    mesh = device_mesh(f"planes={cores}", {"planes": math.gcd(options.shape[0], *options.planes)})
    for seed in range(options.seeds):
        lines = Lines.poisson(scene, acceleration=ACCELERATION, key=seed)
        for planes in (None, *options.planes):
            problem = Problem(
                scene, lines, terms=squared_error(), noise=NOISE, reconstruction=CG(), planes_per_step=planes
            )
            times = options.minutes * 60 * np.geomspace(0.05, 1, LOOKS)
            watch = Watch(problem.judged_by(nrmse()).judged_on(held), problem.split()[1], times)
            optimizer = optim.make_optimizer("adam", 1e-2, steps=10**6)
            learn(problem, 10**6, optimizer=optimizer, callbacks=[watch], key=jax.random.key(seed), mesh=mesh)
            curves.setdefault("all planes" if planes is None else f"{planes} planes", []).append(watch.found)
            print(seed, planes, watch.found, flush=True)
    equal = {}
    for name, runs in curves.items():
        pairs = [
            (_time_to(run, max(run[-1][2], whole[-1][2])), _time_to(whole, max(run[-1][2], whole[-1][2])))
            for run, whole in zip(runs, curves["all planes"], strict=True)
        ]
        ours, theirs = (float(np.median(side)) for side in zip(*pairs, strict=True))
        equal[name] = {"seconds": ours, "seconds_all": theirs, "ratio": ours / theirs}
    size = "x".join(map(str, options.shape))
    write_results(
        f"traj_planes_{size}",
        {
            "machine": machine(cores), "versions": versions(("jax", "optax")),
            "shape": options.shape, "coils": options.coils,
            "acceleration": ACCELERATION, "noise": NOISE, "columns": ["step", "seconds", "nrmse_held_out"],
            "curves": curves, "time_to_equal_error": equal,
            "final_nrmse_held_out": {name: [run[-1][2] for run in runs] for name, runs in curves.items()},
        },
    )  # fmt: skip


def _time_to(curve: list[list[float]], error: float) -> float:
    """When a curve first reaches an error, between its points as along straight lines [s]."""
    _, seconds, errors = np.array(curve).T
    falling = np.minimum.accumulate(errors)
    return float(np.interp(-error, -falling, seconds))


if __name__ == "__main__":
    main()
