"""The one driver: learns a problem, judges what it found, and writes and draws it."""

import contextlib
import dataclasses
import functools
import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from acqdesign import optim
from acqdesign.base.checks import check_count, check_key, usage_error
from acqdesign.base.files import write_history, write_json, write_npz
from acqdesign.base.sharding import is_main_process, peak_memory_bytes, place
from acqdesign.base.trees import leaf_names, node, with_node
from acqdesign.base.types import Array, Image, PRNGKey, Scalar
from acqdesign.base.units import deg_from_rad, ms_from_s
from acqdesign.design import terms as of
from acqdesign.design.exchange import exchange_step
from acqdesign.design.figures import deviation_of, drawn_by_itself, shown
from acqdesign.design.folder import environment, run_folder
from acqdesign.design.problem import Design, Problem, bounds_of, by_tissue, names_of, stacked
from acqdesign.design.scan import name_of
from acqdesign.design.terms import Term
from acqdesign.export import write_design
from acqdesign.optim.fit import FINISHED, SETTLED, NonFiniteError
from acqdesign.optim.history import verdict
from acqdesign.plot import write_run
from acqdesign.plot.schedule import schedule_scores
from acqdesign.scene import Scene

GRID_STEPS, FLIP_RATE = 0.28, 6e-2
"""Learning rates unless given: of positions in steps of the grid of phase encodes, and of flips [rad]."""
REALISATIONS, VOXELS = 16, 2**18
"""Of noise that designs are judged under at most, which see so many voxels together."""
CURVE, CURVE_PLANES = 10, 32
"""Points of the held-out curve, and planes that it looks at where steps take some."""


@dataclasses.dataclass(frozen=True)
class Held:
    """What designs are judged on beside what they were learned on."""

    scene: Scene
    """Of the problem's form."""
    noise: float | None = None
    """Standard deviation of each part of a sample; the problem's unless given."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a run found."""

    problem: Problem
    design: Design
    """The learned one."""
    start: Design
    """What is compared with: the first start, projected as learning does."""
    origin: Design
    """The start that the learned design came from."""
    result: optim.FitResult
    beside: dict[str, Design]
    """Designs that were learned for comparison."""
    snapshots: tuple[np.ndarray, list[Design]]
    """Steps, and designs along the way."""
    history: dict[str, np.ndarray]
    """The log, with what was held out where it was looked at."""
    out: Path | None
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What `summary.json` says of the learned design and of the start."""
    images: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Reconstructions of the first anatomy, by design."""


class _Objective(eqx.Module):
    """The loss of a problem as `fit` wants it: of what is learned, and of the arrays of the design it started from."""

    problem: Problem
    form: Design  # all of a design but its arrays

    def __call__(self, learned: Design, key: PRNGKey, arrays: Design) -> tuple[Scalar, dict[str, Scalar]]:
        own = eqx.combine(arrays, self.form)
        return self.problem.loss(eqx.combine(learned, self.problem.split(own)[1]), key, own)


def adam(steps: int, *, trajectory: float = 1e-2, sequence: float = FLIP_RATE) -> optax.GradientTransformation:
    """Adam with a cosine schedule and a rate for each half.

    Args:
        steps: length of the run.
        trajectory: rate of its arrays [cycles/voxel].
        sequence: rate of its arrays [rad].
    """
    rates = {"trajectory": trajectory, "sequence": sequence}
    decays = {half: optax.cosine_decay_schedule(rate, steps) for half, rate in rates.items()}
    return per_half({half: optax.adam(decay) for half, decay in decays.items()})


