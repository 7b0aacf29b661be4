"""Learn where k-space should be sampled: `python -m acqdesign.learn_traj`."""

import dataclasses
import math
import sys
from typing import Any, Literal

import jax
import jax.numpy as jnp

from acqdesign.base.checks import usage_error
from acqdesign.commands.options import (
    GradientOptions,
    ImageOptions,
    ReconstructionOptions,
    RunOptions,
    Steps,
    TermOptions,
    TrajectoryOptions,
    with_file,
)
from acqdesign.commands.run import learner
from acqdesign.design import Design, Held, Problem
from acqdesign.design.driver import GRID_STEPS
from acqdesign.recon import CG


@dataclasses.dataclass(frozen=True)
class TrajRunOptions(RunOptions):
    """How the run is made and where its results go."""

    steps: Steps = 40
    """Optimisation steps."""


LARGE = 2**22
"""Voxels above which one pose is held out: judging takes longer than learning there."""


@dataclasses.dataclass(frozen=True)
class RecipeOptions:
    """A choice of start, reconstruction and term at once."""

    recipe: Literal["default", "reference"] = "default"
    """default: Poisson-disc start, error of the iteratively reconstructed image. reference: mri-nufft's
    straight-line example: fixed centre, uniform random start, density-compensated adjoint."""


@dataclasses.dataclass(frozen=True)
class TrajOptions:
    """Learn the phase encodes (ky, kz) of straight readout lines from a brain image, or readouts of another kind.

    Gradients run through the NUFFT, the density and the reconstruction. Results go to a folder: design.npz (the
    positions), summary.json (errors and times), history.csv, figures and an animation. Examples:

    python -m acqdesign.learn_traj

    python -m acqdesign.learn_traj --recipe reference --out runs/reference

    python -m acqdesign.learn_traj --phantom head.nii.gz --shape 48 48 48 --acceleration 6 --coils 8

    python -m acqdesign.learn_traj --trajectory spiral --shape 1 96 96 --lines 8 --samples 512 --system prisma
    """

    scene: ImageOptions = dataclasses.field(default_factory=ImageOptions)
    trajectory: TrajectoryOptions = dataclasses.field(default_factory=TrajectoryOptions)
    scanner: GradientOptions = dataclasses.field(default_factory=GradientOptions)
    goal: RecipeOptions = dataclasses.field(default_factory=RecipeOptions)
    term: TermOptions = dataclasses.field(default_factory=TermOptions)
    recon: ReconstructionOptions = dataclasses.field(default_factory=ReconstructionOptions)
    run: TrajRunOptions = dataclasses.field(default_factory=TrajRunOptions)


def build(options: TrajOptions) -> dict[str, Any]:
    """The problem that the options stand for, and how it is run."""
    run, scene_options, reference = options.run, options.scene, options.goal.recipe == "reference"
    run.refuse_lbfgs(scene_options)
    scene_options, lines, file = with_file(scene_options, options.trajectory)
    run.refuse_size(scene_options, lines, 253)
    if lines.init is None and lines.trajectory == "lines":
        lines = dataclasses.replace(lines, init="reference" if reference else "poisson")
    if run.starts > 1 and (lines.from_file or lines.init in ("caipi", "spiral", "full")):
        same = "That start is the same every time."
        raise usage_error("--starts", f"{run.starts} with --init {lines.init}", "1", same)
    start_key, fit_key, scene_key, _ = jax.random.split(run.key, 4)
    images: dict[str, Any] = {"tissue_names": None, "contrast": scene_options.contrast}
    scene = scene_options.load(run.dtype, **images)
    poses = 2 if math.prod(scene.shape) <= LARGE else 1
    held = scene_options.load(run.dtype, scene_key, held=True, each=poses, **images)
    more: dict[str, Any] = {}
    if reference and lines.trajectory == "lines" and not lines.from_file:  # which samples both ends of the readout
        more["readout"] = jnp.linspace(-0.5, 0.5, lines.samples or 128, dtype=run.dtype)
    starts = [
        lines.make(scene, key, deterministic=run.deterministic, held=file, **more)
        for key in jax.random.split(start_key, run.starts)
    ]
    starts = [options.scanner.played(start, scene) for start in starts]
    reconstruction = options.recon.make("adjoint" if reference else "cg")
    some = scene_options.per_step(scene, starts[0], reconstruction, whole=run.whole or bool(options.term.term))
    terms = options.term.make("scaled_error" if reference else "squared_error" if some else "nrmse")
    problem = Problem(scene, starts[0], terms=terms, reconstruction=reconstruction, noise=scene_options.noise, **some)
    return {
        "problem": problem,
        "starts": [Design(start, None) for start in starts],
        "key": fit_key,
        "optimizer": run.make_optimizer(run.line_rate(scene, GRID_STEPS), gentle=lines.from_file),
        "held": Held(held),
        # Adjoints are judged as others are.
        "judged_by": CG() if options.recon.reconstruction is None and reference else None,
        "mesh": run.mesh(problem, held),
    }


main = learner("learn_traj", TrajOptions, build)

if __name__ == "__main__":
    sys.exit(main())
