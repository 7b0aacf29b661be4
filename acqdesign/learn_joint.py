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

from acqdesign import plot
from acqdesign._checks import bad
from acqdesign._files import write_json
from acqdesign._types import Array, PRNGKey, PyTree
from acqdesign.design import FitResult, fit, make_optimizer, schedule_projection
from acqdesign.design.assignment import exchange_step
from acqdesign.design.joint_objective import JointObjective, JointSettings, point_spread
from acqdesign.encoding import echo_of_te, order_views, uniform_readout
from acqdesign.export import write_design
from acqdesign.joint_options import JointOptions
from acqdesign.options import start_lines
from acqdesign.run import (
    describe,
    exit_code,
    fit_arguments,
    parse_options,
    run_command,
    run_directory,
    write_figure,
    write_history,
    write_summary,
)
from acqdesign.scene import (
    TissueClasses,
    b1_map,
    posed,
    tissue_classes,
    tissues,
    with_b1_map,
)
from acqdesign.units import ms_from_s, rad_from_deg, s_from_ms

COMMAND = "learn_joint"
DESIGNS = ("none", "flips", "lines", "joint")
# Learning rates of points [cycles/voxel] and flips [rad] unless given.
RATES = {"points": 1e-2, "flips": 5e-2}
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
    project: Callable[[PyTree], PyTree]


def build(options: JointOptions, run_seed: int) -> Problem:
    """The scene, the start and the constraints that the options stand for."""
    scene, train, goal, dtype = options.scene, options.train, options.goal, options.run.dtype
    start_key, order_key, held_key = jax.random.split(jax.random.key(run_seed), 3)
    te_echo = echo_of_te(s_from_ms(train.te_eff_ms), s_from_ms(train.esp_ms), train.echoes)
    line = options.line
    if line.lines is None and line.acceleration is None and line.init is None:
        line = dataclasses.replace(line, lines=768)
    start = start_lines(line, line.init or "poisson", scene.shape, start_key)
    points = start.points.astype(dtype)
    views = order_views(train.ordering, points, train.echoes, te_echo=te_echo, key=order_key)

    learned_on = [_classes(options, spec, None) for spec in scene.phantom]
    specs = scene.holdout or scene.phantom
    keys = jax.random.split(held_key, len(specs))
    others = [
        _classes(options, spec, None if scene.holdout else key) for spec, key in zip(specs, keys, strict=True)
    ]
    changed = [TissueClasses(c.maps, HELD_OUT["t1"] * c.t1, HELD_OUT["t2"] * c.t2, c.b1) for c in others]
    readout = uniform_readout(line.samples, dtype)
    backend = line.resolved_backend(options.run.deterministic)
    encoding = line.encoding(scene.shape, readout, scene.smaps(dtype), backend)
    settings = JointSettings(
        esp_s=s_from_ms(train.esp_ms),
        te_echo=te_echo,
        noise=scene.noise,
        ridge=goal.ridge,
        iterations=goal.iterations,
        reconstruction=goal.reconstruction,
        rank=goal.rank,
        weight_nrmse=goal.weight_nrmse,
        weight_noise=goal.weight_noise,
        weight_psf=goal.weight_psf,
    )
    louder = dataclasses.replace(settings, noise=HELD_OUT["noise"] * settings.noise)
    project_flips = schedule_projection(train.limits(), train.echoes)
    flips = project_flips(jnp.full(train.echoes, rad_from_deg(train.rms_flip_deg), dtype))

    def project(params: PyTree) -> PyTree:
        points = jnp.clip(params["points"], -0.5, 0.5)
        return {"points": points, "flips": project_flips(params["flips"])}

    return Problem(
        JointObjective(encoding, jnp.asarray(views.echo), learned_on, settings),
        JointObjective(encoding, jnp.asarray(views.echo), changed, louder),
        views.train,
        {"points": points, "flips": flips},
        project,
    )


def _classes(options: JointOptions, spec: str, key: PRNGKey | None) -> TissueClasses:
    """One phantom's classes, in a random pose where a key is given."""
    scene, dtype = options.scene, options.run.dtype
    if key is None:
        fractions = scene.load(spec, contrast="maps")
    else:
        fractions = posed(scene.load(spec, contrast="maps", fine=True), key, scene.shape)
    classes = tissue_classes(fractions.astype(dtype), tissues(options.train.tissue, scene.field))
    if scene.b1_spread:
        spread = scene.b1_spread
        field = b1_map(scene.shape, centre=1 + spread, edge=1 - spread)
        classes = with_b1_map(classes, field)
    return classes


def _optimizer(options: JointOptions) -> optax.GradientTransformation:
    run = options.run
    rates = {"points": run.lr or RATES["points"], "flips": options.goal.lr_flips or RATES["flips"]}
    each = {
        name: make_optimizer(run.optimizer, rate, steps=run.steps, schedule=run.schedule, clip=run.clip)
        for name, rate in rates.items()
    }
    return optax.multi_transform(each, {name: name for name in each})


