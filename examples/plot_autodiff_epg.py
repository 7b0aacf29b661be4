r"""
Automatic differentiation of an echo train
==========================================

An extended-phase-graph simulation is a chain of small linear maps, so every derivative of its signal is exact and
cheap. This example follows torchsim's "Automatic differentiation": the signal of a fast-spin-echo train, its
derivative by T2, the Cramér–Rao bound of T2 and the gradient of that bound by all flip angles, by automatic
differentiation against finite differences.

For samples :math:`s` whose real and imaginary parts have white noise of standard deviation :math:`\sigma`,

.. math:: I = \frac{1}{\sigma^2} \sum_n \Big(\frac{\partial s_n}{\partial T_2}\Big)^2, \qquad
          \operatorname{var}(T_2) \ge I^{-1}.
"""

# %%
# Set-up: 96 refocusing pulses of 60°, 5 ms apart
# -----------------------------------------------
# A sequence is a module of its design variables; ``signal`` gives its echoes for a tissue.
import time

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.units import rad_from_deg
from acqdesign.plot import plot_echoes, plot_flips
from acqdesign.scene import Tissue
from acqdesign.signal import FSE, crlb, tissue_bounds

ECHOES, ESP, T1, T2 = 96, 5e-3, 1.0, 0.1  # [s]
flips = rad_from_deg(jnp.full(ECHOES, 60.0))


def echoes(flips, t2):
    return FSE(flips, ESP).signal(Tissue(T1, t2))


# %%
# Signal and its derivative by T2
# -------------------------------
# Forward mode carries the derivative through the same scan as the signal; two evaluations give a finite difference.


@jax.jit
def signal_and_slope(flips, t2):
    return jax.jvp(lambda t2: echoes(flips, t2), (t2,), (jnp.ones_like(t2),))


t2 = jnp.asarray(T2)
signal, slope = signal_and_slope(flips, t2)
step = 1e-2 * T2
finite = (echoes(flips, T2 + step) - echoes(flips, T2 - step)) / (2 * step)
error = float(jnp.abs(slope - finite).max() / jnp.abs(slope).max())
print(f"dS/dT2: largest difference from finite differences {error:.1e} of the largest slope")

figure = plot_echoes(jnp.stack([signal, slope * T2]), names=("S / M0", "T2 · dS/dT2 / M0"), esp_s=ESP)
figure

# %%
# Cramér–Rao bound of T2
# ----------------------
# From the derivatives, or straight from the sequence; M0 and T1 are taken as known here.
print(f"CRLB of T2 for noise of M0: {float(crlb(slope[:, None])[0]):.4g} s²")
straight = tissue_bounds(FSE(flips, ESP), Tissue(T1, T2), ("t2",), nuisance=())
print(f"the same from the sequence: {float(straight[0]):.4g} s²")

# %%
# Gradient of the bound by every flip angle
# -----------------------------------------
# Reverse mode over forward mode: one pass, whatever the number of flips. Finite differences need two
# evaluations of the bound for each of the 96.


def bound(flips):
    return crlb(signal_and_slope(flips, t2)[1][:, None])[0]


value_and_gradient = jax.jit(jax.value_and_grad(bound))
alone = jax.jit(bound)


def by_finite_differences(flips, step=1e-2):
    found = np.zeros(flips.size)
    for n in range(flips.size):
        moved = [alone(flips.at[n].add(sign * step)) for sign in (1, -1)]
        found[n] = (moved[0] - moved[1]) / (2 * step)
    return found


def seconds(function, repeats):
    jax.block_until_ready(function(flips))  # compiles
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(flips))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


exact = value_and_gradient(flips)[1]
finite = by_finite_differences(flips)
cosine = float(exact @ finite / jnp.linalg.norm(exact) / np.linalg.norm(finite))
print(f"cosine of automatic and finite differences: {cosine:.6f}")
automatic_s, finite_s = seconds(value_and_gradient, 50), seconds(by_finite_differences, 1)
print(f"automatic {1e3 * automatic_s:.2f} ms, finite differences {1e3 * finite_s:.0f} ms")

# %%
# One step down the gradient
# --------------------------
lower = flips - 0.1 * exact / jnp.abs(exact).max()
print(f"bound {float(alone(flips)):.4g} -> {float(alone(lower)):.4g} s²")
figure = plot_flips(lower, start=flips)
figure
