"""What watches a fit: progress, snapshots, checkpoints, signals, a time limit, and changes between steps."""

import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from acqdesign.base.checks import check_count, check_positive, usage_error
from acqdesign.base.files import plain
from acqdesign.base.sharding import first_says, is_main_process
from acqdesign.base.types import PyTree
from acqdesign.base.untrusted import parsing
from acqdesign.optim.checkpoint import (
    arrays_from_tree,
    checkpoint_steps,
    load_checkpoint,
    save_checkpoint,
    tree_from_arrays,
)
from acqdesign.optim.fit import SETTLED, Callback, Fit, of_start
from acqdesign.optim.step import State


class Progress(Callback):
    """A progress bar on standard error."""

    bar: Any = None

    def begin(self, fit: Fit) -> None:
        off = not is_main_process()
        said = "compiling: seconds, for long trains up to minutes"
        self.bar = tqdm(total=fit.steps, initial=fit.done, disable=off, unit=" steps", dynamic_ncols=True, desc=said)

    def after(self, fit: Fit) -> None:
        self.bar.set_description(refresh=False)
        self.bar.update(1)
        if fit.logs:
            record, sound = fit.look()
            self.bar.set_postfix(loss=f"{np.min(record.loss[sound]):.4g}", refresh=False)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class Snapshots(Callback):
    """Copies of the parameters every `every` steps, the first and the last always among them."""

    def __init__(self, every: int):
        self.every = check_count("every", every)
        self.params: dict[int, PyTree] = {}

    def begin(self, fit: Fit) -> None:
        if fit.done == 0:
            self._keep(fit)

    def after(self, fit: Fit) -> None:
        if fit.done % self.every == 0:
            self._keep(fit)

    def end(self, fit: Fit) -> None:
        self._keep(fit)

    def _keep(self, fit: Fit) -> None:
        self.params[fit.done] = of_start(fit.state.params, None)

    def steps(self) -> np.ndarray:
        """`(copies,)` steps at which they were taken."""
        return np.array(sorted(self.params))

    def of(self, start: int | None) -> list[PyTree]:
        """The copies, of one start or, without several, of all."""
        return [of_start(self.params[step], start) for step in sorted(self.params)]

    def arrays(self) -> dict[str, np.ndarray]:
        """The copies by name, without that of an early end: a run that goes on has none there."""
        planned = {str(step): held for step, held in self.params.items() if step % self.every == 0}
        return arrays_from_tree("snapshot", planned)

    def restore(self, fit: Fit, arrays: Mapping[str, np.ndarray]) -> None:
        for step in {name.split(".")[1] for name in arrays if name.startswith("snapshot.")}:
            held = tree_from_arrays(f"snapshot.{step}", fit.state.params, arrays)
            self.params[int(step)] = of_start(held, None)


class Checkpoints(Callback):
    """Saves the state of a fit now and then, when it is interrupted, and when it fails or ends; resumes from it.

    Args:
        directory: folder of the checkpoints.
        every: steps between them.
        minutes: a step that ends this long after the last checkpoint writes one too; None for never.
        keep: how many stay.
        config: what JSON can hold, by name, stored with each: a run whose own differs is not resumed.
        resume: continue from the newest undamaged checkpoint, exactly as if never stopped; from the start, with a
            warning, where none was written yet.
    """

    def __init__(
        self,
        directory: Path,
        every: int = 100,
        *,
        minutes: float | None = 10.0,
        keep: int = 3,
        config: Mapping[str, Any] | None = None,
        resume: bool = False,
    ):
        self.directory = Path(directory)
        self.every, self.keep = check_count("every", every), check_count("keep", keep)
        if minutes is not None:
            check_positive("minutes", minutes)
        self.minutes, self.config, self.resume = minutes, json.loads(json.dumps(plain(config or {}))), resume

    def begin(self, fit: Fit) -> None:
        """Makes the folder, so that one that cannot be written to costs no computing, and resumes."""
        data, impl = jax.random.key_data(fit.key), jax.random.key_impl(fit.key)
        self._key = {"key": np.asarray(data).tolist(), "impl": str(impl)}
        self._saved_at, self._written = -1, time.perf_counter()
        if is_main_process():
            self.directory.mkdir(parents=True, exist_ok=True)
        if not self.resume:
            return
        if not checkpoint_steps(self.directory):
            warnings.warn(f"{self.directory}: no checkpoint yet, starting anew", stacklevel=2)
            return
        found = load_checkpoint(self.directory)
        with parsing("checkpoint", found.path, "what this run would have written"):
            held, own = ({"key": meta.get("key"), **meta["config"]} for meta in (found.meta, self._meta()))
            for name in dict.fromkeys([*own, *held]):
                if held.get(name) != own.get(name):
                    remedy = "Another run's files were put into its folder, or its config.json was edited."
                    where, got = f"checkpoint {found.path}: {name}", f"{held.get(name)}"
                    raise usage_error(where, got, f"that of the run to resume, {own.get(name)}", remedy)
            if found.step > fit.steps:
                raise usage_error(f"checkpoint {found.path}", f"step {found.step}", f"at most the run's {fit.steps}")
            fit.state = tree_from_arrays("state", fit.state, found.arrays)
            fit.history.restore(found.arrays, np.arange(0, found.step, fit.log_every), fit.starts)
            for callback in fit.callbacks:
                callback.restore(fit, found.arrays)
        fit.done = self._saved_at = found.step

    def after(self, fit: Fit) -> None:
        due = self.minutes is not None and time.perf_counter() - self._written > 60 * self.minutes
        # All processes look at the same steps: one that stopped alone, at a NaN, would leave the others waiting.
        if (self.minutes is not None and first_says(due)) or fit.done % self.every == 0:
            if not fit.logs:
                fit.look()
            self._save(fit)

    def end(self, fit: Fit) -> None:
        if self._saved_at != fit.done:
            self._save(fit)

    def failed(self, fit: Fit) -> Path | None:
        return self._save(fit)

    def _save(self, fit: Fit) -> Path | None:
        self._saved_at, self._written = fit.done, time.perf_counter()
        if not is_main_process():
            return None
        arrays = arrays_from_tree("state", fit.state) | fit.history.arrays()
        for callback in fit.callbacks:
            arrays |= callback.arrays()
        return save_checkpoint(self.directory, fit.done, arrays, meta=self._meta(), keep=self.keep)

    def _meta(self) -> dict[str, Any]:
        return {"key": self._key, "config": self.config}


