"""Held-out error at equal time: steps on all planes across the readout beside steps on some, drawn at random.

One process, both sides with the planes shared among the processor's cores, at the defaults of `learn` but for a rate
that falls to zero over a side's own steps. The time of a step is measured first, the sides in turn; steps on some
planes then get as many as fit into a share of the time that all planes take.

    python benchmarks/traj_planes.py [--shape 64 72 64] [--seeds 3] [--steps 60] [--shares 6 1]
"""

import argparse
import math
import os
import time
from typing import Any

import jax
import numpy as np
from _harness import machine, versions, write_results

from acqdesign import optim
from acqdesign.base.sharding import device_mesh
from acqdesign.design import Design, Problem, learn, nrmse, squared_error
from acqdesign.design.driver import GRID_STEPS, judge
from acqdesign.encoding import Lines
from acqdesign.recon import CG
from acqdesign.scene import load_scene

ACCELERATION, NOISE, ROUNDS = 6, 0.01, 3


class Clock(optim.Callback):
    """Seconds of each step but the first two, which compile what is around it."""

    def begin(self, fit: Any) -> None:
        self.marks = list[float]()

    def after(self, fit: Any) -> None:
        jax.block_until_ready(fit.state.params)
        self.marks.append(time.perf_counter())

    def median(self) -> float:
        return float(np.median(np.diff(self.marks)[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 72, 64))
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--planes", type=int, nargs="+", default=(8, 4))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="on all planes")
    parser.add_argument("--shares", type=int, nargs="+", default=(6, 1), help="one over shares of the time of these")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", cores)
    images: dict[str, Any] = {"tissue_names": None, "coils": options.coils, "shape": options.shape}
    scene, held = (load_scene("brain", key=key, **images) for key in (None, jax.random.key(5)))
    mesh = device_mesh(f"planes={cores}", {"planes": math.gcd(options.shape[0], *options.planes)})
    rate = GRID_STEPS / max(options.shape[1:])

    def fit(planes: int | None, steps: int, seed: int) -> tuple[float, Problem, Design]:
        """Seconds a step, the problem, and the learned design."""
        lines = Lines.poisson(scene, acceleration=ACCELERATION, key=seed)
        problem = Problem(scene, lines, terms=squared_error(), noise=NOISE, reconstruction=CG(), planes_per_step=planes)
        optimizer = optim.make_optimizer("adam", rate, steps=steps, schedule="cosine")
        clock = Clock()
        design = learn(problem, steps, optimizer=optimizer, callbacks=[clock], key=jax.random.key(seed), mesh=mesh)[1]
        return clock.median(), problem, design

    def error(problem: Problem, design: Design) -> float:
        other = problem.judged_by(nrmse()).judged_on(held)
        return float(judge(other, design, jax.random.key(9), jax.numpy.int32(1))[0]["nrmse"])

    sides = (None, *options.planes)
    rounds = [[fit(planes, 8, 0)[0] for planes in sides] for _ in range(ROUNDS)]
    whole, *some = (float(np.median(times)) for times in zip(*rounds, strict=True))
    print("seconds a step", whole, some, flush=True)
    names = ["all planes", *(f"{planes} planes" for planes in options.planes)]
    found: dict[str, Any] = {"start": [], "all planes": []}
    for seed in range(options.seeds):
        _, problem, design = fit(None, options.steps, seed)
        found["start"].append(error(problem, problem.design))
        found["all planes"].append(error(problem, design))
        for planes, step in zip(options.planes, some, strict=True):
            for share in options.shares:
                _, problem, design = fit(planes, round(options.steps * whole / step / share), seed)
                found.setdefault(f"{planes} planes, time over {share}", []).append(error(problem, design))
        print({name: f"{errors[-1]:.5f}" for name, errors in found.items()}, flush=True)
    write_results(
        f"traj_planes_{'x'.join(map(str, options.shape))}",
        {
            "machine": machine(cores), "versions": versions(("jax", "optax")),
            "shape": options.shape, "coils": options.coils, "acceleration": ACCELERATION, "noise": NOISE,
            "steps_on_all_planes": options.steps,
            "seconds_a_step": dict(zip(names, (whole, *some), strict=True)),
            "nrmse_held_out": found, "median": {name: float(np.median(errors)) for name, errors in found.items()},
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
