"""Learn lines and flips of an echo-train scan together: `python -m acqdesign.learn_joint`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.units import ms_from_s, rad_from_deg
from acqdesign.commands.flags import Count, Rate, within
from acqdesign.commands.options import (
    LimitOptions,
    ReconstructionOptions,
    RunOptions,
    ScannerOptions,
    Steps,
    TermOptions,
    TissueSceneOptions,
    TrainOptions,
    TrajectoryOptions,
    with_file,
)
from acqdesign.commands.run import learner
from acqdesign.commands.streams import leave
from acqdesign.design import Design, Held, Problem, per_half
from acqdesign.scene import Scene

HALVES = {"joint": ("trajectory", "sequence"), "lines": ("trajectory",), "flips": ("sequence",)}
# Learning rates of lines [steps of the grid] and flips [rad] unless given, found by benchmarks/joint_compare.py.
GRID_STEPS, FLIP_RATE = 0.384, 6e-2
RMS_DEG, LINES = 45.0, 768
# How what is held out differs from what is learned on.
HELD_OUT = {"t1": 0.9, "t2": 1.1, "noise": 1.25}


@dataclasses.dataclass(frozen=True)
class JointRunOptions(RunOptions):
    """How the run is made and where its results go."""

    steps: Steps = 150
    """Optimisation steps."""
    schedule: str = "cosine"
    """Learning rate over the run: constant, cosine, exponential (to 1 %), linear or warmup-cosine."""
    lr: Rate = None
    """Learning rate of the lines [cycles/voxel]; 0.384 steps of the grid of phase encodes (8e-3 of 48 of them) unless
    given, found best by benchmarks/joint_compare.py. Where --init is a file it grows from nothing over a quarter of the
    steps."""


@dataclasses.dataclass(frozen=True)
class JointTrajectoryOptions(TrajectoryOptions):
    """How k-space is sampled."""

    usual_samples = 0

    lines: Count = None
    """Number of readouts, a multiple of --echoes; 768 unless --acceleration or a file is given."""
    samples: Count = None
    """Samples of a readout; NX unless given, here or in a file of --init."""


@dataclasses.dataclass(frozen=True)
class LearnOptions:
    """What learning may change."""

    learn: Literal["joint", "lines", "flips"] = "joint"
    """Both halves of the design, or one of them."""
    compare: bool = False
    """Learn the other two as well, from the same starts with one budget, and compare them with the start."""
    lr_flips: Rate = None
    """Learning rate of the flips [rad]; --lr is that of the lines. 6e-2 unless given."""
    exchange_every: Annotated[int, within(0, 10**7)] = 0
    """Steps between exchanges of echoes among lines by linear assignment; 0 for none."""

    def check(self) -> None:
        if self.exchange_every and self.learn == "flips":
            raise usage_error("--exchange-every", f"{self.exchange_every} with --learn flips", "joint or lines")
        if self.lr_flips is not None and self.learn == "lines" and not self.compare:
            raise usage_error("--lr-flips", f"{self.lr_flips:g} with --learn lines", "joint or flips")


@dataclasses.dataclass(frozen=True)
class JointOptions:
    """Learn where readout lines lie and the flip angles of the echo trains that acquire them, with one gradient.

    Every line is acquired at an echo of a train, so flips weight k-space and positions decide what each echo is
    used for. Results go to a folder: design.npz, summary.json, history.csv, figures. Examples:

    python -m acqdesign.learn_joint

    python -m acqdesign.learn_joint --compare

    python -m acqdesign.learn_joint --learn flips --rms-flip-deg 60 --te-eff-ms 100

    python -m acqdesign.learn_joint --shape 48 48 32 --coils 4 --lines 384 --system generic
    """

    scene: TissueSceneOptions = dataclasses.field(default_factory=TissueSceneOptions)
    trajectory: JointTrajectoryOptions = dataclasses.field(default_factory=JointTrajectoryOptions)
    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    limit: LimitOptions = dataclasses.field(default_factory=LimitOptions)
    scanner: ScannerOptions = dataclasses.field(default_factory=ScannerOptions)
    term: TermOptions = dataclasses.field(default_factory=TermOptions)
    recon: ReconstructionOptions = dataclasses.field(default_factory=ReconstructionOptions)
    goal: LearnOptions = dataclasses.field(default_factory=LearnOptions)
    run: JointRunOptions = dataclasses.field(default_factory=JointRunOptions)


def build(options: JointOptions) -> dict[str, Any]:
    """The problem that the options stand for, and how it is run."""
    scene_options, lines, file = with_file(options.scene, options.trajectory)
    options = dataclasses.replace(options, scene=scene_options, trajectory=lines, train=options.train.with_file())
    run, train, goal = options.run, options.train, options.goal
    run.refuse_lbfgs(scene_options)
    run.refuse_size(scene_options, lines, LINES)
    start_key, held_key = jax.random.split(run.key)
    scene = scene_options.load(run.dtype)
    held = scene_options.load(run.dtype, held_key, held=True)
    assert scene.maps is not None
    assert held.tissue is not None
    # With other relaxation times.
    times = (held.tissue.t1 * HELD_OUT["t1"], held.tissue.t2 * HELD_OUT["t2"])
    tissue = eqx.tree_at(lambda t: (t.t1, t.t2), held.tissue, times)
    held = eqx.tree_at(lambda s: (s.tissue, s.ensemble), held, (tissue, tissue))
    usual = train.kind.usual_limits()
    if usual.rms is not None:
        usual = dataclasses.replace(usual, rms=rad_from_deg(RMS_DEG))
    limits = options.limit.make(usual, train.echoes or 2**31, train.spacing_ms, options.scanner.system)
    starts = [_start(options, scene, file, jax.random.fold_in(start_key, n), limits) for n in range(run.starts)]
    first = starts[0]
    if (options.recon.rank or 0) > len(scene.maps):
        raise usage_error("--rank", options.recon.rank, f"at most {len(scene.maps)}, the number of tissue classes")
    reconstruction = options.recon.make("prior")
    whole = run.whole or bool(options.term.term)
    some = scene_options.per_step(scene, first.trajectory, reconstruction, whole=whole)
    problem = Problem(
        scene,
        first.trajectory,
        first.sequence,
        terms=options.term.make("squared_error" if some else "nrmse"),
        reconstruction=reconstruction,
        limits=[*options.limit.of(first.sequence, limits), *train.time_limits(first.sequence)],
        noise=scene_options.noise,
        order=None,
        learn=HALVES[goal.learn],
        **some,
    )
    optimizer = run.make_optimizer(run.lr)
    if run.optimizer != "lbfgs":
        rates = {"trajectory": run.line_rate(scene, GRID_STEPS), "sequence": goal.lr_flips or FLIP_RATE}
        made = {half: run.make_optimizer(rate, gentle=lines.from_file) for half, rate in rates.items()}
        optimizer = per_half(made)
    elif goal.lr_flips is not None:
        raise usage_error("--lr-flips", f"{goal.lr_flips:g} with --optimizer lbfgs", "nothing", "See --lr.")
    others = [name for name in HALVES if name != goal.learn] if goal.compare else []
    return {
        "problem": problem,
        "starts": starts,
        "key": jax.random.split(jax.random.fold_in(run.key, 7))[0],
        "optimizer": optimizer,
        "held": Held(held, HELD_OUT["noise"] * scene_options.noise),
        "beside": {name: problem.learning(*HALVES[name]) for name in others} if goal.compare else None,
        "name": goal.learn,
        "exchange_every": goal.exchange_every,
        "mesh": run.mesh(problem, held),
    }


def _start(options: JointOptions, scene: Scene, held: Mapping[str, np.ndarray], key: Any, limits: Any) -> Design:
    """One start: a train, and lines in the order of its echoes; `held` is the design in the file of `--init`."""
    run, train, lines = options.run, options.train, options.trajectory
    pattern_key, order_key = jax.random.split(key)
    if lines.lines is None and lines.acceleration is None and not lines.from_file and lines.init != "full":
        lines = dataclasses.replace(lines, lines=LINES)
    if lines.init is None and lines.trajectory == "lines":
        lines = dataclasses.replace(lines, init="poisson")
    more: dict[str, Any] = {}
    if lines.trajectory == "lines" and options.scanner.system is not None:
        samples, esp = lines.samples or scene.shape[0], train.spacing_ms or 10.0
        more["half_width"] = options.scanner.half_width(scene, samples, esp, options.limit.pulse_ms)
    assert scene.tissue is not None
    sequence: Any = train.make(scene.tissue, order_key, limits, train.start)
    trajectory = lines.make(scene, pattern_key, deterministic=run.deterministic, held=held, **more)
    if lines.trajectory != "lines":
        trajectory = options.scanner.played(trajectory, scene)
    if train.ordering is None and train.start is None and {"train", "echo", "flips_rad"} <= set(held):
        sequence = _of_file(options, held, sequence)
        ordered = trajectory.permuted(np.lexsort((held["echo"], held["train"])))
    else:
        name, te_echo = train.ordering or "random", getattr(sequence, "te_echo", 0)
        ordered = trajectory.ordered(name, sequence.readouts(), te_echo=te_echo, key=order_key)
    return Design(ordered, options.limit.as_learned(sequence))


def _of_file(options: JointOptions, held: Mapping[str, np.ndarray], sequence: Any) -> Any:
    """The sequence with the flips of the file of `--init`, whose trains it must play."""
    train = options.train
    echoes, esp, what = len(held["flips_rad"]), float(held.get("esp_s", math.nan)), f"that of {options.trajectory.init}"
    remedy = "Or give --ordering or --start, which take its lines alone."
    if train.sequence != "fse":
        raise usage_error("--sequence", train.sequence, f"{what}, fse", remedy)
    if sequence.readouts() != echoes:
        raise usage_error("--echoes", sequence.readouts(), f"{what}, {echoes}", remedy)
    if not np.isclose(float(sequence.esp), esp, rtol=1e-4):
        raise usage_error("--esp-ms", train.esp_ms, f"{what}, {ms_from_s(esp):.6g}", remedy)
    if not np.array_equal(np.bincount(held["echo"], minlength=echoes), np.full(echoes, len(held["echo"]) // echoes)):
        raise usage_error("--init", f"{options.trajectory.init}, whose trains are not full", "a line an echo", remedy)
    return eqx.tree_at(lambda s: s.flips, sequence, jnp.asarray(held["flips_rad"], sequence.flips.dtype))


main = learner("learn_joint", JointOptions, build)

if __name__ == "__main__":
    leave(main())
