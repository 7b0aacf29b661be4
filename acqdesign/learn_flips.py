"""Learn flip angles that measure relaxation times well: `python -m acqdesign.learn_flips`."""

import dataclasses
import math
import sys
from typing import Any, Literal

import jax
import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.commands.devices import check_memory
from acqdesign.commands.options import (
    LimitOptions,
    RunOptions,
    SequenceOptions,
    Starts,
    Steps,
    TermOptions,
    TissueOptions,
)
from acqdesign.commands.own import takes
from acqdesign.commands.run import learner
from acqdesign.design import Design, Problem, Term, bound


@dataclasses.dataclass(frozen=True)
class FlipRunOptions(RunOptions):
    """How the run is made and where its results go."""

    steps: Steps = 150
    """Optimisation steps."""
    optimizer: str = "lbfgs"
    """Optimiser: adam, adamw, nadam, amsgrad, radam, adabelief, lion, rmsprop, sgd, momentum or lbfgs."""
    starts: Starts = 4
    """Starting points learned side by side; the best is kept. Bounds have many local minima."""


@dataclasses.dataclass(frozen=True)
class FlipTermOptions(TermOptions):
    """What the design is made for."""

    objective: Literal["t2", "t1", "t1t2"] | None = None
    """Relative Cramér–Rao bound of t2 (T1 known), t1 (T2 known) or t1t2 (their sum), M0 and its phase unknown.
    Unless given, t2 for fse, t1 for mprage, which T2 hardly reaches, t1t2 for others. --term takes its place."""
    ensemble: Literal["mean", "worst"] = "mean"
    """Of that bound over tissues and B1: mean, or worst case (a smooth maximum)."""

    def of(self, sequence: str) -> Term:
        """The terms for a sequence."""
        if self.term:
            for name, given in (("objective", self.objective), ("ensemble", self.ensemble != "mean")):
                if given:
                    raise usage_error(f"--{name}", "it with --term", "one of the two")
            return self.make()
        target = self.objective or {"fse": "t2", "mprage": "t1"}.get(sequence, "t1t2")
        reduce = "max" if self.ensemble == "worst" else "mean"
        return bound(*(name for name in ("t1", "t2") if name in target), reduce=reduce)


@dataclasses.dataclass(frozen=True)
class FlipOptions:
    """Learn the flip angles of an echo train, or of a fingerprinting schedule, for the tightest Cramér–Rao bounds.

    Gradients run through an extended phase graph simulation. Results go to a folder: design.npz (the flips),
    summary.json (bounds and times), history.csv and figures. Examples:

    python -m acqdesign.learn_flips --tissue wm,gm --field 3T

    python -m acqdesign.learn_flips --t1-ms 1000 --t2-ms 100 --rms-flip-deg 60 --starts 4

    python -m acqdesign.learn_flips --sequence mrf --echoes 400 --max-step-deg 1 --b1 0.8 1 1.2
    """

    train: SequenceOptions = dataclasses.field(default_factory=SequenceOptions)
    sample: TissueOptions = dataclasses.field(default_factory=TissueOptions)
    term: FlipTermOptions = dataclasses.field(default_factory=FlipTermOptions)
    limit: LimitOptions = dataclasses.field(default_factory=LimitOptions)
    run: FlipRunOptions = dataclasses.field(default_factory=FlipRunOptions)


def build(options: FlipOptions) -> dict[str, Any]:
    """The problem that the options stand for, and how it is run."""
    run, train = options.run, options.train.with_file()
    scene = options.sample.scene(run.dtype)
    assert scene.ensemble is not None
    kind, spins, pulses = train.kind, math.prod(scene.ensemble.shape), train.echoes or 1
    # Of every order, of which there are as many as pulses, the state and its derivatives by T1 and T2.
    need = 3 * 6 * np.dtype(run.dtype).itemsize * spins * pulses * run.starts
    check_memory(need, f"{pulses} pulses, {spins} tissues and B1, {run.starts} starts", "Fewer of one of them.")
    # Range and power of the starts; segments are checked once the number of pulses is known.
    plain = dataclasses.replace(options.limit, rising=(), falling=(), spline=None, symmetric=False)
    level = plain.make(kind.usual_limits(), 2**31, train.spacing_ms)
    assert scene.tissue is not None
    other = "comb" if train.sequence == "fse" else "random"
    names = [train.start, *[other if takes(kind.start, "start") else None] * (run.starts - 1)]
    made = [
        train.make(scene.tissue, key, level, name)
        for name, key in zip(names, jax.random.split(run.key, run.starts), strict=True)
    ]
    limits = options.limit.make(kind.usual_limits(), made[0].readouts(), train.spacing_ms)
    starts = [options.limit.as_learned(sequence) for sequence in made]
    every = [*options.limit.of(starts[0], limits), *train.time_limits(starts[0])]
    problem = Problem(scene, sequence=starts[0], terms=options.term.of(train.sequence), limits=every)
    return {
        "problem": problem,
        "starts": [Design(None, start) for start in starts],
        "key": run.key,
        "optimizer": run.make_optimizer(run.lr),
        "mesh": run.mesh(problem),
    }


main = learner("learn_flips", FlipOptions, build)

if __name__ == "__main__":
    sys.exit(main())
