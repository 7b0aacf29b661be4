"""Echo order: which echo of which train acquires each readout."""

from typing import NamedTuple

import jax
import numpy as np

from acqdesign.base.checks import as_real, check_choice, check_count, check_key, usage_error
from acqdesign.base.types import ArrayLike, PRNGKey

ORDERINGS = ("linear", "centre-out", "radial-fan", "random")


class EchoOrder(NamedTuple):
    """When each line is acquired: `(S,)` int32 each, which train, and which echo of it from 0."""

    train: np.ndarray
    echo: np.ndarray


def order_readouts(name: str, points: ArrayLike, echoes: int, *, te_echo: int, key: PRNGKey) -> EchoOrder:
    """Assigns lines to the echoes of trains, each echo of each train one line.

        linear      bands along ky in order, wrapped around so that the central band is at `te_echo`
        centre-out  the closer a line to the centre, the closer its echo to `te_echo`
        radial-fan  the same within trains that are sectors of the plane
        random      any line at any echo

    Args:
        name: one of `ORDERINGS`.
        points: `(S, 2)` positions [cycles/voxel].
        echoes: number of echoes of a train, which must divide the number of lines.
        te_echo: the echo that defines contrast, from 0.
        key: for `random`.
    """
    check_choice("ordering", name, ORDERINGS)
    check_count("echoes", echoes)
    check_key("key", key)
    array = np.asarray(as_real("points", points), np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise usage_error("points", array, "positions (lines, 2)")
    lines = len(array)
    if lines % echoes:
        low, high = lines // echoes * echoes, -(-lines // echoes) * echoes
        near = f"{low} or {high}" if low else f"{high}"
        raise usage_error("lines", lines, f"a multiple of the {echoes} echoes of a train", f"The nearest: {near}.")
    check_count("te_echo", te_echo, minimum=0, maximum=echoes - 1)
    trains, radius, angle = lines // echoes, np.hypot(*array.T), np.arctan2(*array.T)
    # Echoes from the nearest to te_echo to the farthest.
    by_distance = np.argsort(np.abs(np.arange(echoes) - te_echo), kind="stable")
    if name == "random":
        place = np.asarray(jax.random.permutation(key, lines))
        train, echo = place // echoes, place % echoes
    elif name == "linear":
        band = _ranked(array[:, 0], radius) // trains
        train = _ranked(band, array[:, 1]) % trains
        echo = (band - band[np.argmin(radius)] + te_echo) % echoes
    elif name == "centre-out":
        rank = _ranked(radius, angle)
        train, echo = rank % trains, by_distance[rank // trains]
    else:
        train = _ranked(angle, radius) // echoes
        echo = by_distance[_ranked(train, radius) % echoes]
    return EchoOrder(train.astype(np.int32), echo.astype(np.int32))


def _ranked(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The place of each entry in the order by `first`, and by `second` among equals."""
    rank = np.empty(len(first), int)
    rank[np.lexsort((second, first))] = np.arange(len(first))
    return rank
