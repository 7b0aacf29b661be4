"""What learning lines and flips together is worth: joint designs beside those of lines alone and flips alone.

Every design gets the same starts, steps, noise and reconstruction, those of `acqdesign.learn_joint`, and learning
rates tuned for itself, setting by setting, by a grid on seeds that are not used for the result. Judged on what was
learned on, and on a head, tissues and noise that were not. The settings:

    plane    the command's own: one plane of 48 x 48, 768 lines, 96 echoes of 5 ms, RMS flip 45 degrees, noise 0.06
    volume   48 x 48 x 32 with 4 coils and 1152 lines, the rest as in the plane: rates are tuned learning on every 4th
             plane across the fully sampled readout, along which planes are problems of their own
    fewer    the volume with the plane's 768 lines
    ordered  the plane from a centre-out ordering
    power    the plane without a limit on power, from flips of 180 degrees, which leaves flips little to gain

    python benchmarks/joint_compare.py tune [--setting plane]       # learning rates: results/joint_tuning_plane.json
    python benchmarks/joint_compare.py compare [--setting plane]    # the comparison: results/joint_compare_plane.json
"""

import argparse
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _harness import RESULTS, machine, write_results

from acqdesign.commands.joint_options import JointOptions
from acqdesign.design.joint_objective import JointObjective
from acqdesign.encoding import StraightLineEncoding
from acqdesign.learn_joint import Problem, build
from acqdesign.optim.step import within
from acqdesign.scene import TissueClasses

STEPS = 150
# Rates by entry of the parameters [cycles/voxel, rad].
GRIDS: dict[str, tuple[float, ...]] = {
    "points": (2e-3, 4e-3, 8e-3, 1.6e-2),
    "flips": (3e-2, 6e-2, 1.2e-1, 2.4e-1),
}
VOLUME: dict[str, Any] = {
    "options": {"scene": {"shape": (48, 48, 32), "coils": 4}},
    "tuned_on_every": 4,
    "grids": {"points": (8e-3, 1.6e-2, 2.4e-2), "flips": (6e-2, 1.2e-1, 1.8e-1)},
    "tuning_seeds": (100,),
    "seeds": (0, 1),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plane": {"options": {}},
    "volume": VOLUME | {"options": VOLUME["options"] | {"line": {"lines": 1152}}},
    "fewer": VOLUME,
    "ordered": {
        "options": {"train": {"ordering": "centre-out"}},
        "grids": {"points": (2e-3, 4e-3, 8e-3), "flips": (6e-2, 1.2e-1, 2.4e-1)},
        "tuning_seeds": (100,),
        "seeds": (0, 1),
    },
    "power": {
        "options": {"train": {"rms_flip_deg": 180.0}},
        "grids": {"points": (2e-3, 4e-3, 8e-3), "flips": (7.5e-3, 1.5e-2, 3e-2, 6e-2)},
        "tuning_seeds": (100,),
        "seeds": (0, 1),
    },
}
TUNING_SEEDS, SEEDS = (100, 101, 102), (0, 1, 2, 3, 4)


def options_of(setting: dict[str, Any]) -> JointOptions:
    """The command's options, with a setting's changes."""
    options = JointOptions()
    groups = {g: dataclasses.replace(getattr(options, g), **v) for g, v in setting["options"].items()}
    return dataclasses.replace(options, **groups)


def thinned(objective: JointObjective, every: int) -> JointObjective:
    """The same objective on every n-th plane across the readout, which is fully sampled."""
    lines, scene = objective.lines, objective.scene
    smaps = None if lines.smaps is None else lines.smaps[:, ::every]
    maps = objective.maps[:, :, ::every]
    shape = (maps.shape[2], *lines.shape[1:])
    fewer = StraightLineEncoding(lines.points, shape, shape[0], smaps=smaps, backend=lines.backend)
    anatomies = [TissueClasses(maps[:, a], scene.t1, scene.t2, scene.b1) for a in range(maps.shape[1])]
    return JointObjective(fewer, objective.echo, anatomies, objective.settings)


def learner(project: Callable[[Any], Any]) -> Callable[..., Any]:
    """Adam with a cosine schedule as the command runs it, the learning rates being arguments: compiled once."""
    adam = optax.scale_by_adam()

    @eqx.filter_jit
    def learn(objective: JointObjective, start: Any, key: Any, rates: Any) -> Any:
        def step(carry: Any, n: Any) -> Any:
            params, state = carry
            gradient = jax.grad(objective, has_aux=True)(params, jax.random.fold_in(key, n))[0]
            gradient = within(lambda moved, _: project(moved), params, gradient)
            update, state = adam.update(gradient, state)
            factor = 0.5 * (1 + jnp.cos(jnp.pi * n / STEPS))
            moved = jax.tree.map(lambda p, u, r: p - r * factor * u, params, update, rates)
            return (project(moved), state), None

        start = project(start)
        return jax.lax.scan(step, (start, adam.init(start)), jnp.arange(STEPS))[0][0]

    return learn


def rates_of(design: str, points: float, flips: float) -> dict[str, Any]:
    """Learning rates, zero for what a design holds."""
    return {
        "points": jnp.float32(points if design in ("lines", "joint") else 0),
        "flips": jnp.float32(flips if design in ("flips", "joint") else 0),
    }


