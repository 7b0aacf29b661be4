"""Learn lines and flips of an echo-train scan together: `python -m acqdesign.learn_joint`."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from acqdesign import plot
from acqdesign.base.checks import usage_error
from acqdesign.base.files import write_history, write_json
from acqdesign.base.sharding import leads, split_over
from acqdesign.base.types import Array, PRNGKey, PyTree
from acqdesign.base.units import rad_from_deg, s_from_ms
from acqdesign.commands.joint_options import JointOptions
from acqdesign.commands.options import LineOptions, start_lines
from acqdesign.commands.run import (
    describe,
    exit_code,
    fit_arguments,
    parse_options,
    report_end,
    run_command,
    run_directory,
    write_figure,
    write_summary,
)
from acqdesign.design.assignment import exchange_step
from acqdesign.design.joint_objective import SPLIT, JointObjective, Poses
from acqdesign.encoding import order_views, uniform_readout
from acqdesign.export import write_design
from acqdesign.optim import FitResult, fit, make_optimizer, schedule_projection
from acqdesign.scene import (
    TissueClasses,
    b1_map,
    posed,
    tissue_classes,
    tissues,
    with_b1_map,
    with_t2_spread,
)

COMMAND = "learn_joint"
DESIGNS = ("none", "flips", "lines", "joint")
# Learning rates of points [cycles/voxel] and flips [rad] unless given, found by benchmarks/joint_compare.py.
RATES = {"none": (4e-3, 6e-2), "flips": (4e-3, 6e-2), "lines": (8e-3, 6e-2), "joint": (8e-3, 6e-2)}
# How what is held out differs from what is learned on.
HELD_OUT = {"t1": 0.9, "t2": 1.1, "noise": 1.25}
_JUDGED = 16


@dataclasses.dataclass(frozen=True)
class Problem:
    """Everything that the four designs share."""

    objective: JointObjective
    held_out: JointObjective
    train: np.ndarray
    start: dict[str, Array]
    """With several starts each entry has them along its first axis."""
    project: Callable[[PyTree], PyTree]
    starts: int | None = None
    mesh: Mesh | None = None

    def first(self) -> dict[str, Array]:
        """The first start, projected as learning does."""
        one = self.start if self.starts is None else jax.tree.map(lambda leaf: leaf[0], self.start)
        return self.project(one)


def build(options: JointOptions, run_seed: int) -> Problem:
    """The scene, the starts and the constraints that the options stand for."""
    scene, train, dtype = options.scene, options.train, options.run.dtype
    line = options.line.resolved(scene.shape)
    if options.run.optimizer == "lbfgs" and (scene.augment or scene.noise):
        remedy = "It needs a loss that is the same at every step."
        raise usage_error("--optimizer", "lbfgs with --augment or --noise", "another optimiser", remedy)
    settings = options.goal.settings(train, scene.noise)
    half = train.half_width(scene.shape, scene.voxel_size(), line.samples)
    project_flips = schedule_projection(train.limits(), train.echoes)
    start_key, held_key = jax.random.split(jax.random.key(run_seed))
    count = options.run.starts
    starts = [_start(options, line, jax.random.fold_in(start_key, n)) for n in range(count)]
    trains = starts[0][0]
    flips = project_flips(jnp.full(train.echoes, rad_from_deg(train.start_deg()), dtype))
    begin = [{"points": points, "flips": flips} for _, points in starts]

    learned_on = [_classes(options, scene.load(spec, contrast="maps")) for spec in scene.phantom]
    specs = scene.holdout or scene.phantom
    keys = jax.random.split(held_key, len(specs))
    others = [
        _classes(options, _fractions(options, spec, None if scene.holdout else key))
        for spec, key in zip(specs, keys, strict=True)
    ]
    changed = [TissueClasses(c.maps, HELD_OUT["t1"] * c.t1, HELD_OUT["t2"] * c.t2, c.b1) for c in others]
    readout = uniform_readout(line.samples, dtype)
    backend = line.resolved_backend(options.run.deterministic)
    encoding = line.encoding(scene.shape, readout, scene.smaps(dtype), backend)
    # Slots: line n of the design is echo n % echoes of train n // echoes, from every start.
    echo = jnp.tile(jnp.arange(train.echoes, dtype=jnp.int32), len(trains) // train.echoes)
    poses = _poses(options) if scene.augment else None
    objective = JointObjective(encoding, echo, learned_on, settings, poses=poses)
    classes, anatomies = objective.maps.shape[:2]
    lengths = {"anatomies": anatomies, "tissues": classes, "coils": scene.coils, "lines": len(echo)}
    if line.samples >= scene.shape[0]:
        # Planes across the readout are problems of their own.
        lengths["planes"] = scene.shape[0]
    elif "planes" in (options.run.device.mesh or ""):
        planes = f"the {scene.shape[0]} planes across a line"
        remedy = f"--samples {line.samples} mix {planes}; --samples {scene.shape[0]} would not."
        raise usage_error("--mesh", options.run.device.mesh, "no planes", remedy)

    def project(params: PyTree) -> PyTree:
        return {
            "points": jnp.clip(params["points"], -half, half),
            "flips": project_flips(params["flips"]),
        }

    return Problem(
        objective,
        JointObjective(
            encoding, echo, changed, settings, known=_unposed(objective), louder=HELD_OUT["noise"]
        ),
        trains,
        begin[0] if count == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *begin),
        project,
        None if count == 1 else count,
        options.run.device.mesh_over(lengths),
    )


def _unposed(objective: JointObjective) -> JointObjective:
    """The objective on the anatomies as they were given."""
    return eqx.tree_at(lambda o: o.poses, objective, None, is_leaf=lambda leaf: leaf is None)


def _start(options: JointOptions, line: LineOptions, key: PRNGKey) -> tuple[np.ndarray, Array]:
    """The train of each slot, and the points that start there."""
    train = options.train
    start_key, order_key = jax.random.split(key)
    points = start_lines(line, line.init or "poisson", options.scene.shape, start_key).points
    views = order_views(train.ordering, points, train.echoes, te_echo=train.te_echo, key=order_key)
    slots = np.lexsort((views.echo, views.train))
    return views.train[slots], points[slots].astype(options.run.dtype)


def _fractions(options: JointOptions, spec: str, key: PRNGKey | None) -> Array:
    """One phantom's volume fractions, in a random pose where a key is given."""
    scene = options.scene
    if key is None:
        return scene.load(spec, contrast="maps")
    return posed(scene.load(spec, contrast="maps", fine=True), key, scene.shape)


