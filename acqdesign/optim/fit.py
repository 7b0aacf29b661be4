"""The fit loop: one compiled step, driven from the host and watched by callbacks.

Nothing here knows of MRI: a loss is a callable `loss(params, key) -> (scalar, terms)`.
"""

import dataclasses
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from acqdesign.base.checks import check_count, usage_error
from acqdesign.base.sharding import agree_on_stop, everywhere
from acqdesign.base.types import PRNGKey, PyTree
from acqdesign.optim.history import History, verdict
from acqdesign.optim.step import Loss, Record, State, compile_step, constrainer

FINISHED, SETTLED = "finished", "settled"


class NonFiniteError(ArithmeticError):
    """A loss, gradient or update that is NaN or infinite.

    Attributes:
        step: steps done when it appeared; the step from there failed.
        terms: names of what was not finite.
        params: the parameters that the failing step started from, finite, as NumPy arrays.
        saved: the checkpoint that they are in, if any.
    """

    def __init__(self, step: int, terms: list[str], params: PyTree, saved: Path | None = None):
        self.step, self.terms, self.params, self.saved = step, terms, params, saved
        text = f"step {step}: not finite: {', '.join(terms)}. The state before it is kept"
        super().__init__(text + (f" in {saved}." if saved else "."))


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a fit found; of several starts, everything but `start_losses` is that of the best one, `start`."""

    params: PyTree
    """Final parameters."""
    steps: int
    """Steps done."""
    initial_loss: float
    final_loss: float
    history: dict[str, np.ndarray]
    """`step`, `loss` and every named term, one entry a logged step: values before that step's update."""
    seconds_per_step: float
    """Median after compilation; NaN where no step was taken."""
    compile_seconds: float
    stopped: str
    """`finished`, or why a callback stopped it: `settled`, `time`, `SIGINT` or `SIGTERM`."""
    verdict: str
    """`improving`; `settled` (gained, but not in the last half); `stalled` (gained nothing); `diverged`."""
    start: int = 0
    start_losses: np.ndarray | None = None
    """`(starts,)` final loss of each, in the units of the loss; NaN for one that broke."""


class Callback:
    """What watches a fit; see `acqdesign.optim.callbacks`."""

    def begin(self, fit: "Fit") -> None:
        """Called before the first step, the state being that of the start."""

    def after(self, fit: "Fit") -> None:
        """Called after every step; may change `fit.state`, or set `fit.stop` to a reason."""

    def end(self, fit: "Fit") -> None:
        """Called after the last step."""

    def failed(self, fit: "Fit") -> Path | None:
        """Called where every start has broken; the file that the last good state went to, if any."""
        return None

    def close(self) -> None:
        """Called last, however the fit ended."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint should hold of it, by name."""
        return {}

    def restore(self, fit: "Fit", arrays: dict[str, np.ndarray]) -> None:
        """Takes from a checkpoint what `arrays` gave."""


@dataclasses.dataclass
class Fit:
    """A fit under way, as callbacks see it."""

    state: State
    steps: int
    """Steps in all."""
    starts: int | None
    key: PRNGKey
    callbacks: Sequence[Callback]
    log_every: int
    done: int = 0
    """Steps done."""
    stop: str = ""
    """Why to stop after this step; empty to go on."""
    record: Record | None = None
    """Of the last step, on the device."""
    history: History = dataclasses.field(default_factory=History)

    @property
    def logs(self) -> bool:
        """Whether the step just done is a logged one."""
        return (self.done - 1) % self.log_every == 0

    def look(self, needed: str = "") -> tuple[Record, np.ndarray]:
        """The record on the host with which starts are sound; an error where none is."""
        record = jax.device_get(self.record)
        checks = {name: finite for name, finite in record.finite.items() if name.startswith(needed)}
        sound = np.asarray(np.logical_and.reduce(list(checks.values())))
        if not sound.any():
            broken = [f"term {name!r}" for name, value in record.terms.items() if not np.isfinite(value).any()]
            broken += [name for name, finite in checks.items() if not finite.any()]
            state = jax.device_get(self.state)
            self.done = int(state.step.max())
            saved = [path for path in (callback.failed(self) for callback in self.callbacks) if path]
            raise NonFiniteError(self.done, broken, state.params, *saved[:1])
        return record, sound


