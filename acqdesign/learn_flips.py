"""Learn flip angles that measure relaxation times well: `python -m acqdesign.learn_flips`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign import plot
from acqdesign.base.checks import check_count, usage_error
from acqdesign.base.files import write_history
from acqdesign.base.sharding import leads, split_over
from acqdesign.base.types import Array
from acqdesign.base.units import deg_from_rad
from acqdesign.commands.flip_options import (
    DEFAULTS,
    PRESCRIBED,
    STARTS,
    LimitOptions,
    TissueOptions,
    TrainOptions,
    flip_limits,
    start_flips,
)
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
from acqdesign.design.flip_objectives import SPLIT, BoundObjective, Schedule, relative_bounds
from acqdesign.export import write_design
from acqdesign.optim import FitResult, ScheduleLimits, fit, project_entries, schedule_projection
from acqdesign.optim.parametrise import project_mean, spline_basis, spline_fit, spline_projection
from acqdesign.plot.bounds import plot_bound_map, plot_bounds, plot_fingerprints, plot_power
from acqdesign.plot.signals import plot_times

COMMAND = "learn_flips"
MAP_POINTS, MAP_B1 = 18, (0.8, 1.0, 1.2)
Judged = dict[str, tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class FlipRunOptions(RunOptions):
    """How the run is made and where its results go."""

    steps: int = 150
    """Optimisation steps."""
    optimizer: str = "lbfgs"
    """Optimiser: adam, adamw, nadam, amsgrad, radam, adabelief, lion, rmsprop, sgd, momentum or lbfgs."""
    starts: int = 4
    """Starting points learned side by side; the best is kept. Bounds have many local minima."""


@dataclasses.dataclass(frozen=True)
class FlipOptions:
    """Learn the flip angles of an echo train, or of a fingerprinting schedule, for the tightest Cramér–Rao bounds.

    Gradients run through an extended phase graph simulation. Results go to a folder: design.npz (the flips),
    summary.json (bounds and times), history.csv and figures. Examples:

    python -m acqdesign.learn_flips --tissue wm,gm --field 3T

    python -m acqdesign.learn_flips --t1-ms 1000 --t2-ms 100 --rms-flip-deg 60 --starts 4

    python -m acqdesign.learn_flips --sequence mrf --echoes 400 --max-step-deg 1 --b1 0.8 1 1.2
    """

    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    sample: TissueOptions = dataclasses.field(default_factory=TissueOptions)
    limit: LimitOptions = dataclasses.field(default_factory=LimitOptions)
    run: FlipRunOptions = dataclasses.field(default_factory=FlipRunOptions)


def _problem(options: FlipOptions) -> tuple[BoundObjective, dict[str, Array], Any, ScheduleLimits]:
    """The objective, the starts `(starts, …)`, the projection and the limits."""
    run, train, sample, dtype = options.run, options.train, options.sample, options.run.dtype
    count, spline = train.count, options.limit.spline
    limits = flip_limits(options.limit, train.sequence, count)
    kind = options.limit.start or DEFAULTS[train.sequence]["start"]
    if kind in PRESCRIBED and train.sequence != "fse":
        others = ", ".join(name for name in STARTS if name not in PRESCRIBED)
        raise usage_error("--start", f"{kind} with --sequence {train.sequence}", f"one of {others}")
    if spline is not None and not 2 <= check_count("--spline", spline) <= count:
        raise usage_error("--spline", spline, f"2 to {count} control points")
    project = (
        schedule_projection(limits, count) if spline is None else spline_projection(limits, count, spline)
    )
    keys = jax.random.split(jax.random.key(run.seed), run.starts)
    table = sample.table()
    kinds = [kind, *[DEFAULTS[train.sequence]["more"]] * (run.starts - 1)]
    tissue = next(iter(table.values()))
    starts = [start_flips(kind, train, tissue, limits, key) for kind, key in zip(kinds, keys, strict=True)]
    if spline is not None:
        starts = [np.asarray(spline_fit(flips, spline)) for flips in starts]
    entry = "flips" if spline is None else "control"
    params = {entry: jnp.asarray(np.stack(starts), dtype)}
    projections: dict[str, Any] = {entry: project}
    if train.learn_tr_ms:
        low, high = (time / train.tr for time in train.learn_tr_ms)
        params["tr"] = jnp.ones((run.starts, count), dtype)
        projections["tr"] = lambda x: project_mean(x, 1.0, lower=low, upper=high)
    if train.learn_ti_ms:
        first, last = (time / train.ti_ms for time in train.learn_ti_ms)
        params["ti"] = jnp.ones(run.starts, dtype)
        projections["ti"] = lambda x: jnp.clip(x, first, last)
    objective = BoundObjective(
        train.schedule(dtype, None if spline is None else spline_basis(count, spline)),
        *(np.asarray(times, dtype) for times in zip(*table.values(), strict=True)),
        b1=np.asarray(sample.b1, dtype),
        target=sample.objective or ("t2" if train.sequence == "fse" else "t1t2"),
        over=sample.ensemble,
        names=tuple(table),
    )
    return objective, params, project_entries(projections), limits


def _main(argv: Sequence[str] | None) -> int:
    options = parse_options(FlipOptions, argv, prog="python -m acqdesign.learn_flips")
    run = options.run
    objective, params, project, limits = _problem(options)
    many = run.starts > 1
    mesh = run.device.mesh_over({"tissues": len(objective.t1)})
    with run_directory(COMMAND, options) as out:
        result = fit(
            objective if mesh is None else split_over(mesh, objective, SPLIT),
            params if many else jax.tree.map(lambda leaf: leaf[0], params),
            key=jax.random.key(run.seed),
            project=project,
            mesh=mesh,
            **fit_arguments(run, out, describe(COMMAND, options)),
        )
        if not leads():
            return exit_code(result)
        first = jax.jit(project)(jax.tree.map(lambda leaf: leaf[0], params))
        final = jax.tree.map(jnp.asarray, result.params)
        write_history(out / "history.csv", result.history)
        write_design(out / "design.npz", _design(options, objective.schedule, final))
        judge = eqx.filter_jit(_judge)
        judged = {when: judge(objective, held) for when, held in (("start", first), ("learned", final))}
        numbers = _numbers(options, objective, first, final, judged)
        write_summary(out / "summary.json", result, **numbers)
        if not run.no_figures:
            _figures(options, out, objective, result, first, final, judged, limits)
        _report(out, result, numbers)
    return exit_code(result)


def _design(options: FlipOptions, schedule: Schedule, params: dict[str, Array]) -> dict[str, Any]:
    flips, (tr, ti) = schedule.flips(params), schedule.times(params)
    design = {"flips_rad": flips, "phases_rad": np.zeros(flips.size), "ti_s": ti}
    if schedule.esp is not None:
        # Refocusing about the axis that the excitation has turned the magnetisation to.
        times = np.arange(1, flips.size + 1) * float(schedule.esp)
        return design | {
            "tr_s": np.atleast_1d(tr), "te_s": times, "esp_s": schedule.esp,
            "excitation_rad": schedule.excitation,
        }  # fmt: skip
    spacing = np.broadcast_to(np.asarray(tr), flips.shape)
    if options.train.sequence == "bssfp":
        return design | {
            "tr_s": spacing,
            "te_s": 0.5 * spacing,
            "phases_rad": np.pi * (np.arange(flips.size) % 2),
        }
    return design | {"tr_s": spacing, "te_s": np.full(flips.size, float(schedule.te))}


def _judge(objective: BoundObjective, params: dict[str, Array]) -> tuple[Array, Array]:
    """Bounds `(fields, tissues)`, and the tissues' echoes at the nominal field."""
    one = jnp.ones((), objective.t1.dtype)
    return objective.bounds(params), objective.schedule.signal(params, objective.t1, objective.t2, one)


