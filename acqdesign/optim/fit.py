"""The fit loop shared by every learner: one small compiled step, driven, watched and saved from the host.

Nothing here knows of MRI: a loss is a callable `loss(params, key) -> (scalar, terms)`.
"""

import dataclasses
import signal
import sys
import threading
import time
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm.auto import tqdm

from acqdesign.base.checks import check_count, check_positive, usage_error
from acqdesign.base.sharding import agreed, leads, whole
from acqdesign.base.types import PRNGKey, PyTree
from acqdesign.optim.checkpoint import (
    arrays_from_tree,
    checkpoint_steps,
    load_checkpoint,
    save_checkpoint,
    tree_from_arrays,
)
from acqdesign.optim.history import History, verdict
from acqdesign.optim.step import Loss, Record, State, check_masks, compile_step, constrainer

Between = Callable[[int, PyTree, PyTree], tuple[PyTree, PyTree]]


class NonFiniteError(ArithmeticError):
    """A loss, gradient or update that is NaN or infinite.

    Attributes:
        step: steps done when it appeared; the step from there failed.
        terms: names of what was not finite.
        params: the parameters that the failing step started from, finite, as NumPy arrays.
    """

    def __init__(self, step: int, terms: list[str], params: PyTree, saved: Path | None = None):
        self.step, self.terms, self.params = step, terms, params
        text = f"step {step}: not finite: {', '.join(terms)}. The state before it is kept"
        super().__init__(text + (f" in {saved}." if saved else "."))


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """Where and how often a fit saves its state; it also does when interrupted and when it fails or ends."""

    directory: Path
    every: int = 100
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints that stay."""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Anything that JSON can hold, stored with each."""
    minutes: float | None = 10.0
    """A step that ends this long after the last checkpoint writes one too."""


class Snapshots(NamedTuple):
    """Parameters along the way: `params` has a leading axis that goes with `steps`."""

    steps: np.ndarray
    params: PyTree


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a fit found.

    Of several starts, everything but `start_losses` is that of the best one, `start`.
    """

    params: PyTree
    """Final parameters."""
    steps: int
    """Steps done."""
    initial_loss: float
    final_loss: float
    history: dict[str, np.ndarray]
    """`step`, `loss` and every named term, one entry a logged step: values before that step's update."""
    snapshots: Snapshots | None
    seconds_per_step: float
    """Median after compilation; NaN where no step was taken."""
    compile_seconds: float
    stopped: str
    """`finished`, `time` (`max_minutes`), `SIGINT` or `SIGTERM`."""
    verdict: str
    """`improving`; `settled` (gained, but not in the last half); `stalled` (gained nothing); `diverged`."""
    start: int = 0
    start_losses: np.ndarray | None = None
    """`(starts,)` final loss of each, in the units of the loss; NaN for one that broke."""


