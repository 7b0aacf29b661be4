"""Tissues: what of the spins an experiment depends on, and a table of the brain's."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from acqdesign.base.checks import as_real, check_choice, check_positive, is_concrete, usage_error
from acqdesign.base.types import Array, Inexact, Real

TISSUES = ("gm", "wm", "csf")
"""Order of tissue maps everywhere: grey matter, white matter, cerebrospinal fluid."""


EFFECTS = ("t1", "t2", "m0", "b1", "b0", "t2_prime", "diffusivity", "t1_rho")
"""Fields of a `Tissue` that act on its signal."""


def _by_tissue(leaf: Any) -> PartitionSpec:
    """Arrays of tissues are split over their last axis."""
    split = getattr(leaf, "ndim", 0) and leaf.shape[-1] > 1
    return PartitionSpec(*[None] * (leaf.ndim - 1), "tissues") if split else PartitionSpec()


def _field() -> Any:
    return eqx.field(metadata={"split": _by_tissue})


class Tissue(eqx.Module):
    """Parameters of one or many tissues; fields of any shapes that broadcast against each other to the batch shape.

    What is None does not act, and costs nothing.

    Args:
        t1: longitudinal relaxation time [s]; infinity is allowed.
        t2: transverse relaxation time [s], at most `2 t1`; infinity is allowed.
        m0: equilibrium magnetisation in the units of the signal, such as proton density relative to water; a complex
            one carries the receiver's phase.
        b1: transmit field relative to nominal; multiplies every flip angle.
        b0: off-resonance [Hz], or None; the transverse magnetisation turns by `exp(2πi b0 t)`.
        t2_prime: reversible transverse decay T2' [s], `1/T2* = 1/T2 + 1/T2'`, or None.
        diffusivity: apparent diffusion coefficient [m²/s], or None.
        t1_rho: longitudinal relaxation time in the rotating frame T1ρ [s], at the power of the spin lock, or None.
        names: of the tissues along the last axis, for figures and logs.
    """

    t1: Real = _field()
    t2: Real = _field()
    m0: Inexact[Array, "..."] = _field()
    b1: Real = _field()
    b0: Real | None = _field()
    t2_prime: Real | None = _field()
    diffusivity: Real | None = _field()
    t1_rho: Real | None = _field()
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        t1: Any,
        t2: Any,
        m0: Any = 1.0,
        b1: Any = 1.0,
        b0: Any = None,
        t2_prime: Any = None,
        diffusivity: Any = None,
        t1_rho: Any = None,
        names: tuple[str, ...] = (),
    ):
        self.t1, self.t2 = as_real("t1", t1), as_real("t2", t2)
        check_relaxation(self.t1, self.t2)
        self.m0 = jnp.asarray(m0) if jnp.iscomplexobj(m0) else as_real("m0", m0)
        self.b1 = as_real("b1", b1)
        self.b0 = None if b0 is None else as_real("b0", b0)
        self.t2_prime = None if t2_prime is None else as_real("t2_prime", t2_prime)
        self.diffusivity = None if diffusivity is None else as_real("diffusivity", diffusivity)
        self.t1_rho = None if t1_rho is None else as_real("t1_rho", t1_rho)
        for name, value in (("t2_prime", self.t2_prime), ("t1_rho", self.t1_rho)):
            if value is not None:
                check_positive(name, value, allow_inf=True)
        self.names = tuple(names)
        shape: tuple[int, ...] = ()
        for name in EFFECTS:
            value = getattr(self, name)
            try:
                shape = jnp.broadcast_shapes(shape, () if value is None else value.shape)
            except ValueError:
                raise usage_error(name, value, f"a shape that broadcasts with the others', {shape}") from None
        if self.names and len(self.names) != (shape[-1] if shape else 1):
            raise usage_error("names", self.names, f"none, or one for each tissue along the last axis of {shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch shape: that of all fields broadcast together."""
        return jnp.broadcast_shapes(*(field.shape for field in jax.tree.leaves(self)))

    def effects(self) -> dict[str, Array]:
        """The fields that act, by name; M0 of the whole batch shape, which every signal then has."""
        found = {name: getattr(self, name) for name in EFFECTS if getattr(self, name) is not None}
        return found | {"m0": jnp.broadcast_to(self.m0, self.shape)}

    def astype(self, dtype: Any) -> "Tissue":
        """In another precision."""
        return jax.tree.map(lambda x: x.astype(jnp.result_type(dtype, 1j) if jnp.iscomplexobj(x) else dtype), self)


def check_relaxation(t1: Any, t2: Any) -> None:
    """Raises where concrete T1 or T2 [s] are not positive, or T2 exceeds 2·T1 (infinity is allowed)."""
    check_positive("t1", t1, allow_inf=True)
    check_positive("t2", t2, allow_inf=True)
    if is_concrete(t1) and is_concrete(t2):
        try:
            t1, t2 = np.broadcast_arrays(np.asarray(t1), np.asarray(t2))
        except ValueError:
            expected = f"a shape that broadcasts with that of t1, {np.shape(t1)}"
            raise usage_error("t2", f"shape {np.shape(t2)}", expected) from None
        wrong = t2 > 2.0 * (1.0 + 1e-6) * t1
        if wrong.any():
            got = f"T2 = {t2[wrong].flat[0]:g} s with T1 = {t1[wrong].flat[0]:g} s"
            raise usage_error("t2", got, "T2 <= 2 T1", "Are T1 and T2 exchanged, or in different units?")


class Properties(NamedTuple):
    """One tissue of the table: T1 and T2 [s], proton density relative to water, and where they are from."""

    t1: float
    t2: float
    pd: float
    source: str


_BRAINWEB = (
    "BrainWeb tissue parameters for 1.5 T: C. A. Cocosco et al., NeuroImage 5(4):S425, 1997; "
    "R. K.-S. Kwan et al., IEEE Trans. Med. Imaging 18(11):1085, 1999"
)
_AT_3T = (
    "T1 and T2 from the studies collected in Normal relaxation times at 3T (mri-q.com), T2 of CSF from "
    "PMC5973950, rounded densities: the values MRzeroCore 1.2.0 gives BrainWeb anatomy at 3 T"
)

_AT_7T = (
    "T1 of grey and white matter of P. J. Wright et al., MAGMA 21:121, 2008, T2 of E. F. Cox and P. A. Gowland, Magn. "
    "Reson. Med. 64:1440, 2010; of CSF, rounded, T1 of W. D. Rooney et al., Magn. Reson. Med. 57:308, 2007, and T2 of "
    "J. M. Spijkerman et al., MAGMA 31:415, 2018; densities as at 3 T"
)

TABLE: dict[str, dict[str, Properties]] = {
    "1.5T": {
        "gm": Properties(0.833, 0.083, 0.86, _BRAINWEB),
        "wm": Properties(0.500, 0.070, 0.77, _BRAINWEB),
        "csf": Properties(2.569, 0.329, 1.00, _BRAINWEB),
    },
    "3T": {
        "gm": Properties(1.558, 0.083, 0.80, _AT_3T),
        "wm": Properties(0.830, 0.075, 0.70, _AT_3T),
        "csf": Properties(4.163, 1.650, 1.00, _AT_3T),
    },
    "7T": {
        "gm": Properties(1.939, 0.047, 0.80, _AT_7T),
        "wm": Properties(1.126, 0.047, 0.70, _AT_7T),
        "csf": Properties(4.400, 1.000, 1.00, _AT_7T),
    },
}
"""Tissues of the brain by field strength and name."""


def tissue_properties(
    names: str | Sequence[str] | Mapping[str, Properties] = TISSUES, field: str = "3T"
) -> dict[str, Properties]:
    """Entries of the table by names, or by one string with commas such as `wm,gm,csf`, in the order asked for.

    Tissues that come with their properties stay as they are.
    """
    if isinstance(names, Mapping):
        return dict(names)
    at_field = TABLE[check_choice("field", field, TABLE)]
    listed = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    if not listed or len(set(listed)) != len(listed):
        raise usage_error("tissue", repr(names), "one or more different names of " + ", ".join(at_field))
    return {name: at_field[check_choice("tissue", name, at_field)] for name in listed}


def tissues(*names: str, field: str = "3T") -> Tissue:
    """Tissues of the brain, of shape `(tissues,)`, with their proton densities as M0.

    Args:
        names: `gm`, `wm`, `csf`, each by itself or several in one string with commas; all three unless given.
        field: `1.5T`, `3T` or `7T`.
    """
    return tissue_of(tissue_properties(",".join(names) if names else TISSUES, field))


def tissue_of(found: Mapping[str, Properties]) -> Tissue:
    """Tissues of given properties, by name."""
    t1, t2, pd, _ = zip(*found.values(), strict=True)
    return Tissue(np.array(t1), np.array(t2), np.array(pd), names=tuple(found))