class StopOnSignal(Callback):
    """SIGINT and SIGTERM finish the step and stop the fit; a second one acts as it would have without this."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self._before: dict[int, Any] = {}

    def begin(self, fit: Fit) -> None:
        # Python hands signals to the main thread alone.
        if threading.current_thread() is not threading.main_thread():
            return
        self._before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number).name)
        signal.signal(number, self._before[number] or signal.SIG_DFL)
        tqdm.write(f"{self.received[-1]}: stopping after this step; send it again to stop at once.", file=sys.stderr)

    def after(self, fit: Fit) -> None:
        if self.received:
            fit.stop = self.received[0]

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._before = {}


class TimeLimit(Callback):
    """Stops at the first logged step after so many minutes."""

    def __init__(self, minutes: float):
        check_positive("minutes", minutes)
        self.minutes = minutes

    def begin(self, fit: Fit) -> None:
        self._begun = time.perf_counter()

    def after(self, fit: Fit) -> None:
        if fit.logs and time.perf_counter() - self._begun > 60 * self.minutes:
            fit.stop = fit.stop or "time"


class Settled(Callback):
    """Stops where the steps that are left would gain less than 0.05 % of the loss at the pace of the last ones.

    The pace is that of the mean loss from one window to the next, a fifteenth of the steps each and 10 at least, plus
    three standard errors: a loss that varies by chance seldom stops early. Of several starts none may be about to
    overtake the best by as much. A loss that has been the same to the bit for three steps is settled too.
    """

    def after(self, fit: Fit) -> None:
        if fit.logs and fit.done < fit.steps and self._rests(fit):
            fit.stop = fit.stop or SETTLED

    def restore(self, fit: Fit, arrays: Mapping[str, np.ndarray]) -> None:
        self.after(fit)

    def _rests(self, fit: Fit) -> bool:
        window = -(-max(10, fit.steps // 15) // fit.log_every)
        losses = fit.history.last("loss", 2 * window)
        last = losses[-3:]
        if len(last) == 3 and (last == last[0]).all():
            return True
        if len(losses) < 2 * window:
            return False
        losses = losses[:, np.isfinite(losses).all(axis=0)] if fit.starts else losses
        (before, after), variances = (f(losses.reshape(2, window, -1), axis=1) for f in (np.mean, np.var))
        pace = (np.maximum(before - after, 0) + 3 * np.sqrt(variances.sum(axis=0) / window)) / window
        reached = after - pace * (fit.steps - fit.done) / fit.log_every
        return after.size > 0 and bool(reached.min() >= after.min() - 5e-4 * abs(after.min()))


class Between(Callback):
    """`change(step, params, optimizer_state) -> (params, optimizer_state)` on the host every `every` steps."""

    def __init__(self, change: Callable[[int, PyTree, PyTree], tuple[PyTree, PyTree]], every: int):
        self.change, self.every = change, check_count("every", every)

    def after(self, fit: Fit) -> None:
        if fit.done % self.every == 0 and fit.done < fit.steps:
            held = (jax.tree.map(jnp.asarray, of_start(t, None)) for t in (fit.state.params, fit.state.optimizer))
            params, memory = jax.tree.map(jnp.array, self.change(fit.done, *held))
            fit.state = State(params, memory, fit.state.step)