def fit(
    loss: Loss,
    params: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: PRNGKey,
    project: Callable[[PyTree], PyTree] | None = None,
    learned: PyTree | None = None,
    starts: int | None = None,
    log_every: int = 1,
    snapshot_every: int | None = None,
    steps_per_call: int = 1,
    between: Between | None = None,
    between_every: int = 1,
    checkpoint: CheckpointPolicy | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    progress: bool = True,
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
        learned: pytree like `params` (of one start) of bool arrays that broadcast to its leaves: entries that
            are False stay as they are, bit for bit.
        starts: number of starts fitted side by side by `vmap`; the result is the best.
        log_every: steps between log points, where the host looks at the numbers and otherwise does not.
        snapshot_every: steps between stored copies of the parameters, the first and last always among them;
            None stores none.
        steps_per_call: steps run by one call of the compiled program, for accelerators.
        between: `between(step, params, optimizer_state) -> (params, optimizer_state)`, run on the host after
            every `between_every` steps: an exchange, say, that moves the optimiser's moments too.
        between_every: see `between`.
        checkpoint: where to save the state; SIGINT and SIGTERM finish the step, save and return.
        resume: continue from the newest undamaged checkpoint, exactly as if never stopped; from the start, with
            a warning, where none was written yet.
        max_minutes: stop (and save) at the first log point after this long.
        progress: draw a progress bar on standard error.
        mesh: devices to work on, where the loss's own arrays have been placed (see `split_over`); parameters are
            whole on each. Of several processes, all of which call this, the first alone writes.

    Returns:
        A `FitResult`.

    Raises:
        ValueError: an argument is wrong, before anything runs.
        NonFiniteError: every start has broken; names the step and the terms, and holds the last good state.
    """
    counts = {"steps": steps, "starts": starts, "log_every": log_every, "snapshot_every": snapshot_every}
    counts |= {"steps_per_call": steps_per_call, "between_every": between_every}
    save_minutes = checkpoint.minutes if checkpoint else None
    _check(params, starts, counts, {"max_minutes": max_minutes, "minutes": save_minutes})
    if resume and checkpoint is None:
        raise usage_error("resume", "True without a checkpoint policy", "one that says where to resume from")
    if checkpoint is not None and leads():
        # Now, so that a folder that cannot be written to costs no computing.
        checkpoint.directory.mkdir(parents=True, exist_ok=True)
    if checkpoint is not None and resume and not checkpoint_steps(checkpoint.directory):
        warnings.warn(f"{checkpoint.directory}: no checkpoint yet, starting anew", stacklevel=2)
        resume = False
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1 if starts else 0 :], leaf.dtype), params
    )
    masks = check_masks(learned, one)
    constrain = constrainer(project, masks)
    batched = jax.vmap if starts else lambda function, **axes: function

    def initial(params: PyTree) -> State:
        moved = batched(lambda x: constrain(x, x))(params)
        return State(moved, batched(optimizer.init)(moved), jnp.zeros((starts,) if starts else (), jnp.int32))

    history, snapshots, done = History(), dict[int, PyTree](), 0
    identity = {"key": np.asarray(jax.random.key_data(key)).tolist(), "impl": str(jax.random.key_impl(key))}
    state = jax.jit(initial)(params)
    if resume and checkpoint is not None:
        saved = load_checkpoint(checkpoint.directory)
        if saved.meta["key"] != identity:
            raise usage_error(
                "key", "another key than the checkpoint's", "the same one", "Resume with the same seed."
            )
        state = tree_from_arrays("state", state, saved.arrays)
        history.restore(saved.arrays)
        for step in {name.split(".")[1] for name in saved.arrays if name.startswith("snapshot.")}:
            snapshots[int(step)] = _copy(tree_from_arrays(f"snapshot.{step}", state.params, saved.arrays))
        done = saved.step

    state, key = whole(mesh, (state, key))
    started = time.perf_counter()
    program = compile_step(loss, optimizer, constrain, masks, state, key, steps_per_call, batched, mesh)
    compile_seconds = time.perf_counter() - started

    def save(done: int) -> Path | None:
        if checkpoint is None or not leads():
            return None
        arrays = arrays_from_tree("state", state) | history.arrays()
        for step, held in snapshots.items():
            arrays |= arrays_from_tree(f"snapshot.{step}", held)
        meta = {"key": identity, "config": checkpoint.config}
        return save_checkpoint(checkpoint.directory, done, arrays, meta=meta, keep=checkpoint.keep)

    def look(record: Record, needed: str) -> tuple[Record, np.ndarray]:
        """A record on the host with its sound starts, or the error where there is none."""
        record = jax.device_get(record)
        checks = {name: finite for name, finite in record.finite.items() if name.startswith(needed)}
        sound = np.asarray(np.logical_and.reduce(list(checks.values())))
        if not sound.any():
            broken = [
                f"term {name!r}" for name, value in record.terms.items() if not np.isfinite(value).any()
            ]
            broken += [name for name, finite in checks.items() if not finite.any()]
            held = jax.device_get(state)
            at = int(held.step.max())
            raise NonFiniteError(at, broken, held.params, save(at))
        return record, sound

    seconds = array("d")
    stopped, saved_at = "finished", done if resume else -1
    if snapshot_every and done == 0:
        snapshots[0] = _copy(state.params)
    begun = mark = written = time.perf_counter()
    since = done
    with (
        _signals() as received,
        tqdm(
            total=steps, initial=done, disable=not (progress and leads()), unit=" steps", dynamic_ncols=True
        ) as bar,
    ):
        while done < steps and stopped == "finished":
            periods = [(log_every, 1), (snapshot_every, 0), (between_every if between else None, 0)]
            periods.append((checkpoint.every if checkpoint else None, 0))
            ends = [_next(done, every, offset) for every, offset in periods if every]
            count = min(steps_per_call, steps - done, *(end - done for end in ends))
            state, record = program(key, state, count)
            done += count
            bar.update(count)
            logs = (done - 1) % log_every == 0
            due = save_minutes is not None and time.perf_counter() - written > 60 * save_minutes
            late = logs and max_minutes is not None and time.perf_counter() - begun > 60 * max_minutes
            # All processes look at the same steps: one that stopped alone, at a NaN, would leave the others waiting.
            stopped, due = agreed(received[0] if received else "time" if late else "finished", due)
            saves = due or (checkpoint is not None and done % checkpoint.every == 0)
            if logs or saves or done == steps or stopped != "finished":
                row, sound = look(record, "")
                jax.block_until_ready(state)
                seconds.append((time.perf_counter() - mark) / (done - since))
                if logs:
                    history.add(done - 1, row)
                    bar.set_postfix(loss=f"{np.min(row.loss[sound]):.4g}", refresh=False)
            if between is not None and done % between_every == 0 and done < steps:
                # On this process's own device, where what `between` holds is: every process gets the same.
                moved = between(done, *(_local(mesh, tree) for tree in (state.params, state.optimizer)))
                held, memory = jax.tree.map(jnp.array, moved)
                state = whole(mesh, State(held, memory, state.step))
            if snapshot_every and done % snapshot_every == 0:
                snapshots[done] = _copy(state.params)
            if saves:
                save(saved_at := done)
                written = time.perf_counter()
            if logs or saves:
                since, mark = done, time.perf_counter()
    if saved_at != done:
        save(done)
    state, record = program(key, state, 0)
    row, sound = look(record, "loss")
    history.add(done, row)
    if snapshot_every:
        snapshots[done] = _copy(state.params)
    best = int(np.argmin(np.where(sound, row.loss, np.inf))) if starts else None
    log = history.columns(best)
    return FitResult(
        params=_pick(_local(mesh, state.params), best),
        steps=done,
        initial_loss=float(log["loss"][0]),
        final_loss=float(log["loss"][-1]),
        history=log,
        snapshots=_stack(snapshots, best),
        seconds_per_step=float(np.median(seconds)) if seconds else float("nan"),
        compile_seconds=compile_seconds,
        stopped=stopped,
        verdict=verdict(log["loss"]),
        start=best or 0,
        start_losses=None if best is None else np.asarray(row.loss),
    )


def _check(
    params: PyTree, starts: int | None, counts: Mapping[str, int | None], minutes: Mapping[str, float | None]
) -> None:
    for name, count in counts.items():
        if count is not None:
            check_count(name, count)
    for name, length in minutes.items():
        if length is not None:
            check_positive(name, length)
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise usage_error("params", "a tree without arrays", "at least one array to learn")
    for leaf in leaves:
        if getattr(leaf, "dtype", None) not in (np.float32, np.float64):
            raise usage_error("params", leaf, "float32 or float64 arrays")
        if starts is not None and leaf.shape[:1] != (starts,):
            raise usage_error("params", leaf, f"a first axis of length starts={starts}")


def _next(done: int, every: int, offset: int) -> int:
    """The next step count after `done` that is `offset` more than a multiple of `every`."""
    return done + every - (done - offset) % every


def _copy(tree: PyTree) -> PyTree:
    """A copy on the host that outlives the donated buffers."""
    return jax.tree.map(lambda leaf: np.array(jax.device_get(leaf), copy=True), tree)


def _local(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """A tree off its mesh, on the default device."""
    return tree if mesh is None else jax.tree.map(jnp.asarray, _copy(tree))


def _pick(tree: PyTree, start: int | None) -> PyTree:
    return tree if start is None else jax.tree.map(lambda leaf: leaf[start], tree)


def _stack(snapshots: Mapping[int, PyTree], start: int | None) -> Snapshots | None:
    if not snapshots:
        return None
    steps = sorted(snapshots)
    held = [_pick(snapshots[step], start) for step in steps]
    return Snapshots(np.array(steps), jax.tree.map(lambda *leaves: np.stack(leaves), *held))


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Names of the SIGINT and SIGTERM received so far; a second one acts as it would have without us."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(number, before[number] or signal.SIG_DFL)
        tqdm.write(
            f"{received[-1]}: stopping after this step; send it again to stop at once.", file=sys.stderr
        )

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