def _numbers(
    options: FlipOptions,
    objective: BoundObjective,
    first: dict[str, Array],
    final: dict[str, Array],
    judged: Judged,
) -> dict[str, Any]:
    """What `summary.json` says of both schedules; the first start stands for the start."""
    bounds = {when: np.asarray(found, float) for when, (found, _) in judged.items()}
    numbers: dict[str, Any] = {
        "bounds": {
            name: {when: float(found[:, i].mean()) for when, found in bounds.items()}
            for i, name in enumerate(objective.names)
        },
        "gain": float(bounds["start"].mean() / bounds["learned"].mean()),
        "gain_worst": float(bounds["start"].max() / bounds["learned"].max()),
    }
    for prefix, params in (("initial_", first), ("", final)):
        degrees = deg_from_rad(np.asarray(objective.schedule.flips(params), float))
        tr, ti = objective.schedule.times(params)
        pulses = 1 if options.train.sequence == "fse" else degrees.size
        numbers |= {
            f"{prefix}rms_flip_deg": float(np.sqrt(np.mean(degrees**2))),
            f"{prefix}largest_step_deg": float(np.abs(np.diff(degrees)).max()),
            f"{prefix}relative_power": float(np.sum((degrees / 180) ** 2)),
            f"{prefix}scan_s": float(
                np.sum(np.broadcast_to(np.asarray(tr, float), (pulses,))) + float(ti or 0)
            ),
        }
    return numbers