def per_half(optimizers: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """An optimiser for each half of a design, by `trajectory` and `sequence`."""
    labels = functools.partial(jax.tree_util.tree_map_with_path, lambda path, _: path[0].name)
    return optax.multi_transform(dict(optimizers), labels)


def learn(
    problem: Problem,
    steps: int,
    *,
    optimizer: optax.GradientTransformation | None = None,
    starts: Sequence[Design] | None = None,
    key: PRNGKey | None = None,
    exchange_every: int = 0,
    callbacks: Sequence[optim.Callback] = (),
    mesh: Mesh | None = None,
) -> tuple[optim.FitResult, Design, list[Design]]:
    """Learns a problem without writing anything.

    Args:
        problem: what is to be designed.
        steps: optimisation steps.
        optimizer: any optax transformation of a `Design`; `adam(steps)` with a rate by the scene's grid unless given.
        starts: designs to start from side by side; the problem's own unless given.
        key: of noise and poses.
        exchange_every: steps between exchanges of echoes among readouts; 0 for none.
        callbacks: see `acqdesign.optim.callbacks`.
        mesh: devices to split the scene over; all processes call this together.

    Returns:
        What the fit found, the learned design, and all starts, projected as learning does.
    """
    begin = list(starts or [problem.design])
    several = len(begin) > 1
    grid = 28 if problem.trajectory is None else max(problem.scene.shape[1:])
    optimizer = optimizer or adam(steps, trajectory=GRID_STEPS / grid)
    key = jax.random.key(0) if key is None else key
    check_key("key", key)
    for axis, count in zip(("anatomies", "planes"), problem.of_a_step or (), strict=False):
        if mesh is not None and count % mesh.shape.get(axis, 1):
            what = f"{axis}={mesh.shape[axis]} with {count} {axis} a step"
            raise usage_error("mesh", what, f"a divisor of {count} for {axis}", f"Or another {axis}_per_step.")
    for design in begin:
        if not jax.tree.leaves(problem.split(design)[0]):
            raise usage_error("problem", "nothing to learn", "a float array that is not held")
    own = stacked(begin) if several else begin[0]
    arrays, form = eqx.partition(own, eqx.is_array)

    def project(learned: Design, arrays: Design) -> Design:
        return problem.project(learned, eqx.combine(arrays, form))

    if exchange_every:
        change = exchange_step(problem, jax.random.fold_in(key, 1), own)
        callbacks = [optim.Between(change, exchange_every), *callbacks]
    try:
        result = optim.fit(
            place(mesh, _Objective(problem.prepared(), form)), problem.split(own)[0],
            optimizer=optimizer, steps=steps, key=key, project=project, starts=len(begin) if several else None,
            given=arrays, callbacks=callbacks, mesh=mesh,
        )  # fmt: skip
    except NonFiniteError as error:
        learned = jax.tree.map(lambda leaf: jnp.asarray(leaf[0] if several else leaf), error.params)
        broken = _not_finite(problem, eqx.combine(learned, problem.split(begin[0])[1]), key)
        raise NonFiniteError(error.step, broken + error.terms, error.params, error.saved) from None
    nearest = eqx.filter_jit(Problem.project)
    parts = [(*problem.split(design), design) for design in begin]
    projected = [eqx.combine(nearest(problem, moves, design), rest) for moves, rest, design in parts]
    learned = jax.tree.map(jnp.asarray, result.params)
    design = eqx.combine(learned, parts[result.start][1])
    if design.trajectory is not None:
        design = eqx.tree_at(lambda design: design.trajectory, design, design.trajectory.finished())
    return result, design, projected


def _not_finite(problem: Problem, design: Design, key: PRNGKey) -> list[str]:
    """Which seams of a problem give numbers that are not finite, by name."""

    @eqx.filter_jit
    def parts(problem: Problem, design: Design, key: PRNGKey) -> dict[str, Any]:
        scan, found = problem.scan(design, key), {}
        if scan.sequence is not None:
            found[f"{type(scan.sequence).__name__}.signal"] = scan.signal
        if scan.trajectory is not None:
            # Where it is straight lines, of their positions.
            found[f"{type(scan.trajectory).__name__}.coordinates"] = scan.trajectory.operator(scan.scene)
            found[f"reconstruction {name_of(problem.reconstruction)}"] = scan.image
        return found

    named = parts(problem, design, key).items()
    inexact = {name: jax.tree.leaves(eqx.filter(part, eqx.is_inexact_array)) for name, part in named}
    return [name for name, arrays in inexact.items() if not all(np.isfinite(array).all() for array in arrays)]


@eqx.filter_jit
def judge(problem: Problem, design: Design, key: PRNGKey, count: Array) -> tuple[dict[str, Array], Image | None]:
    """All terms of a problem, averaged over `count` realisations of the noise, and the first image of the first."""
    keys = jax.random.split(key, REALISATIONS)

    @jax.jit  # traced once
    def once(key: PRNGKey) -> tuple[dict[str, Array], Image | None]:
        scan = problem.scan(design, key)
        _, found = problem.terms(scan)
        return found, scan.image[0] if problem.trajectory is not None else None

    def add(n: Array, sums: Any) -> Any:
        found, image = once(keys[n])
        first = jax.tree.map(lambda new, old: jnp.where(n == 0, new, old), image, sums[1])
        return jax.tree.map(jnp.add, sums[0], found), first

    zero = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(once, keys[0]))
    total, image = jax.lax.fori_loop(0, count, add, zero)
    return {name: value / count for name, value in total.items()}, image