def fit(
    loss: Loss,
    params: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: PRNGKey,
    project: Callable[..., PyTree] | None = None,
    starts: int | None = None,
    given: PyTree = None,
    callbacks: Sequence[Callback] = (),
    log_every: int = 1,
    mesh: Mesh | None = None,
) -> FitResult:
    """Minimises `loss` from `params`, one compiled step at a time.

    Step `n` is `params ← P(params + update(∇loss(params, fold_in(key, n))))`. A step whose loss, gradient or
    result is not finite changes nothing and is reported at the next log point.

    Args:
        loss: `loss(params, key) -> (scalar, terms)` with `terms` a dict of named scalars to log. Arrays
            in a loss that is a pytree (an equinox Module, `jax.tree_util.Partial`) are arguments of the
            compiled step rather than constants in it.
        params: pytree of float32 or float64 arrays; with `starts`, each has that many along its first axis.
        optimizer: any optax transformation; see `make_optimizer`.
        steps: steps in all, those of a resumed run included.
        key: typed key; every start sees the same sequence of keys.
        project: maps parameters to the nearest ones allowed, keeping structure, shapes and dtypes. The start
            is projected too.
        starts: number of starts fitted side by side by `vmap`; the result is the best.
        given: arrays that a start brings along and learning leaves as they are, with `starts` along their first axis
            too; the loss is then `loss(params, key, given)` and the projection `project(params, given)`.
        callbacks: what watches, saves and stops; see `acqdesign.optim.callbacks`.
        log_every: steps between log points, where the host looks at the numbers and otherwise does not.
        mesh: devices to work on, where the loss's own arrays have been placed (see `place`); parameters are whole on
            each. All processes call this together.

    Returns:
        A `FitResult`.

    Raises:
        UsageError: an argument is wrong, before anything runs.
        NonFiniteError: every start has broken; names the step and the terms, and holds the last good state.
    """
    check_count("steps", steps)
    check_count("log_every", log_every)
    _check(params, starts)
    constrain = constrainer(project)
    batched = jax.vmap if starts else lambda function, **axes: function
    extra = () if given is None else (given,)

    def initial(params: PyTree, *extra: PyTree) -> State:
        moved = batched(constrain)(params, *extra)
        return State(moved, batched(optimizer.init)(moved), jnp.zeros((starts,) if starts else (), jnp.int32))

    run = Fit(jax.jit(initial)(params, *extra), steps, starts, key, callbacks, log_every)
    try:
        for callback in run.callbacks:
            callback.begin(run)
        run.state, key, extra = everywhere(mesh, (run.state, run.key, extra))
        started = time.perf_counter()
        program = compile_step(loss, optimizer, constrain, run.state, key, extra, batched, mesh)
        compile_seconds = time.perf_counter() - started

        seconds = array("d")
        mark, since = time.perf_counter(), run.done
        while run.done < run.steps and not run.stop:
            run.state, run.record = program(key, run.state, extra, True)
            run.done += 1
            if run.logs:
                row, _ = run.look()
                jax.block_until_ready(run.state)
                seconds.append((time.perf_counter() - mark) / (run.done - since))
                run.history.add(run.done - 1, row)
            stepped = run.state
            for callback in run.callbacks:
                callback.after(run)
            run.stop = agree_on_stop(run.stop)
            if run.state is not stepped:
                run.state = everywhere(mesh, run.state)
            if run.logs:
                mark, since = time.perf_counter(), run.done
        if run.record is not None and not run.logs:
            run.look()
        for callback in run.callbacks:
            callback.end(run)
        run.state, run.record = program(key, run.state, extra, False)
        row, sound = run.look("loss")
        run.history.add(run.done, row)
        best = int(np.argmin(np.where(sound, row.loss, np.inf))) if run.starts else None
        log = run.history.columns(best)
        return FitResult(
            params=of_start(run.state.params, best),
            steps=run.done,
            initial_loss=float(log["loss"][0]),
            final_loss=float(log["loss"][-1]),
            history=log,
            seconds_per_step=float(np.median(seconds)) if seconds else float("nan"),
            compile_seconds=compile_seconds,
            stopped=run.stop or FINISHED,
            verdict=verdict(log["loss"]),
            start=best or 0,
            start_losses=None if best is None else np.asarray(row.loss),
        )
    finally:
        for callback in callbacks:
            callback.close()


def of_start(tree: PyTree, start: int | None) -> PyTree:
    """A copy on the host that outlives donated buffers, of one start or, without several, of all."""
    held = jax.tree.map(lambda leaf: np.array(jax.device_get(leaf), copy=True), tree)
    return held if start is None else jax.tree.map(lambda leaf: leaf[start], held)


def _check(params: PyTree, starts: int | None) -> None:
    if starts is not None:
        check_count("starts", starts)
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise usage_error("params", "a tree without arrays", "at least one array to learn")
    for leaf in leaves:
        if getattr(leaf, "dtype", None) not in (np.float32, np.float64):
            raise usage_error("params", leaf, "float32 or float64 arrays")
        if starts is not None and leaf.shape[:1] != (starts,):
            raise usage_error("params", leaf, f"a first axis of length starts={starts}")
