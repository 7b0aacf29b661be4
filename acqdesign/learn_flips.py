"""Learn flip angles that measure relaxation times well: `python -m acqdesign.learn_flips`."""

import dataclasses
import math
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np

from acqdesign.base.checks import check_choice, usage_error
from acqdesign.commands.devices import check_memory
from acqdesign.commands.flags import flag
from acqdesign.commands.options import (
    LimitOptions,
    RunOptions,
    SequenceOptions,
    Starts,
    Steps,
    TermOptions,
    TissueOptions,
)
from acqdesign.commands.own import by_flags, takes
from acqdesign.commands.run import learner
from acqdesign.commands.streams import leave
from acqdesign.design import Design, Problem, Term, bound
from acqdesign.signal import Sequence
from acqdesign.signal.bounds import parameters_of


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

    objective: str | None = None
    """Relative Cramér–Rao bound of t2 (T1 known), t1 (T2 known) or t1t2 (their sum), or of parameters by name with
    commas: t1, t2, m0, b1, t2_prime, t1_rho, diffusivity. Unless given, of what the sequence is made to measure: t2
    for fse, t1 for mprage, which T2 hardly reaches, t1t2 for mrf, spgr and bssfp. --term takes its place."""
    nuisance: tuple[str, ...] = ("m0",)
    """What else is unknown in that bound: m0 (with its phase), t1, t2, b1, b0, t2_prime, t1_rho, diffusivity, or a
    number of the sequence, such as inversion_efficiency."""
    per_time: bool = False
    """That bound times the duration of the sequence [s]: what is reached in equal time."""
    ensemble: Literal["mean", "worst"] = "mean"
    """Of that bound over tissues and B1: mean, or worst case (a smooth maximum)."""

    def of(self, kind: type[Sequence]) -> Term:
        """The terms for a kind of sequence."""
        if self.term:
            default = {field.name: field.default for field in dataclasses.fields(self)}
            for name in ("objective", "ensemble", "nuisance", "per_time"):
                if getattr(self, name) != default[name]:
                    raise usage_error(flag(name), "it with --term", "one of the two")
            return self.make()
        asked = {"t1t2": ("t1", "t2"), None: kind.measures}.get(self.objective)
        targets = asked or tuple(name.strip() for name in str(self.objective).split(","))
        reduce = "max" if self.ensemble == "worst" else "mean"
        with by_flags({"targets": "--objective", "nuisance": "--nuisance"}):
            return bound(*targets, reduce=reduce, nuisance=self.nuisance, per_time=self.per_time)


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


_GIVEN_BY = {"t2_prime": "--t2-prime-ms", "t1_rho": "--t1-rho-ms", "diffusivity": "--adc-um2-ms"}


def build(options: FlipOptions) -> dict[str, Any]:
    """The problem that the options stand for, and how it is run."""
    run, train = options.run, options.train.with_file()
    scene = options.sample.scene(run.dtype)
    assert scene.ensemble is not None
    terms = options.term.of(kind := train.kind)
    for option, unknown in (("--objective", terms.bound_targets()), ("--nuisance", options.term.nuisance)):
        for name in (name for name in unknown if name in _GIVEN_BY and getattr(scene.ensemble, name) is None):
            raise usage_error(option, name, "what the tissue has", f"{_GIVEN_BY[name]} gives it.")
    spins, pulses = math.prod(scene.ensemble.shape), train.echoes or 1
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
    # Sequences without a choice of starts begin alike: once is enough.
    made = [made[0], *(other for other in made[1:] if not eqx.tree_equal(other, made[0]))]
    pulses = int(np.size(getattr(made[0], "flips", np.zeros(made[0].readouts()))))
    limits = options.limit.make(kind.usual_limits(), pulses, train.spacing_ms)
    for name in options.term.nuisance:
        check_choice("--nuisance", name, parameters_of(made[0]))
    starts = [options.limit.as_learned(sequence) for sequence in made]
    every = [*options.limit.of(starts[0], limits), *train.time_limits(starts[0])]
    problem = Problem(scene, sequence=starts[0], terms=terms, limits=every)
    return {
        "problem": problem,
        "starts": [Design(None, start) for start in starts],
        "key": run.key,
        "optimizer": run.make_optimizer(run.lr),
        "mesh": run.mesh(problem),
    }


main = learner("learn_flips", FlipOptions, build)

if __name__ == "__main__":
    leave(main())
