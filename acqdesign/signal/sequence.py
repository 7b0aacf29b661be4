"""What every sequence shares: tissue parameters, the slice profile, and `simulate`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from acqdesign.base.checks import check_positive, is_concrete, usage_error
from acqdesign.base.types import Real


def as_real(name: str, value: Any) -> Array:
    """`value` as a real floating-point array; a Python number stays weakly typed.

    Raises:
        ValueError: if it is complex or not numeric.
    """
    array = jnp.asarray(value)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise usage_error(name, array, "real numbers")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def check_relaxation(t1: Any, t2: Any) -> None:
    """Raises where concrete T1 or T2 [s] are not positive, or T2 exceeds 2·T1 (infinity is allowed)."""
    check_positive("t1", t1, allow_inf=True)
    check_positive("t2", t2, allow_inf=True)
    if is_concrete(t1) and is_concrete(t2):
        t1, t2 = np.broadcast_arrays(np.asarray(t1), np.asarray(t2))
        wrong = t2 > 2.0 * (1.0 + 1e-6) * t1
        if wrong.any():
            got = f"T2 = {t2[wrong].flat[0]:g} s with T1 = {t1[wrong].flat[0]:g} s"
            raise usage_error("t2", got, "T2 <= 2 T1", "Are T1 and T2 exchanged, or in different units?")


class TissueParams(eqx.Module):
    """Parameters of one or many tissues; fields of any shapes that broadcast against each other.

    Args:
        t1: longitudinal relaxation time [s]; infinity is allowed.
        t2: transverse relaxation time [s], at most `2 t1`; infinity is allowed.
        m0: equilibrium magnetisation, in the units of the signal; a complex one carries the receiver's phase.
        b1: transmit field relative to nominal; multiplies every flip angle.
        b0: off-resonance [Hz].
        t2_prime: reversible transverse decay T2' [s], `1/T2* = 1/T2 + 1/T2'`.
        diffusivity: apparent diffusion coefficient [m²/s].

    Raises:
        ValueError: for a non-positive or NaN time, or `T2 > 2 T1`, where values are concrete.
    """

    t1: Real
    t2: Real
    m0: Inexact[Array, "..."]
    b1: Real
    b0: Real
    t2_prime: Real
    diffusivity: Real

    def __init__(
        self,
        t1: Any,
        t2: Any,
        m0: Any = 1.0,
        b1: Any = 1.0,
        b0: Any = 0.0,
        t2_prime: Any = np.inf,
        diffusivity: Any = 0.0,
    ):
        self.t1 = as_real("t1", t1)
        self.t2 = as_real("t2", t2)
        check_relaxation(self.t1, self.t2)
        self.m0 = jnp.asarray(m0) if jnp.iscomplexobj(m0) else as_real("m0", m0)
        self.b1 = as_real("b1", b1)
        self.b0 = as_real("b0", b0)
        self.t2_prime = as_real("t2_prime", t2_prime)
        check_positive("t2_prime", self.t2_prime, allow_inf=True)
        self.diffusivity = as_real("diffusivity", diffusivity)

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch shape: that of all fields broadcast together."""
        return jnp.broadcast_shapes(*(field.shape for field in jax.tree.leaves(self)))


class SliceProfile(eqx.Module):
    """A slice profile as positions across the slice, each seeing its own share of the flip angle.

    Args:
        b1: flip relative to nominal at each position, `(P,)`.
        weights: quadrature weights, `(P,)`; the signal is `Σ_p weights_p · signal(b1 · b1_p)`.
    """

    b1: Float[Array, " positions"]
    weights: Float[Array, " positions"]

    def __init__(self, b1: Any, weights: Any):
        self.b1 = as_real("b1", b1)
        self.weights = as_real("weights", weights)
        if self.b1.ndim != 1 or self.b1.shape != self.weights.shape:
            got = f"shapes {self.b1.shape} and {self.weights.shape}"
            raise usage_error(
                "weights", got, "one weight for each of the slice positions in b1, both of shape (P,)"
            )


Sequence = Callable[[TissueParams], Inexact[Array, "... echoes"]]
"""A sequence is an equinox Module of its design variables, called with a tissue to give its signal."""


def simulate(
    sequence: Sequence, tissue: TissueParams, *, slice_profile: SliceProfile | None = None
) -> Inexact[Array, "... echoes"]:
    """The signal of a sequence in a tissue.

    Args:
        sequence: an object such as `FSE`, callable with a `TissueParams`.
        tissue: parameters of any batch shape.
        slice_profile: where given, the signal is summed over the slice, `Σ_p w_p S(B1 · b1_p)`.

    Returns:
        Signal `(..., n_echo)` in the units of the tissue's `m0`, the leading axes being the tissue's batch shape.
    """
    if slice_profile is None:
        return sequence(tissue)
    weights = slice_profile.weights
    spread = jax.tree.map(lambda field: field[..., None], tissue)
    spread = eqx.tree_at(lambda t: t.b1, spread, spread.b1 * slice_profile.b1)
    return jnp.einsum("...pn,p->...n", sequence(spread), weights, precision="highest")
