"""What a fit logs, and what the log says of it."""

import math
from array import array
from collections.abc import Mapping

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.optim.step import Record


def verdict(losses: np.ndarray) -> str:
    """`improving`, `settled` (no gain in the last half), `stalled` (no gain) or `diverged`."""
    gain, late = losses[0] - losses[-1], losses[len(losses) // 2] - losses[-1]
    if gain < 0:
        return "diverged"
    if gain <= 1e-3 * abs(losses[0]):
        return "stalled"
    return "improving" if late > 1e-3 * gain else "settled"


class History:
    """The log: rows of numbers, or of one number a start."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.rows: dict[str, array[float]] = {}
        self.shape: tuple[int, ...] = ()

    def add(self, step: int, record: Record) -> None:
        """Appends a row."""
        if self.rows and self.rows.keys() != {"loss", *record.terms}:
            raise usage_error("checkpoint", f"a log of {', '.join(self.rows)}", ", ".join(["loss", *record.terms]))
        self.steps.append(step)
        self.shape = np.shape(record.loss)
        for name, value in {"loss": record.loss, **record.terms}.items():
            self.rows.setdefault(name, array("d")).extend(np.ravel(value).tolist())

    def last(self, name: str, count: int) -> np.ndarray:
        """Up to so many of the last rows of a column, `(rows,)` or `(rows, starts)`."""
        width = math.prod(self.shape)
        return np.array(self.rows[name][-count * width :]).reshape(-1, *self.shape)

    def columns(self, start: int | None) -> dict[str, np.ndarray]:
        """Columns by name, of one start or of all."""
        rows = {name: np.array(values).reshape(-1, *self.shape) for name, values in self.rows.items()}
        picked = {name: values if start is None else values[:, start] for name, values in rows.items()}
        return {"step": np.array(self.steps)} | picked

    def arrays(self) -> dict[str, np.ndarray]:
        """The log as a checkpoint stores it."""
        return {f"history.{name}": values for name, values in self.columns(None).items()}

    def restore(self, arrays: Mapping[str, np.ndarray], steps: np.ndarray, starts: int | None) -> None:
        """Takes the log of a checkpoint, which has a row for each of the `steps`."""
        found = {name[8:]: values for name, values in arrays.items() if name.startswith("history.")}
        if not np.array_equal(found.pop("step", np.full(1, -1)), steps) or "loss" not in found:
            raise usage_error("history", "another log", f"step and loss of each of {len(steps)} logged steps")
        for name, values in found.items():
            if values.shape != (len(steps), *([starts] if starts else [])) or values.dtype != np.float64:
                raise usage_error(f"history.{name}", values, f"numbers for {len(steps)} steps and {starts or 1} starts")
        self.steps = array("q", steps.tolist())
        self.rows = {name: array("d", values.ravel().tolist()) for name, values in found.items()}
        self.shape = found["loss"].shape[1:]