def _figures(
    options: FlipOptions,
    out: Path,
    objective: BoundObjective,
    result: FitResult,
    first: dict[str, Array],
    final: dict[str, Array],
    judged: Judged,
    limits: ScheduleLimits,
) -> None:
    schedule, names = objective.schedule, objective.names
    flips, start = schedule.flips(final), schedule.flips(first)
    write_figure(out / "flips.png", plot.plot_flips(flips, start=start))
    write_figure(out / "power.png", plot_power(flips, start=start, limit=limits.rms))
    # For noise of 1 % of M0 the root of the relative bound is a standard deviation in percent.
    quantity = {"t2": "σ(T2) / T2", "t1": "σ(T1) / T1", "t1t2": "root of sum of (σ/T)² over T1, T2"}
    label = f"{quantity[objective.target]} [%]\nfor noise of 1 % of $M_0$"
    write_figure(out / "loss.png", plot.plot_loss(result.history, label="relative bound"))

    (after, echoes), (before, echoes_before) = judged["learned"], judged["start"]
    bars = plot_bounds(after.mean(axis=0), names=names, start=before.mean(axis=0), label=label)
    write_figure(out / "bounds.png", bars)
    if schedule.esp is not None:
        train = plot.plot_echoes(echoes, names=names, esp_s=float(schedule.esp), start=echoes_before)
    else:
        train = plot_fingerprints(echoes, names=names, start=echoes_before)
    write_figure(out / "echoes.png", train)
    b1 = np.asarray(options.sample.b1 if len(options.sample.b1) > 1 else MAP_B1, options.run.dtype)
    t1, t2 = (
        np.geomspace(x.min() / 2, x.max() * 2, MAP_POINTS)
        for x in map(np.asarray, (objective.t1, objective.t2))
    )
    grid = jnp.meshgrid(*(jnp.asarray(axis, b1.dtype) for axis in (b1, t1, t2)), indexing="ij")
    possible = grid[2] <= grid[1]
    chart = eqx.filter_jit(
        lambda schedule, params: relative_bounds(
            schedule, params, grid[1], jnp.minimum(grid[1], grid[2]), grid[0], target=objective.target
        )
    )
    maps = [np.where(possible, np.asarray(chart(schedule, params)), np.nan) for params in (final, first)]
    figure = plot_bound_map(t1, t2, b1, *maps, tissues=options.sample.table(), label=label)
    write_figure(out / "bound_map.png", figure)
    if "tr" in final:
        write_figure(out / "tr.png", plot_times(schedule.times(final)[0]))


def _report(out: Path, result: FitResult, numbers: dict[str, Any]) -> None:
    for name, bound in numbers["bounds"].items():
        ratio = bound["start"] / bound["learned"]
        print(
            f"{name}: relative bound {bound['start']:.4g} -> {bound['learned']:.4g}, {ratio:.2f} times lower"
        )
    print(
        f"RMS flip {numbers['initial_rms_flip_deg']:.2f} -> {numbers['rms_flip_deg']:.2f} deg, "
        f"largest step {numbers['largest_step_deg']:.2f} deg"
    )
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
