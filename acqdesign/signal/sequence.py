"""What a sequence is: a module of its design variables that gives the signal of a tissue."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_kind, usage_error
from acqdesign.base.trees import leaf_names
from acqdesign.base.types import Array, Inexact, PRNGKey
from acqdesign.optim import Constraint, Limits, Part, resolve
from acqdesign.scene.tissue import Tissue
from acqdesign.signal.events import Event, event_table, play
from acqdesign.signal.waits import waits


class Sequence(Part):
    """Pulses, waits and readouts, as a module of its design variables; subclass it for your own.

    Give `events`, which the general engine plays, or `signal` itself. Where events have diffusion act, a field
    `order_moment` says the dephasing of one order [rad/m]. Float arrays are learned unless declared with
    `acqdesign.optim.held()`; Python numbers are not.
    """

    measures: ClassVar[tuple[str, ...]] = ("t1", "t2")
    """Names of tissue parameters that it is usually made to measure."""

    def events(self) -> Iterable[Event]:
        """The events in the order in which they are played."""
        what = f"{type(self).__name__} without events() and without signal()"
        raise usage_error("sequence", what, "one of the two")

    def repetitions(self) -> Iterable[Iterable[Event]]:
        """The events of one repetition of each acquisition, as a scanner plays them; none without `events`."""
        return [self.events()] if type(self).events is not Sequence.events else []

    def recovers(self) -> bool:
        """Whether each repetition begins at equilibrium, rather than as the last one ended."""
        return True

    def played_as(self) -> dict[str, Any]:
        """Entries of `design.npz` that say how a scanner plays it."""
        table = event_table(resolve(self).repetitions())
        return {"events": table, "recovers": self.recovers()} if len(table) else {}

    def signal(self, tissue: Tissue) -> Inexact[Array, "... readouts"]:
        """The signal at every readout.

        Args:
            tissue: of any batch shape.

        Returns:
            `(..., readouts)` in the units of the tissue's `m0`, the leading axes being the tissue's batch shape.
        """
        this = resolve(self)
        return play(list(this.events()), tissue, order_moment=getattr(this, "order_moment", None))

    def readouts(self) -> int:
        """The number of readouts."""
        return eqx.filter_eval_shape(simulate, resolve(self), Tissue(1.0, 0.1)).shape[-1]

    def contrast(self, tissue: Tissue) -> Array | None:
        """What an ideal image shows of each tissue, `(...)` in the units of `m0`; None where only the scene can say."""
        return None

    def limits(self) -> tuple[Constraint, ...]:
        """That learned times leave no wait between events negative; nothing where there are no events."""
        return waits(self) if type(self).events is not Sequence.events else ()

    @classmethod
    def usual_limits(cls) -> Limits:
        """Limits on the flips that the command line fills in where none are asked for."""
        return Limits(0.0, math.pi)

    def design(self) -> Mapping[str, Any]:
        """Entries of `design.npz`; unless overridden, `played_as` and float arrays by their names after `sequence.`."""
        arrays = {name: leaf for name, leaf in leaf_names(resolve(self)).items() if hasattr(leaf, "dtype")}
        return {f"sequence.{name}": np.asarray(leaf) for name, leaf in arrays.items()} | self.played_as()

    @classmethod
    def start(cls, tissue: Tissue, key: PRNGKey) -> "Sequence":
        """A sequence to start learning from: for the command line, and for several starts.

        Further arguments with defaults become settings of the command line, by their names there.

        Args:
            tissue: that is learned for.
            key: for random starts.
        """
        what = f"{cls.__name__} without a classmethod start(tissue, key)"
        raise usage_error("sequence", what, "one that makes a sequence to start from")


def simulate(sequence: Sequence, tissue: Tissue) -> Inexact[Array, "... readouts"]:
    """The signal of a sequence in a tissue, `(..., readouts)`, once it is seen to have the tissue's batch shape."""
    check_kind("sequence", sequence, Sequence, "a Sequence")
    check_kind("tissue", tissue, Tissue, "a Tissue")
    found, name = sequence.signal(tissue), f"{type(sequence).__name__}.signal"
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape is None or dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        raise usage_error(name, found, "a real or complex floating array")
    if len(shape) != len(tissue.shape) + 1 or shape[:-1] != tissue.shape or not shape[-1]:
        wanted = ", ".join([*map(str, tissue.shape), "readouts"])
        raise usage_error(name, found, f"shape ({wanted}): the tissue's batch shape, then the readouts")
    return found
