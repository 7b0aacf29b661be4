"""What learning lines and flips together is worth: joint designs beside those of lines alone and flips alone.

Every design gets the same starts, steps, noise and reconstruction, and learning rates tuned for itself, setting by
setting, by a grid on seeds that are not used for the result. Judged on what was learned on, and on a head in another
pose, with other tissues and more noise. The settings:

    plane    one plane of 48 x 48, 768 lines, 96 echoes of 5 ms, effective echo time 80 ms, RMS flip 45 degrees
    volume   48 x 48 x 32 with 4 coils and 1152 lines, the rest as in the plane: rates are tuned learning on every 4th
             plane across the fully sampled readout, along which planes are problems of their own
    fewer    the volume with the plane's 768 lines
    ordered  the plane from a centre-out ordering
    power    the plane without a limit on power, from flips of 180 degrees, which leaves flips little to gain

Noise has a standard deviation of 0.06 / sqrt(2) in the real and in the imaginary part of each sample: results of before
this was the package's convention gave the same noise as 0.06, the deviation of the complex number. All lines may move,
those of the start's calibration block too. Held-out poses are rigid also where voxels are not cubes.

    python benchmarks/joint_compare.py time                 # seconds that the other two would take, setting by setting
    python benchmarks/joint_compare.py tune --setting plane     # learning rates: results/joint_tuning_plane.json
    python benchmarks/joint_compare.py compare --setting plane  # the comparison: results/joint_compare_plane.json

An interrupted `tune` or `compare` continues with --resume. JAX_COMPILATION_CACHE_DIR=FOLDER spares most of compiling.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _harness import RESULTS, machine, write_results

from acqdesign.base.units import rad_from_deg
from acqdesign.design import Design, Problem, judge, learn, per_half
from acqdesign.encoding import Lines
from acqdesign.optim import FitResult, Limits
from acqdesign.scene import Scene, brain
from acqdesign.signal import FSE

STEPS, ECHOES, ESP, TE = 150, 96, 5e-3, 80e-3
NOISE = 0.042
# How what is held out differs from what is learned on.
T1, T2, LOUDER = 0.9, 1.1, 1.25
HALVES = {"flips": ("sequence",), "lines": ("trajectory",), "joint": ("trajectory", "sequence")}
Job = tuple[str, float, float]
"""A design with its learning rates of lines [cycles/voxel] and of flips [rad], zero for what it holds."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A scan, and what is tried on it."""

    shape: tuple[int, int, int] = (1, 48, 48)
    coils: int = 1
    lines: int = 768
    ordering: str = "random"
    rms_deg: float = 45.0
    tuned_on_every: int = 1
    lines_grid: tuple[float, ...] = (2e-3, 4e-3, 8e-3, 1.6e-2)
    flips_grid: tuple[float, ...] = (3e-2, 6e-2, 1.2e-1, 2.4e-1)
    tuning_seeds: tuple[int, ...] = (100,)
    seeds: tuple[int, ...] = (0, 1)

    @property
    def realisations(self) -> int:
        """Of noise, to judge under: a plane has fewer voxels to average over."""
        return 16 if self.shape[0] == 1 else 4

    def jobs(self) -> list[Job]:
        """What is tried in tuning."""
        jobs = [("flips", 0.0, f) for f in self.flips_grid] + [("lines", p, 0.0) for p in self.lines_grid]
        return jobs + [("joint", p, f) for p, f in itertools.product(self.lines_grid, self.flips_grid)]


VOLUME = Setting(
    shape=(48, 48, 32),
    coils=4,
    lines=1152,
    tuned_on_every=4,
    lines_grid=(8e-3, 1.6e-2, 2.4e-2),
    flips_grid=(6e-2, 1.2e-1, 1.8e-1),
)
SETTINGS = {
    "plane": Setting(tuning_seeds=(100, 101, 102), seeds=(0, 1, 2, 3, 4)),
    "volume": VOLUME,
    "fewer": dataclasses.replace(VOLUME, lines=768),
    "ordered": Setting(ordering="centre-out", lines_grid=(2e-3, 4e-3, 8e-3), flips_grid=(6e-2, 1.2e-1, 2.4e-1)),
    "power": Setting(rms_deg=180.0, lines_grid=(2e-3, 4e-3, 8e-3), flips_grid=(7.5e-3, 1.5e-2, 3e-2, 6e-2)),
}


@functools.cache
def head(setting: Setting) -> Scene:
    """The scene of a setting."""
    return brain(setting.shape, coils=setting.coils)