@eqx.filter_jit
def nrmse(objective: JointObjective, params: Any, keys: Any) -> Any:
    """Error over realisations of noise, `(keys,)`."""
    images = jax.lax.map(lambda key: objective.reconstruct(params, key), keys)
    target = objective.target()
    axes = (-3, -2, -1)
    error = jnp.sum(jnp.abs(images - target) ** 2, axes) / jnp.sum(target**2, axes)
    return jnp.mean(jnp.sqrt(error), axis=1)


class Setting:
    """A setting's problems by seed and what they share."""

    def __init__(self, name: str) -> None:
        self.setting = SETTINGS[name]
        self.options = options_of(self.setting)
        self.grids = self.setting.get("grids", GRIDS)
        self.every = self.setting.get("tuned_on_every", 1)
        self.learn: Callable[..., Any] | None = None
        # Realisations of noise: a plane has fewer voxels to average over.
        self.judged = 16 if self.options.scene.shape[0] == 1 else 4

    def problem(self, seed: int) -> Problem:
        return build(self.options, seed)

    def run(self, problem: Problem, objective: JointObjective, seed: int, rates: Any) -> Any:
        if self.learn is None:
            self.learn = learner(problem.project)
        return self.learn(objective, problem.start, jax.random.key(seed), rates)

    def scores(self, problem: Problem, params: Any, seed: int) -> dict[str, float]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), self.judged)
        found = {
            "nrmse": float(nrmse(problem.objective, params, keys).mean()),
            "nrmse_held_out": float(nrmse(problem.held_out, params, keys).mean()),
        }
        return found | {"gap": found["nrmse_held_out"] - found["nrmse"]}


def tune(name: str, seeds: tuple[int, ...]) -> None:
    """The grid of learning rates, judged by the error on the whole scene."""
    setting = Setting(name)
    points_grid, flips_grid = setting.grids["points"], setting.grids["flips"]
    jobs = [("flips", 0.0, f) for f in flips_grid] + [("lines", p, 0.0) for p in points_grid]
    jobs += [("joint", p, f) for p, f in itertools.product(points_grid, flips_grid)]
    found: dict[tuple[str, float, float], list[float]] = {}
    for seed in seeds:
        problem = setting.problem(seed)
        objective = thinned(problem.objective, setting.every)
        for design, points, flips in jobs:
            params = setting.run(problem, objective, seed, rates_of(design, points, flips))
            keys = jax.random.split(jax.random.key(seed), setting.judged)
            found.setdefault((design, points, flips), []).append(
                float(nrmse(problem.objective, params, keys).mean())
            )
            print(seed, design, points, flips, f"{found[design, points, flips][-1]:.4f}", flush=True)
    means = {job: float(np.mean(values)) for job, values in found.items()}
    best = {
        d: min((j for j in jobs if j[0] == d), key=means.__getitem__) for d in ("flips", "lines", "joint")
    }
    write_results(
        f"joint_tuning_{name}",
        {
            "setting": setting.setting, "steps": STEPS, "seeds": seeds, "grids": setting.grids,
            "nrmse": [{"design": d, "points": p, "flips": f, "mean": means[d, p, f], "per_seed": v}
                      for (d, p, f), v in found.items()],
            "best": {d: {"points": job[1], "flips": job[2]} for d, job in best.items()},
        },
    )  # fmt: skip


def compare(name: str, seeds: tuple[int, ...]) -> None:
    """All four designs from the same starts, with the rates that `tune` found."""
    setting = Setting(name)
    best = json.loads((RESULTS / f"joint_tuning_{name}.json").read_text())["best"]
    chosen = {d: (r["points"], r["flips"]) for d, r in best.items()}
    scores: dict[str, list[dict[str, float]]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in seeds:
        problem = setting.problem(seed)
        scores.setdefault("none", []).append(setting.scores(problem, problem.first(), seed))
        for design, rates in chosen.items():
            begun = time.perf_counter()
            params = jax.block_until_ready(
                setting.run(problem, problem.objective, seed, rates_of(design, *rates))
            )
            seconds.setdefault(design, []).append(time.perf_counter() - begun)
            scores.setdefault(design, []).append(setting.scores(problem, params, seed))
        print(seed, {design: round(held[-1]["nrmse"], 4) for design, held in scores.items()}, flush=True)
    means = {d: {k: float(np.mean([s[k] for s in held])) for k in held[0]} for d, held in scores.items()}
    ratios = {
        key: means["joint"][key] / min(means["lines"][key], means["flips"][key])
        for key in ("nrmse", "nrmse_held_out")
    }
    print("mean", {d: {k: round(v, 4) for k, v in m.items()} for d, m in means.items()})
    print("joint over the better single-sided design", {k: round(v, 4) for k, v in ratios.items()})
    write_results(
        f"joint_compare_{name}",
        {
            "machine": machine(len(os.sched_getaffinity(0))),
            "setting": setting.setting, "steps": STEPS, "seeds": seeds, "rates": chosen,
            "mean": means, "ratio_joint_to_better_single_sided": ratios, "per_seed": scores,
            "median_seconds_a_run": {d: float(np.median(s)) for d, s in seconds.items()},
        },
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("tune", "compare"))
    parser.add_argument("--setting", choices=tuple(SETTINGS), default="plane")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="default: 100, 101, … to tune and 0, 1, … to compare"
    )
    args = parser.parse_args()
    of = SETTINGS[args.setting]
    if args.part == "tune":
        tune(args.setting, tuple(args.seeds or of.get("tuning_seeds", TUNING_SEEDS)))
    else:
        compare(args.setting, tuple(args.seeds or of.get("seeds", SEEDS)))


if __name__ == "__main__":
    main()