def learn_design(options: JointOptions, problem: Problem, learn: str, key: PRNGKey, **more: Any) -> FitResult:
    """Learns one of `DESIGNS` from the problem's start."""
    learned = {
        "points": jnp.asarray(learn in ("joint", "lines"))[None, None],
        "flips": jnp.asarray(learn in ("joint", "flips"))[None],
    }
    every = options.goal.exchange_every
    exchanging = bool(every) and learn in ("joint", "lines")
    return fit(
        problem.objective,
        problem.start,
        key=key,
        project=problem.project,
        learned=learned,
        between=exchange_step(problem.objective, jax.random.fold_in(key, 1)) if exchanging else None,
        between_every=every or 1,
        **({"optimizer": _optimizer(options), "steps": options.run.steps} | more),
    )


@eqx.filter_jit
def judge(objective: JointObjective, params: PyTree, key: PRNGKey) -> tuple[dict[str, Array], Array]:
    """Terms averaged over noise, and the images of one realisation."""
    keys = jax.random.split(key, _JUDGED)
    terms = jax.lax.map(lambda k: objective(params, k)[1], keys)
    return {name: jnp.mean(value) for name, value in terms.items()}, objective.reconstruct(params, keys[0])


def numbers(problem: Problem, params: PyTree, key: PRNGKey) -> tuple[dict[str, float], Array]:
    """Terms on what is learned on and on what is held out, and the first image."""
    terms, images = judge(problem.objective, params, key)
    held, _ = judge(problem.held_out, params, key)
    found = {name: float(value) for name, value in terms.items()}
    found |= {f"{name}_held_out": float(value) for name, value in held.items()}
    found["gap"] = found["nrmse_held_out"] - found["nrmse"]
    return found, images[0]


def _main(argv: Sequence[str] | None) -> int:
    options = parse_options(JointOptions, argv, prog="python -m acqdesign.learn_joint")
    run, goal = options.run, options.goal
    if run.starts > 1:
        raise bad("--starts", run.starts, "1", "Start several runs with seeds of their own.")
    problem = build(options, run.seed)
    fit_key, judge_key = jax.random.split(jax.random.fold_in(jax.random.key(run.seed), 7))
    with run_directory(COMMAND, options) as out:
        arguments = fit_arguments(run, out, describe(COMMAND, options)) | {
            "optimizer": _optimizer(options),
            "starts": None,
        }
        result = learn_design(
            options, problem, goal.learn, fit_key, snapshot_every=max(1, run.steps // 50), **arguments
        )
        designs = {"start": problem.start, goal.learn: result.params}
        compared = {}
        if goal.compare:
            for learn in DESIGNS:
                other = result if learn == goal.learn else None
                if other is None and learn != "none":
                    other = learn_design(options, problem, learn, fit_key)
                params = problem.start if other is None else other.params
                designs[learn] = params
        images, scores = {}, {}
        for name, params in designs.items():
            scores[name], images[name] = numbers(problem, params, judge_key)
        if goal.compare:
            compared = {name: scores[name] for name in DESIGNS}
            write_json(out / "compare.json", compared)
        final = scores[goal.learn]
        initial = {f"initial_{name}": value for name, value in scores["start"].items()}
        write_summary(out / "summary.json", result, **final, **initial, compare=compared)
        write_history(out / "history.csv", result.history)
        _write_design(options, out, problem, result.params)
        if not run.no_figures:
            shown = {k: images[k] for k in (DESIGNS if goal.compare else designs)}
            _figures(options, out, problem, result, shown, scores)
        _report(out, result, scores)
    return exit_code(result)


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
    images: dict[str, Array],
    scores: dict[str, dict[str, float]],
) -> None:
    objective, params, start = problem.objective, result.params, problem.start
    write_figure(
        out / "trajectory.png",
        plot.plot_lines(params["points"], start=start["points"], echo=objective.echo),
    )
    captions = {name: f"NRMSE {scores[name]['nrmse']:.3f}" for name in images}
    truth = objective.target()[0]
    write_figure(out / "reconstruction.png", plot.plot_images(truth, images, captions=captions))
    write_figure(out / "flips.png", plot.plot_flips(params["flips"], start=start["flips"]))
    # With a transmit field, the classes nearest the nominal one.
    names = [t.name for t in tissues(options.train.tissue, options.scene.field)]
    each = len(objective.share) // len(names)
    show = slice(each // 2, None, each)
    echoes = {name: objective.amplitudes(p["flips"])[show] for name, p in (("now", params), ("start", start))}
    esp = objective.settings.esp_s
    write_figure(
        out / "echoes.png", plot.plot_echoes(echoes["now"], names=names, esp_s=esp, start=echoes["start"])
    )
    spread = []
    for design in (params, start):
        encoding = objective.encoding(design)
        spread.append(point_spread(encoding, objective.share @ encoding.amplitudes))
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
    step = ms_from_s(result.seconds_per_step)
    print(f"{step:.1f} ms a step after {result.compile_seconds:.1f} s of compilation")
    print(f"results in {out}")


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