@functools.lru_cache(2)
def problem_of(setting: Setting, seed: int) -> Problem:
    """The problem with the start that belongs to a seed."""
    scene, level = head(setting), rad_from_deg(setting.rms_deg)
    begin = jax.random.fold_in(jax.random.split(jax.random.key(seed))[0], 0)
    pattern_key, order_key = jax.random.split(begin)
    points = Lines.poisson(scene, key=pattern_key, lines=setting.lines).points
    train = FSE(jnp.full(ECHOES, level, jnp.float32), ESP, te=TE)
    limits = [Limits(rms=level)] if setting.rms_deg < 180 else []
    return Problem(scene, Lines(points), train, noise=NOISE, limits=limits, order=setting.ordering, key=order_key)


@functools.lru_cache(2)
def held_out(setting: Setting, seed: int) -> Problem:
    """The problem on the head in another pose, with other relaxation times and more noise."""
    scene = head(setting).reposed(jax.random.split(jax.random.key(seed))[1])
    times = (T1 * scene.tissue.t1, T2 * scene.tissue.t2)
    scene = eqx.tree_at(lambda scene: (scene.tissue.t1, scene.tissue.t2), scene, times)
    return problem_of(setting, seed).judged_on(scene, LOUDER * NOISE)


def thinned(problem: Problem, every: int) -> Problem:
    """The problem on every n-th plane across the readout, which is fully sampled."""
    if every == 1:
        return problem
    return Problem(
        problem.scene.every_plane(every), problem.trajectory, problem.sequence, noise=NOISE,
        limits=problem.constraints, order=None,
    )  # fmt: skip


def adam(lines: float, flips: float, steps: int) -> optax.GradientTransformation:
    """As `acqdesign.design.adam`, with rates that are state: programs that differ in them alone compile once."""

    def half(rate: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.inject_hyperparams(optax.adam)(learning_rate=rate),
            optax.scale_by_schedule(optax.cosine_decay_schedule(1.0, steps)),
        )

    return per_half({"trajectory": half(lines), "sequence": half(flips)})


def learned(problem: Problem, job: Job, seed: int, steps: int = STEPS) -> tuple[FitResult, Design]:
    """What learning a design with its rates finds."""
    design, lines, flips = job
    result, found, _ = learn(
        problem.learning(*HALVES[design]), steps, optimizer=adam(lines, flips, steps), key=jax.random.key(seed)
    )
    return result, found


def error(setting: Setting, problem: Problem, design: Design, key: Any) -> float:
    """NRMSE, averaged over realisations of noise."""
    return float(judge(problem, design, key, jnp.int32(setting.realisations))[0]["nrmse"])


class Done:
    """What has been found so far, on disk: by job's name, so that a run can be taken up again."""

    def __init__(self, name: str, resume: bool) -> None:
        self.path: Path = RESULTS / f"{name}.partial.json"
        self.found: dict[str, Any] = {}
        if resume and self.path.exists():
            self.found = json.loads(self.path.read_text())
            print(f"{len(self.found)} runs from {self.path}", flush=True)

    def get(self, name: str, compute: Any) -> Any:
        """What was found under a name, computed where it is not there yet."""
        if name not in self.found:
            self.found[name] = compute()
            draft = self.path.with_suffix(".tmp")
            draft.write_text(json.dumps(self.found))
            draft.replace(self.path)
            print(name, self.found[name], flush=True)
        return self.found[name]

    def end(self) -> None:
        """Everything is in the results."""
        self.path.unlink(missing_ok=True)


def tried(setting: Setting, seed: int, job: Job) -> float:
    """The error, on the whole scene, of a design with some learning rates."""
    problem = problem_of(setting, seed)
    _, design = learned(thinned(problem, setting.tuned_on_every), job, seed)
    return error(setting, problem, design, jax.random.key(seed))


def tune(name: str, seeds: tuple[int, ...], resume: bool) -> None:
    """The grid of learning rates."""
    setting, done = SETTINGS[name], Done(f"joint_tuning_{name}", resume)
    found: dict[Job, list[float]] = {job: [] for job in setting.jobs()}
    for seed, job in itertools.product(seeds, found):
        run = functools.partial(tried, setting, seed, job)
        found[job].append(done.get(" ".join(map(str, (seed, *job))), run))
    means = {job: float(np.mean(values)) for job, values in found.items()}
    best = {d: min((job for job in found if job[0] == d), key=means.__getitem__) for d in HALVES}
    write_results(
        f"joint_tuning_{name}",
        {
            "setting": dataclasses.asdict(setting), "steps": STEPS, "noise": NOISE, "seeds": seeds,
            "nrmse": [{"design": d, "points": p, "flips": f, "mean": means[d, p, f], "per_seed": v}
                      for (d, p, f), v in found.items()],
            "best": {d: {"points": job[1], "flips": job[2]} for d, job in best.items()},
        },
    )  # fmt: skip
    done.end()


