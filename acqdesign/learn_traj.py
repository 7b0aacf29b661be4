"""Learn where straight readout lines of a 3D scan should lie: `python -m acqdesign.learn_traj`."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign import plot
from acqdesign.base.checks import check_choice, check_count, usage_error
from acqdesign.base.files import write_history
from acqdesign.base.sharding import leads, split_over
from acqdesign.base.types import Array, Image, LinePoints
from acqdesign.commands.options import LineOptions, SceneOptions, start_lines
from acqdesign.commands.run import (
    RunOptions,
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
from acqdesign.design.line_objectives import (
    DENSITIES,
    SPLIT,
    AdjointObjective,
    IterativeObjective,
    line_density,
    line_psf,
)
from acqdesign.encoding import Lines, uniform_readout
from acqdesign.export import write_design
from acqdesign.optim import FitResult, fit
from acqdesign.recon import nrmse, psnr, ssim

COMMAND = "learn_traj"
OBJECTIVES = ("nrmse", "ssim", "adjoint")
# Starts that differ from key to key.
RANDOM_STARTS = ("reference", "poisson")
# What each recipe means where the flags are silent.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {"init": "poisson", "objective": "nrmse"},
    "reference": {"init": "reference", "objective": "adjoint"},
}


@dataclasses.dataclass(frozen=True)
class TrajRunOptions(RunOptions):
    """How the run is made and where its results go."""

    steps: int = 40
    """Optimisation steps."""


@dataclasses.dataclass(frozen=True)
class ObjectiveOptions:
    """What the lines are learned for."""

    recipe: Literal["default", "reference"] = "default"
    """default: Poisson-disc start, error of the iteratively reconstructed image. reference: mri-nufft's
    straight-line example: fixed centre, uniform random start, density-compensated adjoint."""
    objective: str | None = None
    """nrmse or ssim of the image reconstructed by conjugate gradients, or adjoint: mean-normalised squared error
    of the density-compensated adjoint; the recipe's unless given."""
    density: str = "pipe"
    """Density of --objective adjoint: pipe, pipe-stopped (no gradient through it), least-squares or none."""
    density_iterations: int = 10
    """Iterations of the density."""
    ridge: float = 1e-3
    """Tikhonov weight of the reconstruction, relative to a fully sampled scan."""
    iterations: int = 10
    """Conjugate-gradient iterations of the reconstruction."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        if self.objective is not None:
            check_choice("--objective", self.objective, OBJECTIVES)
        check_choice("--density", self.density, DENSITIES)
        check_count("--density-iterations", self.density_iterations)
        check_count("--iterations", self.iterations)
        if not (np.isfinite(self.ridge) and self.ridge >= 0):
            raise usage_error("--ridge", self.ridge, "a finite number >= 0")


@dataclasses.dataclass(frozen=True)
class TrajOptions:
    """Learn the phase encodes (ky, kz) of straight readout lines of a 3D scan from a brain image.

    Gradients run through the NUFFT, the density and the reconstruction. Results go to a folder: design.npz (the
    positions), summary.json (errors and times), history.csv, figures and an animation. Examples:

    python -m acqdesign.learn_traj

    python -m acqdesign.learn_traj --recipe reference --out runs/reference

    python -m acqdesign.learn_traj --phantom head.nii.gz --shape 48 48 48 --acceleration 6 --coils 8
    """

    scene: SceneOptions = dataclasses.field(default_factory=SceneOptions)
    line: LineOptions = dataclasses.field(default_factory=LineOptions)
    goal: ObjectiveOptions = dataclasses.field(default_factory=ObjectiveOptions)
    run: TrajRunOptions = dataclasses.field(default_factory=TrajRunOptions)


def _objective(
    options: TrajOptions, name: str, encoding: Any, images: Array, held_out: Array
) -> AdjointObjective | IterativeObjective:
    goal, scene = options.goal, options.scene
    poses: dict[str, Any] = {"augmented": scene.augment, "voxel_size": scene.voxel_size()}
    if name == "adjoint":
        if scene.noise:
            raise usage_error(
                "--noise", f"{scene.noise} with --objective adjoint", "0", "Use --objective nrmse."
            )
        return AdjointObjective(
            encoding,
            images,
            held_out=held_out,
            density=goal.density,
            density_iterations=goal.density_iterations,
            **poses,
        )
    return _iterative(options, encoding, images, metric=name, held_out=held_out, **poses)


def _iterative(options: TrajOptions, encoding: Any, images: Array, **more: Any) -> IterativeObjective:
    goal = options.goal
    noise = options.scene.noise
    return IterativeObjective(
        encoding, images, ridge=goal.ridge, iterations=goal.iterations, noise=noise, **more
    )


def _to_box(params: dict[str, Array]) -> dict[str, Array]:
    return {"points": jnp.clip(params["points"], -0.5, 0.5)}


def _check(options: TrajOptions, init: str) -> None:
    """Refuses what only together makes no sense."""
    run, scene = options.run, options.scene
    if run.starts > 1 and init not in RANDOM_STARTS:
        raise usage_error(
            "--starts", f"{run.starts} with --init {init}", "1", "That start is the same every time."
        )
    if run.optimizer == "lbfgs" and (scene.augment or scene.noise):
        got, remedy = "lbfgs with --augment or --noise", "It needs a loss that is the same at every step."
        raise usage_error("--optimizer", got, "neither", remedy)


def _main(argv: Sequence[str] | None) -> int:
    options = parse_options(TrajOptions, argv, prog="python -m acqdesign.learn_traj")
    run, scene, dtype = options.run, options.scene, options.run.dtype
    recipe = RECIPES[options.goal.recipe]
    init, name = options.line.init or recipe["init"], options.goal.objective or recipe["objective"]
    _check(options, init)
    start_key, fit_key, scene_key, judge_key = jax.random.split(jax.random.key(run.seed), 4)

    images, held_out = scene.images(dtype), scene.held_out(scene_key, dtype)
    moving = scene.images(dtype, fine=True) if scene.augment else images
    readout = uniform_readout(options.line.samples, dtype)
    if options.goal.recipe == "reference":  # which samples both ends of the readout
        readout = jnp.linspace(-0.5, 0.5, options.line.samples, dtype=dtype)
    backend = options.line.resolved_backend(run.deterministic)
    encoding = options.line.encoding(scene.shape, readout, scene.smaps(dtype), backend)
    loss = _objective(options, name, encoding, moving, held_out)
    starts = [
        start_lines(options.line, init, scene.shape, key) for key in jax.random.split(start_key, run.starts)
    ]
    points = jnp.stack([start.points for start in starts]).astype(dtype)
    learned = starts[0].learned
    if not bool(learned.any()):
        raise usage_error("--init", init, "at least one line that learning may move")
    fov_m = scene.fov_m()
    # What is held out is split as what is learned on.
    anatomies = math.gcd(len(images), len(held_out))
    mesh = run.device.mesh_over({"anatomies": anatomies, "coils": scene.coils, "lines": points.shape[1]})

    with run_directory(COMMAND, options) as out:
        result = fit(
            loss if mesh is None else split_over(mesh, loss, SPLIT),
            {"points": points if run.starts > 1 else points[0]},
            key=fit_key,
            project=_to_box,
            learned={"points": learned[:, None]},
            snapshot_every=max(1, run.steps // 50),
            mesh=mesh,
            **fit_arguments(run, out, describe(COMMAND, options)),
        )
        if not leads():
            return exit_code(result)
        first = Lines(points[result.start], learned)
        final = Lines(jnp.asarray(result.params["points"]), learned)
        _write(out, encoding, fov_m, result, final)
        judge = _iterative(options, encoding, images, held_out=held_out)
        shown = _judge(judge, first, final, images, held_out, judge_key)
        write_summary(out / "summary.json", result, **shown["numbers"])
        if not run.no_figures:
            _figures(options, out, result, first, final, images[0], shown["reconstructions"])
        _report(out, result, shown["numbers"])
    return exit_code(result)


def _write(
    out: Path, encoding: Any, fov_m: tuple[float, ...] | None, result: FitResult, final: Lines
) -> None:
    write_history(out / "history.csv", result.history)
    design = {
        "points": final.points,
        "learned": final.learned,
        "samples_per_line": encoding.samples_per_line,
        "readout": encoding.readout,
        "shape": encoding.shape,
        "fov_m": fov_m,
    }
    write_design(out / "design.npz", design)


def _judge(
    judge: IterativeObjective, first: Lines, final: Lines, images: Array, held_out: Array, key: Array
) -> dict[str, Any]:
    """Both designs through one reconstruction, whatever they were learned for: numbers and first images."""

    @eqx.filter_jit
    def measure(judge: IterativeObjective, points: LinePoints, images: Array) -> tuple[Array, Image]:
        found = judge.reconstruct(points, images, key)
        scores = [jnp.mean(score(found, images)) for score in (nrmse, psnr, ssim)]
        return jnp.stack(scores), found[0]

    numbers: dict[str, float] = {}
    reconstructions: dict[str, np.ndarray] = {}
    for when, lines in (("start", first), ("learned", final)):
        for label, given in (("", images), ("_held_out", held_out)):
            scores, found = measure(judge, lines.points, given)
            for score, value in zip(("nrmse", "psnr", "ssim"), scores.tolist(), strict=True):
                numbers[f"{score}{label}" if when == "learned" else f"initial_{score}{label}"] = value
            if not label:
                reconstructions[when] = np.asarray(found)
    return {"numbers": numbers, "reconstructions": reconstructions}


def _figures(
    options: TrajOptions,
    out: Path,
    result: FitResult,
    first: Lines,
    final: Lines,
    truth: Image,
    reconstructions: dict[str, np.ndarray],
) -> None:
    shape = options.scene.shape
    write_figure(
        out / "trajectory.png",
        plot.plot_lines(final.points, start=first.points, learned=final.learned),
    )
    captions = {
        when: f"NRMSE {float(nrmse(jnp.asarray(image), truth)):.3f}"
        for when, image in reconstructions.items()
    }
    write_figure(out / "reconstruction.png", plot.plot_images(truth, reconstructions, captions=captions))
    spread = [line_psf(x.points, line_density("pipe", x.points, shape), shape) for x in (first, final)]
    write_figure(out / "psf.png", plot.plot_psf(spread[1], start=spread[0]))
    write_figure(out / "loss.png", plot.plot_loss(result.history))
    if result.snapshots is not None:
        plot.animate_lines(
            out / "learning.gif",
            result.snapshots.params["points"],
            steps=result.snapshots.steps,
            losses=result.history["loss"],
            loss_steps=result.history["step"],
        )


def _report(out: Path, result: FitResult, numbers: dict[str, float]) -> None:
    print(f"loss {result.initial_loss:.4g} -> {result.final_loss:.4g}")
    for label, name in (("learned on", "nrmse"), ("held out", "nrmse_held_out")):
        print(f"NRMSE, {label}: {numbers['initial_' + name]:.4f} -> {numbers[name]:.4f}")
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