def report_terms(problem: Problem) -> Term:
    """What designs are judged by: the problem's own terms, and those that are usual for its halves."""
    usual: list[Term] = []
    if problem.trajectory is not None:
        usual += [of.nrmse(), of.psnr(), of.similarity(), *[of.noise()] * problem.noisy]
        if problem.sequence is not None:
            usual += [of.width(), of.side_lobes(), of.deviation("t2"), of.deviation("t1")]
    extra = [part for term in usual for part in term.parts if part[1] not in problem.terms.names]
    return Term(*problem.terms.parts, *extra)


def run(
    problem: Problem,
    steps: int = 100,
    *,
    out: Path | str | None = None,
    optimizer: optax.GradientTransformation | None = None,
    starts: int | Sequence[Design] = 1,
    key: PRNGKey | None = None,
    held: Held | Scene | None = None,
    judged_by: Any = None,
    beside: Mapping[str, Problem] | None = None,
    name: str = "learned",
    exchange_every: int = 0,
    checkpoint_every: int = 100,
    checkpoint_minutes: float | None = 10.0,
    max_minutes: float | None = None,
    early_stop: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    figures: bool = True,
    progress: bool = True,
    mesh: Mesh | None = None,
    config: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
    files: Sequence[str] = (),
    callbacks: Sequence[optim.Callback] = (),
) -> Found:
    """Learns a problem, judges what was found on what was learned on and on what was not, and writes and draws it.

    Args:
        problem: what is to be designed.
        steps: optimisation steps, those of a resumed run included.
        out: folder for the results: `config.json`, `design.npz`, `history.csv`, `summary.json`, figures and
            checkpoints. None writes nothing.
        optimizer: as of `learn`.
        starts: how many to learn side by side, the best being kept, or the designs to start from.
        key: of every random choice.
        held: what is judged on and never learned on; the scene in other poses, where it has them, unless given.
        judged_by: the reconstruction to judge by; the problem's own unless given.
        beside: further problems by name, learned with the same budget from the same starts, to compare with.
        name: of the problem's own design in the comparison.
        exchange_every: as of `learn`.
        checkpoint_every: steps between checkpoints.
        checkpoint_minutes: a step that ends this long after the last checkpoint writes one too.
        max_minutes: stop learning, save and report after so long.
        early_stop: stop where what is left would gain nearly nothing; see `optim.Settled`.
        resume: continue the run in `out` from its newest checkpoint.
        overwrite: replace the run in `out`.
        figures: draw figures and the animation.
        progress: draw a progress bar and say what is learned, on standard error.
        mesh: as of `learn`.
        config: what `config.json` says of where the problem is from.
        identity: what a resumed run must have in common with its checkpoints, by name.
        files: what was understood of each file that was read, for `summary.json`.
        callbacks: further ones.

    Returns:
        What was found; arrays are JAX's.

    Raises:
        UsageError: wrong input, before anything is written.
        NonFiniteError: every start has broken; names the part of the problem that gave it.
        OSError: a file cannot be written.
    """
    check_count("steps", steps)
    key = jax.random.key(0) if key is None else key
    check_key("key", key)
    fit_key, judge_key, held_key, start_key = (jax.random.fold_in(key, n) for n in range(4))
    begin = _starts(problem, starts, start_key)
    held = _held(problem, held, held_key)
    folder: Any = contextlib.nullcontext(None)
    if out is not None:
        told = {"command": None, "options": {}, **(config or {}), **environment()}
        folder = run_folder(Path(out), told, overwrite=overwrite, resume=resume)
    elif resume:
        raise usage_error("resume", "True without out", "the folder of the run to continue")
    with folder as place_of:

        def watch(where: str, shots: optim.Snapshots | None, resume: bool) -> list[optim.Callback]:
            found: list[optim.Callback] = [*callbacks, optim.StopOnSignal()]
            found += [] if max_minutes is None else [optim.TimeLimit(max_minutes)]
            found += [optim.Settled()] * early_stop
            found += [] if shots is None else [shots]
            if place_of is not None:
                own = {**(identity or {}), "folder": where}
                policy: dict[str, Any] = {"minutes": checkpoint_minutes, "config": own, "resume": resume}
                found.append(optim.Checkpoints(place_of / where, checkpoint_every, **policy))
            return found + [optim.Progress()] * progress

        if progress and is_main_process():
            said = ", ".join(f"{leaf} {shape}" for leaf, shape in problem.learned().items())
            print(f"learning {said}", file=sys.stderr)
        shots = optim.Snapshots(max(1, steps // 50))
        same: dict[str, Any] = {"optimizer": optimizer, "starts": begin, "key": fit_key, "mesh": mesh}
        learning = functools.partial(learn, steps=steps, exchange_every=exchange_every, **same)
        result, design, from_ = learning(problem, callbacks=watch("checkpoint", shots, resume))
        others: dict[str, Design] = {}
        for other, its in (beside or {}).items():
            if result.stopped not in (FINISHED, SETTLED):
                break
            where = f"checkpoint-{other}"
            there = [] if place_of is None else list((place_of / where).glob("step-*"))
            again = resume and any(path.suffix == ".json" for path in there)
            if not again and is_main_process():
                for old in there:
                    old.unlink()
            more, others[other], _ = learning(its, callbacks=watch(where, None, again))
            if more.stopped not in (FINISHED, SETTLED):
                result = dataclasses.replace(result, stopped=more.stopped)
        taken = jax.tree.map(jnp.asarray, shots.of(None if len(begin) == 1 else result.start))
        along = shots.steps(), [eqx.combine(learned, problem.split(design)[1]) for learned in taken]
        found = Found(
            problem, design, from_[0], from_[result.start], result, others, along, dict(result.history), place_of
        )
        if not is_main_process():
            return found
        found = _judged(found, held, judged_by, judge_key, name if beside is not None else None)
        if place_of is not None:
            summary = _write(found, files)
            if figures:
                arrays = shown(found)
                write_npz(place_of / "figures.npz", arrays)
                rows = schedule_scores(summary, arrays)
                if rows:
                    told = {text: {"start": before, "learned": after} for text, before, after, *_ in rows}
                    write_json(place_of / "summary.json", summary | {"schedule": told})
                write_run(place_of, instead=drawn_by_itself(found.design.trajectory))
        return found


def _starts(problem: Problem, starts: int | Sequence[Design], key: PRNGKey) -> list[Design]:
    if not isinstance(starts, int):
        return list(starts)
    check_count("starts", starts)
    found = [problem.design]
    for n in range(1, starts):
        keys = jax.random.split(jax.random.fold_in(key, n))
        trajectory, sequence = problem.trajectory, problem.sequence
        if trajectory is not None and "trajectory" in problem.learn:
            trajectory = _another(trajectory, problem.scene, keys[0], lines=trajectory.readouts())
        if sequence is not None and "sequence" in problem.learn:
            sequence = _another(sequence, problem.scene.tissue, keys[1], echoes=sequence.readouts())
        found.append(problem.in_order(Design(trajectory, sequence), keys[0]))
    return found


def _another(part: Any, thing: Any, key: PRNGKey, **more: Any) -> Any:
    """The part with the arrays of another start of its kind, which is told the part's own numbers that it takes."""
    takes = inspect.signature(type(part).start).parameters
    own = {name: getattr(part, name, None) for name in takes}
    given = {name: value for name, value in own.items() if isinstance(value, int | float)} | more | {"start": "random"}
    made = type(part).start(thing, key, **{name: value for name, value in given.items() if name in takes})
    for name, leaf in leaf_names(eqx.filter(part, eqx.is_array)).items():
        new = node(made, name)
        if getattr(new, "shape", None) != leaf.shape:
            what = f"{type(part).__name__}.start that gives another {name} than the problem's, {leaf.shape}"
            raise usage_error("starts", what, "a start like it", "Or give the designs to start from.")
        part = with_node(part, name, new.astype(leaf.dtype))
    return part


def _held(problem: Problem, held: Held | Scene | None, key: PRNGKey) -> Held | None:
    if held is None and problem.trajectory is not None and problem.scene.reposed is not None:
        held = problem.scene.reposed(key)
    return Held(held) if isinstance(held, Scene) else held


def _judged(found: Found, held: Held | None, judged_by: Any, key: PRNGKey, compared: str | None) -> Found:
    problem, result = found.problem, found.result
    numbers: dict[str, Any] = {}
    images: dict[str, np.ndarray] = {}
    history = dict(found.history)
    if problem.trajectory is not None:
        judging = problem.judged_by(report_terms(problem), judged_by)
        own = judging.judged_on(problem.scene)
        other = None if held is None else judging.judged_on(held.scene, held.noise)
        enough = VOXELS // math.prod(problem.scene.shape)
        count = jnp.int32(max(1, min(REALISATIONS, enough)) if problem.noisy else 1)
        designs = {"start": found.start, "learned": found.design, **found.beside}
        scores = {name: _scores(own, other, design, key, count) for name, design in designs.items()}
        for name, (score, image) in scores.items():
            images[name] = np.asarray(image)
            if judged_by is None:
                score["loss"] = sum(weight * score[part] for weight, part, _ in problem.terms.parts)
        numbers |= {f"initial_{n}": v for n, v in scores["start"][0].items()} | scores["learned"][0]
        if compared is not None:
            named = {"none": "start", compared: "learned", **{name: name for name in found.beside}}
            numbers["compare"] = {name: scores[source][0] for name, source in named.items()}
        if other is not None:
            history |= _curve(found, other, key)
        if problem.of_a_step and "loss" in numbers:  # on all of the scene, in place of a part
            first, last = numbers["initial_loss"], numbers["loss"]
            history["loss_on_all"] = np.full(len(history["loss"]), np.nan)
            history["loss_on_all"][[0, -1]] = first, last
            held_to = verdict(np.array([first, *history["loss"][1:-1], last]))
            result = dataclasses.replace(result, initial_loss=first, final_loss=last, verdict=held_to)
    if problem.sequence is not None:
        numbers |= _of_sequence(found)
    return dataclasses.replace(found, result=result, numbers=numbers, images=images, history=history)


def _scores(
    own: Problem, other: Problem | None, design: Design, key: PRNGKey, count: Array
) -> tuple[dict[str, float], Image]:
    terms, image = judge(own, design, key, count)
    score = {name: float(value) for name, value in terms.items()}
    if other is not None:
        terms, _ = judge(other, design, key, count)
        score |= {f"{name}_held_out": float(value) for name, value in terms.items()}
        score["gap"] = score["nrmse_held_out"] - score["nrmse"]
    assert image is not None
    return score, image


def _curve(found: Found, other: Problem, key: PRNGKey) -> dict[str, np.ndarray]:
    """The held-out error along the way, at some of the logged steps, on some planes of a large volume."""
    steps, designs = found.snapshots
    planes = other.scene.shape[0]
    if found.problem.of_a_step and planes > CURVE_PLANES and found.problem.trajectory.planes_apart(other.scene):
        spread = (np.arange(CURVE_PLANES) + 0.5) * planes / CURVE_PLANES
        other = other.judged_on(other.scene.part(planes=spread.astype(int)))
    column = np.full(len(found.history["step"]), np.nan)
    for n in np.unique(np.linspace(0, len(steps) - 1, CURVE).round().astype(int)):
        at = np.flatnonzero(found.history["step"] == steps[n])
        if at.size:
            column[at[-1]] = float(judge(other, designs[n], key, jnp.int32(1))[0]["nrmse"])
    return {"nrmse_held_out": column}


def _of_sequence(found: Found) -> dict[str, Any]:
    """Power and duration of both sequences, and their bounds by tissue where bounds are learned for."""
    numbers: dict[str, Any] = {}
    for prefix, design in (("initial_", found.start), ("", found.design)):
        sequence = optim.resolve(design.sequence)
        flips = getattr(sequence, "flips", None)
        if flips is not None and jnp.ndim(flips) == 1:
            degrees = deg_from_rad(np.asarray(flips, float))
            numbers |= {
                f"{prefix}rms_flip_deg": float(np.sqrt(np.mean(degrees**2))),
                f"{prefix}largest_step_deg": float(np.abs(np.diff(degrees)).max(initial=0.0)),
                f"{prefix}relative_power": float(np.sum((degrees / 180) ** 2)),
            }
        if hasattr(sequence, "duration"):
            numbers[f"{prefix}scan_s"] = float(sequence.duration())
    targets = found.problem.terms.bound_targets()
    if targets:
        before, after = (np.asarray(bounds_of(found.problem, d, targets)) for d in (found.start, found.design))
        names = names_of(found.problem.scene.ensemble, after.shape[-1])
        each = zip(names, by_tissue(before).tolist(), by_tissue(after).tolist(), strict=True)
        numbers["bounds"] = {tissue: {"start": start, "learned": learned} for tissue, start, learned in each}
        numbers["gain"] = float(before.mean() / after.mean())
        numbers["gain_worst"] = float(before.max() / after.max())
    return numbers


def _write(found: Found, files: Sequence[str]) -> dict[str, Any]:
    """Writes all but the figures, and returns what `summary.json` says."""
    out, scene, problem, result = found.out, found.problem.scene, found.problem, found.result
    assert out is not None
    write_history(out / "history.csv", found.history)
    entries = found.design.entries()
    if problem.trajectory is not None:
        entries |= {"shape": scene.shape, "fov_m": scene.fov}
        if problem.sequence is not None:
            at, echoes = np.arange(problem.trajectory.readouts()), problem.sequence.readouts()
            entries |= {"train": at // echoes, "echo": at % echoes}
    write_design(out / "design.npz", entries)
    names = "initial_loss final_loss seconds_per_step compile_seconds steps stopped verdict"
    summary = {name: getattr(result, name) for name in names.split()} | ({"files": list(files)} if files else {})
    if result.start_losses is not None:
        summary |= {"start": result.start, "start_losses": result.start_losses}
    if "compare" in found.numbers:
        write_json(out / "compare.json", found.numbers["compare"])
    summary |= {"peak_memory_bytes": peak_memory_bytes()} | found.numbers
    write_json(out / "summary.json", summary)
    return summary


def report(found: Found) -> None:
    """Prints what was found, how long it took and where the results are."""
    result, numbers = found.result, found.numbers
    print(f"loss {result.initial_loss:.4g} -> {result.final_loss:.4g}")
    if "compare" in numbers:
        print(f"{'design':>8}  NRMSE   held out")
        for name, score in numbers["compare"].items():
            print(f"{name:>8}  {score['nrmse']:.4f}  {score.get('nrmse_held_out', float('nan')):.4f}")
    else:
        for label, name in (("learned on", "nrmse"), ("held out", "nrmse_held_out")):
            if name in numbers:
                print(f"NRMSE, {label}: {numbers['initial_' + name]:.4f} -> {numbers[name]:.4f}")
    for name, bound in numbers.get("bounds", {}).items():
        ratio, noise = bound["start"] / bound["learned"], float(found.problem.noise) if found.problem.noisy else 1.0
        before, after = (math.sqrt(bound[which]) / noise for which in ("start", "learned"))
        change = f"{deviation_of(found.problem.terms.bound_targets())} {before:.3g} -> {after:.3g} %"
        print(f"{name}: {change} for noise of 1 % of M0 (÷ {ratio:.2f} in variance)")
    if "rms_flip_deg" in numbers:
        change = f"{numbers['initial_rms_flip_deg']:.2f} -> {numbers['rms_flip_deg']:.2f} deg"
        print(f"RMS flip {change}, largest step {numbers['largest_step_deg']:.2f} deg")
    # A resumed run that had ended takes no step.
    if math.isfinite(result.seconds_per_step):
        step, compiling = ms_from_s(result.seconds_per_step), result.compile_seconds
        print(f"{result.steps} steps, {step:.1f} ms each after {compiling:.1f} s of compilation")
    if result.stopped == SETTLED:
        print("stopped early: at the pace of the last steps the rest would gain less than 0.05 % (--no-early-stop)")
    if found.out is not None:
        print(f"results in {found.out}")
    named = {"stalled": "the loss did not fall", "diverged": "the loss rose"}
    if result.verdict in named and result.steps:
        change = f"{named[result.verdict]}, from {result.initial_loss:.4g} to {result.final_loss:.4g}"
        print(f"warning: {result.verdict}: {change}; try another --lr", file=sys.stderr)