def scored(setting: Setting, seed: int, job: Job) -> dict[str, float]:
    """Errors of a design on what was learned on and on what was not, and the seconds of its steps."""
    problem, seconds = problem_of(setting, seed), 0.0
    design, key = problem.design, jax.random.fold_in(jax.random.key(seed), 1)
    if job[0] in HALVES:
        result, design = learned(problem, job, seed)
        seconds = STEPS * result.seconds_per_step
    here, there = (error(setting, p, design, key) for p in (problem, held_out(setting, seed)))
    return {"nrmse": here, "nrmse_held_out": there, "gap": there - here, "seconds": seconds}


def compare(name: str, seeds: tuple[int, ...], resume: bool) -> None:
    """All four designs from the same starts, with the rates that `tune` found."""
    setting, done = SETTINGS[name], Done(f"joint_compare_{name}", resume)
    best = json.loads((RESULTS / f"joint_tuning_{name}.json").read_text())["best"]
    chosen = {design: (best[design]["points"], best[design]["flips"]) for design in HALVES}
    scores: dict[str, list[dict[str, float]]] = {}
    for seed, design in itertools.product(seeds, ("none", *HALVES)):
        job = (design, *chosen.get(design, (0.0, 0.0)))
        found = done.get(" ".join(map(str, (seed, *job))), functools.partial(scored, setting, seed, job))
        scores.setdefault(design, []).append(found)
    kinds = ("nrmse", "nrmse_held_out", "gap")
    means = {d: {kind: float(np.mean([s[kind] for s in held])) for kind in kinds} for d, held in scores.items()}
    ratios = {kind: means["joint"][kind] / min(means["lines"][kind], means["flips"][kind]) for kind in kinds[:2]}
    print("mean", {d: {k: round(v, 4) for k, v in m.items()} for d, m in means.items()})
    print("joint over the better single-sided design", {k: round(v, 4) for k, v in ratios.items()})
    write_results(
        f"joint_compare_{name}",
        {
            "machine": machine(len(os.sched_getaffinity(0))), "setting": dataclasses.asdict(setting),
            "steps": STEPS, "noise": NOISE, "seeds": seeds, "rates": chosen, "mean": means,
            "ratio_joint_to_better_single_sided": ratios,
            "per_seed": {d: [{kind: s[kind] for kind in kinds} for s in held] for d, held in scores.items()},
            "median_seconds_a_run": {d: float(np.median([s["seconds"] for s in scores[d]])) for d in HALVES},
        },
    )  # fmt: skip
    done.end()


def estimate(name: str) -> None:
    """Prints how long `tune` and `compare` would take here, from a few steps of each design."""
    setting, steps = SETTINGS[name], 6
    problem = problem_of(setting, 0)
    minutes = {}
    for part, every in (("tune", setting.tuned_on_every), ("compare", 1)):
        few, total, said = thinned(problem, every), 0.0, []
        counts = {d: len(setting.seeds) for d in HALVES}
        if part == "tune":
            jobs = [design for design, _, _ in setting.jobs()]
            counts = {d: len(setting.tuning_seeds) * jobs.count(d) for d in HALVES}
        for design, count in counts.items():
            begun = time.perf_counter()
            result, found = learned(few, (design, 1e-3, 1e-3), 0, steps)
            traced = time.perf_counter() - begun - steps * result.seconds_per_step - result.compile_seconds
            error(setting, problem, found, jax.random.key(0))
            begun = time.perf_counter()
            error(setting, problem, found, jax.random.key(1))
            judging = (1 if part == "tune" else 2) * (time.perf_counter() - begun)
            each = STEPS * result.seconds_per_step + result.compile_seconds + traced + judging
            total += count * each
            parts = f"{1e3 * result.seconds_per_step:.0f} ms a step, compiling {result.compile_seconds:.0f} s"
            said.append(f"{count} x {design}: {parts}, judging {judging:.1f} s, {each:.0f} s a run")
        minutes[part] = total / 60
        print(f"{name}, {part}: " + "; ".join(said), flush=True)
    print(f"{name}: tune {minutes['tune']:.0f} min, compare {minutes['compare']:.0f} min", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("time", "tune", "compare"))
    parser.add_argument("--setting", nargs="+", choices=tuple(SETTINGS), help="default: plane; of `time`, all")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 100, 101, … to tune and 0, 1, … to compare")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run of the setting stopped")
    args = parser.parse_args()
    for name in args.setting or (SETTINGS if args.part == "time" else ("plane",)):
        of = SETTINGS[name]
        if args.part == "time":
            estimate(name)
        elif args.part == "tune":
            tune(name, tuple(args.seeds or of.tuning_seeds), args.resume)
        else:
            compare(name, tuple(args.seeds or of.seeds), args.resume)


if __name__ == "__main__":
    main()