def _classes(options: JointOptions, fractions: Array) -> TissueClasses:
    """Volume fractions as classes, under the transmit field and the spread of T2 that were asked for."""
    scene = options.scene
    classes = tissue_classes(fractions.astype(options.run.dtype), tissues(options.train.tissue, scene.field))
    if scene.t2_spread:
        classes = with_t2_spread(classes, scene.t2_spread)
    if scene.b1_spread:
        spread = scene.b1_spread
        classes = with_b1_map(classes, b1_map(scene.shape, centre=1 + spread, edge=1 - spread))
    return classes


def _poses(options: JointOptions) -> Poses:
    """The phantoms to be turned anew at every step."""
    scene, dtype = options.scene, options.run.dtype
    fine = [scene.load(spec, contrast="maps", fine=True).astype(dtype) for spec in scene.phantom]
    whole = jnp.ones((len(fine[0]), *scene.shape), dtype)
    return Poses(jnp.stack(fine, axis=1), _classes(options, whole).maps)


def _optimizer(options: JointOptions, learn: str) -> optax.GradientTransformation:
    run, (points, flips) = options.run, RATES[learn]
    if run.optimizer == "lbfgs":
        return make_optimizer(run.optimizer, run.lr, steps=run.steps, schedule=run.schedule, clip=run.clip)
    rates = {"points": run.lr or points, "flips": options.goal.lr_flips or flips}
    each = {
        name: make_optimizer(run.optimizer, rate, steps=run.steps, schedule=run.schedule, clip=run.clip)
        for name, rate in rates.items()
    }
    return optax.multi_transform(each, {name: name for name in each})


