"""Gradient-spoiled SSFP sampled as a free induction decay: FISP, and MR fingerprinting."""

from typing import Any

import equinox as eqx

from acqdesign.base.checks import check_count
from acqdesign.base.types import Array, Inexact, PRNGKey, Real
from acqdesign.optim import held
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import echo_factor
from acqdesign.signal.engine import Interval, epg
from acqdesign.signal.gradient_echo import MAX_FLIP, GradientEchoes
from acqdesign.signal.sequence import number


class SSFPFID(GradientEchoes):
    """Pulses with one order of gradient spoiling after each echo, and free flips, phases and times (FISP, MRF).

    The receiver follows the pulses' phases; a first pulse on equilibrium gives `m0 sin(flip) exp(-te/T2*)`.
    The inversion is adiabatic and its transverse magnetisation is spoiled. T2' acts between each pulse and
    its echo, which is exact where `tr` is one value: gradient and off-resonance then refocus together. With
    varied `tr` it is an approximation. One off-resonance, `b0`, is exact for any `tr`.

    Args:
        flips: flip angles `(N,)` [rad].
        tr: repetition times, `()` or `(N,)` [s].
        te: echo times, `()` or `(N,)` [s].
        phases: phases of the pulses `(N,)` [rad], of which only differences matter; None: all are equal.
        inversion_time: from the inversion to the first pulse [s]; None for no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        spoiler_moment: dephasing by one spoiler, on from echo to next pulse [rad/m]; diffusion along it is simulated
            where it is given.
        n_states: orders kept; None for all that reach an echo, which is exact.

    Raises:
        UsageError: for times that are not positive, TE > TR, or lengths that differ.

    Jiang et al., Magn Reson Med 74:1621, 2015.
    """

    spoiler_moment: Real | float | None = held()
    n_states: int | None = eqx.field(static=True)

    def __init__(
        self,
        flips: Any,
        tr: Any,
        te: Any = 0.0,
        *,
        phases: Any = None,
        inversion_time: Any = None,
        inversion_efficiency: Any = 1.0,
        spoiler_moment: Any = None,
        n_states: int | None = None,
    ):
        self.spoiler_moment = None if spoiler_moment is None else number("spoiler_moment", spoiler_moment)
        self.n_states = None if n_states is None else check_count("n_states", n_states)
        super().__init__(
            flips, tr, te, phases=phases, inversion_time=inversion_time, inversion_efficiency=inversion_efficiency
        )

    def signal(self, tissue: Tissue) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)`; real where there are no `phases`, the tissue has no `b0` and a real `m0`."""
        return self.train(tissue, self.phases)

    def train(self, tissue: Tissue, phases: Any) -> Inexact[Array, "... pulses"]:
        """The signal with the pulses' phases `(N,)` [rad] given, or None."""
        values = self.values(tissue)
        tr, te = values["tr"], values["te"]
        # With one tr, off-resonance only adds to the spoiler's uniform dephasing; the echo alone turns.
        turned = tissue.b0 is not None and not tr.ndim
        spread = {"t2_prime": values.get("t2_prime"), "b0": values["b0"] if turned else None}
        if te.ndim:
            spread = {name: None if value is None else value[..., None] for name, value in spread.items()}
        echo = echo_factor(te, **spread)
        names = ("t1", "t2", "m0", "b1", "b0", "diffusivity")
        fields: dict[str, Any] = {name: values.get(name) for name in names}
        spins = Tissue(**fields | ({"b0": None} if turned else {}))
        signal = epg(
            values["flips"],
            [Interval(te), Interval(tr - te, 1)],
            spins,
            read=1,
            phases=phases,
            z0=self.prepared(values),
            gain=1.0 if te.ndim else echo,
            order_moment=self.spoiler_moment,
            n_states=self.n_states,
        )
        return signal * echo if te.ndim else signal

    @classmethod
    def start(
        cls,
        tissue: Tissue,
        key: PRNGKey,
        *,
        echoes: int = 400,
        tr: float = 10e-3,
        te: float = 2e-3,
        ti: float | None = 20e-3,
        start: str | None = None,
        rms: float | None = None,
        upper: float = MAX_FLIP,
    ) -> "SSFPFID":
        """A fingerprinting schedule to start learning from; see `start_flips`.

        Args:
            tissue: of the precision to work in.
            key: for random starts.
            echoes: number of pulses.
            tr: repetition time [s].
            te: echo time [s].
            ti: inversion time [s], or None for no inversion.
            start: name of a start; `sinusoid` unless given.
            rms: root mean square of the flips [rad].
            upper: largest flip [rad].
        """
        return cls.start_of(tissue, key, echoes, start, upper, rms, tr=tr, te=te, inversion_time=ti)
