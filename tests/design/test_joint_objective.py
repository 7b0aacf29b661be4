"""The joint loss: its gradient, its parts, and the exchange of echoes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.design.assignment import exchange_step
from acqdesign.design.joint_objective import JointObjective, JointSettings
from acqdesign.encoding import StraightLineEncoding, order_views
from acqdesign.recon import conjugate_gradients, nrmse
from acqdesign.scene import load_brain, tissue_classes, tissues

SHAPE, LINES, ECHOES = (1, 10, 8), 24, 6


def make(**settings):
    maps = load_brain(shape=SHAPE, contrast="maps").astype(jnp.float64)
    scene = tissue_classes(maps, tissues("gm,wm,csf", "3T"))
    points = jnp.asarray(np.random.default_rng(3).uniform(-0.5, 0.5, (LINES, 2)))
    views = order_views("random", points, ECHOES, te_echo=3, key=jax.random.key(0))
    lines = StraightLineEncoding(points, SHAPE, 1)
    chosen = JointSettings(**({"esp_s": 5e-3, "te_echo": 3, "noise": 0.05} | settings))
    objective = JointObjective(lines, jnp.asarray(views.echo), [scene], chosen)
    return objective, {"points": points, "flips": jnp.linspace(0.5, 1.2, ECHOES)}


@pytest.mark.parametrize(
    "settings",
    [{}, {"reconstruction": "subspace"}, {"weight_noise": 1.0, "weight_psf": 0.3}],
    ids=["image", "subspace", "all terms"],
)
def test_gradient_is_that_of_central_differences(settings):
    """Through EPG, encoding, conjugate gradients, basis, noise and point spread: cosine >= 0.99999."""
    objective, params = make(**settings)
    loss = eqx.filter_jit(lambda p: objective(p, jax.random.key(1))[0])
    gradient = eqx.filter_jit(jax.grad(lambda p: objective(p, jax.random.key(1))[0]))(params)
    step = 1e-6
    for name, value in params.items():
        basis = np.eye(value.size).reshape(-1, *value.shape)
        wanted = np.array(
            [
                (loss({**params, name: value + step * e}) - loss({**params, name: value - step * e}))
                / (2 * step)
                for e in basis
            ]
        )
        found = np.asarray(gradient[name]).ravel()
        assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.999999
        np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(wanted), rtol=1e-5)


def test_image_is_the_reconstruction_of_explicit_samples():
    """Without noise: samples of all classes, matched filter, conjugate gradients, one real scale."""
    objective, params = make(noise=0.0)
    encoding = objective.encoding(params)
    kspace = encoding.forward(objective.maps[:, 0])
    reference = objective.share @ encoding.amplitudes
    weights = encoding.at_lines(reference)
    lines = encoding.lines
    rhs = lines.adjoint(kspace, weights)
    found = conjugate_gradients(lines.normal(weights**2), rhs, ridge=1e-2, iterations=12)
    target = objective.target()[0]
    found = found * jnp.sum((found * target).real) / jnp.sum(jnp.abs(found) ** 2)
    np.testing.assert_allclose(objective.reconstruct(params, jax.random.key(0))[0], found, atol=1e-9)
    assert float(objective(params, jax.random.key(0))[0]) == pytest.approx(
        float(nrmse(found, target)), rel=1e-9
    )


def test_noise_term_is_the_standard_deviation_of_reconstructions():
    """Hutchinson's estimate over many probes against the spread of many noisy reconstructions."""
    objective, params = make(weight_noise=1.0)
    keys = jax.random.split(jax.random.key(5), 300)
    terms = eqx.filter_jit(jax.vmap(lambda k: objective(params, k)[1]["noise"]))(keys)
    quiet, _ = make(noise=0.0)
    clean = quiet.reconstruct(params, keys[0])
    noisy = eqx.filter_jit(jax.vmap(lambda k: objective.reconstruct(params, k)))(keys)
    target = objective.target()
    spread = jnp.sqrt(jnp.mean(jnp.abs(noisy - noisy.mean(0)) ** 2)) / jnp.sqrt(jnp.mean(target**2))
    assert np.isfinite(clean).all()
    # The scale that fits each noisy image to the target varies too: a few per cent.
    assert float(jnp.mean(terms)) == pytest.approx(float(spread), rel=0.1)


def test_exchange_lowers_the_loss_and_moves_moments():
    """Positions and the optimiser's moments move together, and only where that lowers the loss itself."""
    objective, params = make(weight_psf=0.3)
    key, taken = jax.random.key(7), 0
    for step in range(6):
        moments = {"mu": params["points"] * 10, "count": jnp.zeros(())}
        moved, state = exchange_step(objective, key)(step, params, moments)
        noise_key = jax.random.fold_in(key, step)
        before, after = (float(objective(p, noise_key)[0]) for p in (params, moved))
        exchanged = not np.array_equal(moved["points"], params["points"])
        assert after < before if exchanged else moved is params
        np.testing.assert_array_equal(state["mu"], moved["points"] * 10)
        assert sorted(map(tuple, np.asarray(moved["points"]))) == sorted(
            map(tuple, np.asarray(params["points"]))
        )
        taken += exchanged
    assert taken


def test_errors_name_the_setting():
    with pytest.raises(ValueError, match=r"noise: got -1"):
        JointSettings(esp_s=5e-3, te_echo=3, noise=-1.0)
    with pytest.raises(ValueError, match="Did you mean 'subspace'"):
        JointSettings(esp_s=5e-3, te_echo=3, reconstruction="subspac")
    with pytest.raises(ValueError, match=r"weight_noise: got 1.0, expected 0 with a subspace"):
        JointSettings(esp_s=5e-3, te_echo=3, reconstruction="subspace", weight_noise=1.0)