def learn_design(options: JointOptions, problem: Problem, learn: str, key: PRNGKey, **more: Any) -> FitResult:
    """Learns one of `DESIGNS` from the problem's starts; `more` goes to `fit`."""
    learned = {
        "points": jnp.asarray(learn in ("joint", "lines"))[None, None],
        "flips": jnp.asarray(learn in ("joint", "flips"))[None],
    }
    every = options.goal.exchange_every
    exchanging = bool(every) and learn in ("joint", "lines")
    objective, mesh = problem.objective, problem.mesh
    return fit(
        objective if mesh is None else split_over(mesh, objective, SPLIT),
        problem.start,
        key=key,
        project=problem.project,
        learned=learned,
        starts=problem.starts,
        optimizer=_optimizer(options, learn),
        between=exchange_step(problem.objective, jax.random.fold_in(key, 1)) if exchanging else None,
        between_every=every or 1,
        mesh=mesh,
        **({"steps": options.run.steps} | more),
    )


@eqx.filter_jit
def judge(objective: JointObjective, params: PyTree, key: PRNGKey) -> tuple[dict[str, Array], Array]:
    """All terms averaged over noise, and the images of one realisation."""
    keys = jax.random.split(key, _JUDGED)
    terms = jax.lax.map(lambda k: objective.terms(params, k), keys)
    return {name: jnp.mean(value) for name, value in terms.items()}, objective.reconstruct(params, keys[0])


def numbers(problem: Problem, params: PyTree, key: PRNGKey) -> tuple[dict[str, float], Array]:
    """Terms on what is learned on and on what is held out, and the first image."""
    # Written as the held-out one is, with what the reconstruction knows beside it, so that both compile as one.
    own = _unposed(problem.objective)
    own = eqx.tree_at(lambda o: o.known, own, own, is_leaf=lambda leaf: leaf is None)
    terms, images = judge(own, params, key)
    held, _ = judge(problem.held_out, params, key)
    found = {name: float(value) for name, value in terms.items()}
    found["loss"] = sum(w * found[name] for name, w in problem.objective.settings.weights.items())
    found |= {f"{name}_held_out": float(value) for name, value in held.items()}
    found["gap"] = found["nrmse_held_out"] - found["nrmse"]
    return found, images[0]


