"""An inversion, and a train of spoiled pulses after it."""

import jax
import jax.numpy as jnp

from acqdesign.signal import Pulse, Readout, Sequence, Spoil, Wait


class InversionTrain(Sequence):
    flips: jax.Array  # (pulses,) [rad]
    ti: jax.Array  # [s]

    def events(self):
        yield Pulse(jnp.pi)
        yield Spoil()
        yield Wait(self.ti)
        for flip in self.flips:
            yield Pulse(flip)
            yield Readout(te=2e-3)  # waits 2 ms, then reads
            yield Wait(8e-3, orders=1)  # 8 ms, and a gradient that dephases by one order

    @classmethod
    def start(cls, tissue, key, echoes=32):  # for the command line, and for several starts
        return cls(jnp.linspace(0.2, 0.8, echoes), jnp.asarray(0.4))
