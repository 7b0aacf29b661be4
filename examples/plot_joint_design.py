r"""
Learn lines and flips together
==============================

In a fast spin echo scan line :math:`s` is read at echo :math:`e(s)` of a train, so the flip angles :math:`\alpha`
weight k-space, and the positions :math:`k` decide what each echo is used for. With maps :math:`\rho_c` of the tissues
and their echo amplitudes :math:`m_c`,

.. math:: y_s = \sum_c m_c[e(s)](\alpha) \, (A_{k_s} \rho_c) + \text{noise}, \qquad
          \min_{k, \alpha} \; \frac{\|x(k, \alpha) - x^*\|}{\|x^*\|},

where :math:`x` is the image that a scanner would reconstruct and :math:`x^*` the ideal spin echo image at the effective
echo time. One gradient reaches both. This example learns lines alone, flips alone, and both, from one start with one
budget. ``python -m acqdesign.learn_joint --compare`` does it from the command line.
"""

# %%
# Set-up: a plane of the brain, 768 lines in 8 trains of 96 echoes
# ----------------------------------------------------------------
import os

import jax
import jax.numpy as jnp
import optax

from acqdesign.base.units import rad_from_deg
from acqdesign.design import JointObjective, JointSettings
from acqdesign.encoding import StraightLineEncoding, initial_lines, order_views
from acqdesign.optim import ScheduleLimits, fit, schedule_projection
from acqdesign.plot import plot_echoes, plot_flips, plot_images, plot_lines
from acqdesign.scene import load_brain, tissue_classes, tissues

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "150"))
SHAPE, LINES, ECHOES, ESP = (1, 48, 48), 768, 96, 5e-3  # [s]
key = jax.random.key(0)

table = tissues("gm,wm,csf", "3T")
scene = tissue_classes(load_brain(shape=SHAPE, contrast="maps"), table)
begun = initial_lines("poisson", SHAPE, lines=LINES, calibration=15, shutter=True, key=key)
views = order_views("random", begun.points, ECHOES, te_echo=15, key=key)
encoding = StraightLineEncoding(begun.points, SHAPE, samples_per_line=1)
settings = JointSettings(esp_s=ESP, te_echo=15, noise=0.06)  # an effective echo time of 80 ms
objective = JointObjective(encoding, views.echo, [scene], settings)

# %%
# Solve: the same call, whatever may move
# ---------------------------------------
# The RMS flip, a measure of deposited power, is held at 45° by projection.
limits = ScheduleLimits(0.0, rad_from_deg(180.0), rms=rad_from_deg(45.0))
within_power = schedule_projection(limits, ECHOES)
start = {"points": begun.points, "flips": jnp.full(ECHOES, rad_from_deg(45.0))}


def project(params):
    return {"points": jnp.clip(params["points"], -0.5, 0.5), "flips": within_power(params["flips"])}


def learn(lines=0.0, flips=0.0):
    rates = {"points": lines, "flips": flips}
    adam = {name: optax.adam(optax.cosine_decay_schedule(rate, STEPS)) for name, rate in rates.items()}
    return fit(
        objective,
        start,
        optimizer=optax.multi_transform(adam, {name: name for name in adam}),
        steps=STEPS,
        key=key,
        project=project,
        learned={"points": jnp.array(lines > 0), "flips": jnp.array(flips > 0)},
        progress=False,
    )


# Learning rates [rad, cycles/voxel] are those found best for each by benchmarks/joint_compare.py.
found = {"flips": learn(flips=0.06), "lines": learn(lines=8e-3), "both": learn(lines=8e-3, flips=0.06)}
designs = {"start": start, **{name: result.params for name, result in found.items()}}

# %%
# Show: the four images
# ---------------------
# Every design is judged with noise that none of them was learned with.
judge = jax.jit(
    lambda params, key: (objective.reconstruct(params, key)[0], objective.terms(params, key)["nrmse"])
)
judged = {
    name: judge(jax.tree.map(jnp.asarray, params), jax.random.key(1)) for name, params in designs.items()
}
captions = {name: f"NRMSE {float(error):.3f}" for name, (_, error) in judged.items()}
for name, caption in captions.items():
    print(f"{name:>6}: {caption}")
truth = objective.target()[0]
figure = plot_images(truth, {name: image for name, (image, _) in judged.items()}, captions=captions)
figure

# %%
# Where lines went, by their echo
# -------------------------------
both = found["both"].params
figure = plot_lines(both["points"], start=start["points"], echo=views.echo)
figure

# %%
# The flips that go with them
# ---------------------------
figure = plot_flips(both["flips"], start=start["flips"])
figure

# %%
# What the tissues' echoes look like
# ----------------------------------
echoes = [objective.amplitudes(jnp.asarray(design["flips"])) for design in (both, start)]
figure = plot_echoes(echoes[0], names=[t.name for t in table], esp_s=ESP, start=echoes[1])
figure
