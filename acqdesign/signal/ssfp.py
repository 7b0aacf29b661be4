"""Gradient-spoiled SSFP sampled as a free induction decay: FISP, and MR fingerprinting."""

from dataclasses import KW_ONLY
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from acqdesign.base.checks import check_count
from acqdesign.base.types import Array, Inexact, PRNGKey
from acqdesign.optim import held
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import echo_factor
from acqdesign.signal.engine import play_epg
from acqdesign.signal.starts import start_flips
from acqdesign.signal.trains import MAX_FLIP, GradientEchoes


class SSFPFID(GradientEchoes):
    """Pulses with one order of gradient spoiling after each echo, and free flips, phases and times (FISP, MRF).

    The receiver follows the pulses' phases; a first pulse on equilibrium gives `m0 sin(flip) exp(-te/T2*)`.
    The inversion is adiabatic and its transverse magnetisation is spoiled. T2' acts between each pulse and
    its echo, which is exact where `tr` is one value: gradient and off-resonance then refocus together. With
    varied `tr` it is an approximation. One off-resonance, `b0`, is exact for any `tr`.

    Args:
        flips: flip angles `(N,)` [rad].
        tr: repetition times, `()` or `(N,)` [s].
        te: echo times within `tr`, `()` or `(N,)` [s].
        phases: phases of the pulses `(N,)` [rad], of which only differences matter; None: all are equal.
        inversion_time: from the inversion to the first pulse [s]; None for no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        spoiler_moment: dephasing by one spoiler, on from echo to next pulse [rad/m]; diffusion along it is simulated
            where it is given.
        n_states: orders kept; None for all that reach an echo, which is exact.

    Jiang et al., Magn Reson Med 74:1621, 2015.
    """

    _: KW_ONLY
    spoiler_moment: Any = held(default=None)
    n_states: int | None = eqx.field(static=True, default=None)

    def __post_init__(self) -> None:
        if self.n_states is not None:
            check_count("n_states", self.n_states)
        super().__post_init__()

    def played(self, tissue: Tissue, values: dict[str, Any]) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)`; real where pulses have no phases and no profile, the tissue no `b0` and a real `m0`."""
        tr, te = values["tr"], values["te"]
        # With one tr, off-resonance only adds to the spoiler's uniform dephasing; the echo alone turns.
        turned = "b0" in values and not tr.ndim
        effects = {name: values[name][..., None] for name in tissue.effects()}
        echo = echo_factor(te, effects, ("t2_prime", "b0") if turned else ("t2_prime",))
        train = {name: value for name, value in values.items() if not (turned and name == "b0")}
        train |= {"duration0": te, "duration1": tr - te, "z0": self.prepared(values)}
        if "spoiler_moment" in values:
            train["order_moment"] = values["spoiler_moment"]
        return play_epg(train, (0, 1), 1, self.n_states) * echo

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *,
        echoes: int = 400, tr: float = 10e-3, te: float = 2e-3, ti: float | None = 20e-3,
        start: str | None = None, rms: float | None = None, upper: float = MAX_FLIP,
    ) -> "SSFPFID":  # fmt: skip
        """A train to start learning from, after an inversion `ti` before it [s], or None; see `SSFPFID`.

        Its flips are those of `start_flips`: for the `start` named, `sinusoid` unless given, a root mean square of
        `rms` and at most `upper` [rad]. The tissue says in which precision to work.
        """
        flips = start_flips(start or "sinusoid", echoes, level=rms, upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), tr, te, inversion_time=ti)