def _main(argv: Sequence[str] | None) -> int:
    options = parse_options(JointOptions, argv, prog="python -m acqdesign.learn_joint")
    run, goal = options.run, options.goal
    problem = build(options, run.seed)
    fit_key, judge_key = jax.random.split(jax.random.fold_in(jax.random.key(run.seed), 7))
    with run_directory(COMMAND, options) as out:
        arguments = fit_arguments(run, out, describe(COMMAND, options))
        for name in ("optimizer", "starts"):
            arguments.pop(name)
        compared = [name for name in DESIGNS[1:] if goal.compare and name != goal.learn]
        others = {name: _checkpoints(out, name, resume=arguments["resume"]) for name in compared}
        result = learn_design(
            options, problem, goal.learn, fit_key, snapshot_every=max(1, run.steps // 50), **arguments
        )
        designs = {"start": problem.first(), goal.learn: result.params}
        if goal.compare:
            designs["none"] = problem.first()
        for name, folder in others.items():
            if result.stopped != "finished":
                break
            policy = dataclasses.replace(arguments["checkpoint"], directory=folder)
            resume = arguments["resume"] and any(folder.glob("step-*.json"))
            other = learn_design(
                options, problem, name, fit_key, **arguments | {"checkpoint": policy, "resume": resume}
            )
            designs[name] = other.params
            if other.stopped != "finished":
                result = dataclasses.replace(result, stopped=other.stopped)
        if not leads():
            return exit_code(result)
        images, scores = {}, {}
        for name, params in designs.items():
            scores[name], images[name] = numbers(problem, params, judge_key)
        done = {name: scores[name] for name in DESIGNS if goal.compare and name in scores}
        if goal.compare:
            write_json(out / "compare.json", done)
        final = scores[goal.learn]
        initial = {f"initial_{name}": value for name, value in scores["start"].items()}
        write_summary(out / "summary.json", result, **final, **initial, compare=done)
        write_history(out / "history.csv", result.history)
        _write_design(options, out, problem, result.params)
        if not run.no_figures:
            _figures(options, out, problem, result, designs, images, scores)
        _report(out, result, scores)
    return exit_code(result)


def _checkpoints(out: Path, name: str, *, resume: bool) -> Path:
    """The folder of a compared design's checkpoints, emptied of an earlier run's."""
    folder = out / f"checkpoint-{name}"
    for old in [] if resume or not leads() else list(folder.glob("step-*")):
        old.unlink()
    return folder


def _write_design(options: JointOptions, out: Path, problem: Problem, params: PyTree) -> None:
    encoding = problem.objective.lines
    design = {
        "points": params["points"],
        "learned": np.ones(len(params["points"]), bool),
        "samples_per_line": encoding.samples_per_line,
        "readout": encoding.readout,
        "shape": encoding.shape,
        "fov_m": options.scene.fov_m(),
        "train": problem.train,
        "echo": problem.objective.echo,
        "flips_rad": params["flips"],
        "phases_rad": np.zeros(options.train.echoes),
        "te_s": (np.arange(options.train.echoes) + 1) * s_from_ms(options.train.esp_ms),
        "excitation_rad": rad_from_deg(90.0),
        "esp_s": s_from_ms(options.train.esp_ms),
    }
    write_design(out / "design.npz", design)


def _figures(
    options: JointOptions,
    out: Path,
    problem: Problem,
    result: FitResult,
    designs: dict[str, PyTree],
    images: dict[str, Array],
    scores: dict[str, dict[str, float]],
) -> None:
    objective, params, start = problem.objective, result.params, designs["start"]
    # The start that the result came from.
    begun = start["points"] if problem.starts is None else problem.start["points"][result.start]
    write_figure(
        out / "trajectory.png",
        plot.plot_lines(params["points"], start=begun, echo=objective.echo),
    )
    shown = {name: images[name] for name in (DESIGNS if options.goal.compare else designs) if name in images}
    captions = {name: f"NRMSE {scores[name]['nrmse']:.3f}" for name in shown}
    truth = objective.target()[0]
    write_figure(out / "reconstruction.png", plot.plot_images(truth, shown, captions=captions))
    write_figure(out / "flips.png", plot.plot_flips(params["flips"], start=start["flips"]))
    # Of the classes that a transmit field or a spread of T2 makes of a tissue, the middle one.
    names = [t.name for t in tissues(options.train.tissue, options.scene.field)]
    each = len(objective.scene.t2) // len(names)
    show = slice(each // 2, None, each)
    echoes = {name: objective.amplitudes(p["flips"])[show] for name, p in (("now", params), ("start", start))}
    esp = objective.settings.esp_s
    write_figure(
        out / "echoes.png", plot.plot_echoes(echoes["now"], names=names, esp_s=esp, start=echoes["start"])
    )
    respond = eqx.filter_jit(JointObjective.point_spread)
    spread = [respond(objective, design) for design in (params, start)]
    write_figure(out / "psf.png", plot.plot_psf(spread[0], start=spread[1]))
    write_figure(out / "loss.png", plot.plot_loss(result.history))
    if result.snapshots is not None:
        plot.animate_lines(
            out / "learning.gif",
            result.snapshots.params["points"],
            steps=result.snapshots.steps,
            losses=result.history["loss"],
            loss_steps=result.history["step"],
            echo=objective.echo,
        )


def _report(out: Path, result: FitResult, scores: dict[str, dict[str, float]]) -> None:
    print(f"{'design':>8}  NRMSE   held out")
    for name, found in scores.items():
        print(f"{name:>8}  {found['nrmse']:.4f}  {found['nrmse_held_out']:.4f}")
    report_end(result, out)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: its arguments; the process's own unless given.

    Returns:
        The exit code: 0 done, 2 wrong use or input, 3 numerical failure, 4 file system, 130 or 143 interrupted.
    """
    return run_command(_main, argv, prog=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
