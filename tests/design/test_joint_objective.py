"""The joint loss: its gradient, its parts, and the exchange of echoes."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.design.assignment import exchange_step, exchanged
from acqdesign.design.joint_objective import TERMS, JointObjective, JointSettings, Poses, main_lobe
from acqdesign.encoding import StraightLineEncoding, order_views
from acqdesign.recon import nrmse, posterior_mean, spectral_prior
from acqdesign.scene import (
    TissueClasses,
    birdcage_maps,
    fine_shape,
    load_brain,
    support,
    tissue_classes,
    tissues,
)
from acqdesign.signal import crlb, fse

SHAPE, LINES, ECHOES = (1, 10, 8), 24, 6
reconstruct = eqx.filter_jit(JointObjective.reconstruct)
turned = eqx.filter_jit(Poses.__call__)
ALL = {f"weight_{name}": 0.3 for name in TERMS}


def make(shape=SHAPE, coils=0, **settings):
    maps = load_brain(shape=shape, contrast="maps").astype(jnp.float64)
    scene = tissue_classes(maps, tissues("gm,wm,csf", "3T"))
    points = jnp.asarray(np.random.default_rng(3).uniform(-0.5, 0.5, (LINES, 2)))
    views = order_views("random", points, ECHOES, te_echo=3, key=jax.random.key(0))
    smaps = birdcage_maps(coils, shape, dtype=jnp.complex128) if coils else None
    lines = StraightLineEncoding(points, shape, shape[0], smaps=smaps)
    chosen = JointSettings(**({"esp_s": 5e-3, "te_echo": 3, "noise": 0.05} | settings))
    objective = JointObjective(lines, jnp.asarray(views.echo), [scene], chosen)
    return objective, {"points": points, "flips": jnp.linspace(0.5, 1.2, ECHOES)}


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        # Few iterations: later ones magnify rounding, and with it the differences' noise.
        ({}, ALL | {"iterations": 6}),
        pytest.param(
            {"shape": (3, 6, 5), "coils": 2},
            {"reconstruction": "subspace", "weight_noise": 0.3},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["image, all terms", "subspace, coils"],
)
def test_gradient_is_that_of_central_differences(more, settings):
    """Through EPG, encoding, conjugate gradients, basis, noise, point spread and bounds: cosine >= 0.99999."""
    objective, params = make(**more, **settings)
    flat, tree = jax.flatten_util.ravel_pytree(params)

    @jax.jit
    def loss(x):
        return objective(tree(x), jax.random.key(1))[0]

    gradient = tree(jax.jit(jax.grad(loss))(flat))
    step = 1e-6
    shifts = step * jnp.eye(flat.size)
    values = jax.jit(lambda s: jax.lax.map(loss, flat + s))
    wanted = tree((values(shifts) - values(-shifts)) / (2 * step))
    for name in params:
        found, expected = np.asarray(gradient[name]).ravel(), np.asarray(wanted[name]).ravel()
        assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.999999
        np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(expected), rtol=1e-5)


def test_image_is_the_reconstruction_of_explicit_samples():
    """Without noise: samples of all classes, matched filter, regularised solution, one real scale."""
    objective, params = make(noise=0.0, ridge=1e-2, iterations=6)
    maps, target = objective.maps[:, 0], objective.target()[0]
    prior = spectral_prior(SHAPE[1:], 1.5, dtype=jnp.float64)

    @jax.jit
    def by_hand(params):
        encoding = objective.encoding(params)
        # How much of the target is in each echo's image, by least squares.
        echoes = jnp.einsum("ce,cxyz->exyz", encoding.amplitudes, maps)
        weights = encoding.at_lines(jnp.einsum("exyz,xyz->e", echoes, target) / jnp.sum(target**2))
        lines = encoding.lines
        rhs = lines.adjoint(encoding.forward(maps), weights)
        where = support(maps.sum(0))
        return posterior_mean(lines.normal(weights**2), rhs, prior, ridge=1e-2, iterations=6, support=where)

    found = by_hand(params)
    found = found * jnp.sum((found * target).real) / jnp.sum(jnp.abs(found) ** 2)
    np.testing.assert_allclose(reconstruct(objective, params, jax.random.key(0))[0], found, atol=1e-9)
    assert float(objective(params, jax.random.key(0))[0]) == pytest.approx(
        float(nrmse(found, target)), rel=1e-9
    )


@pytest.mark.parametrize("reconstruction", ["image", "subspace"])
def test_noise_term_is_the_standard_deviation_of_reconstructions(reconstruction):
    """The estimate from single realisations against the spread of many noisy reconstructions."""
    objective, params = make(weight_noise=1.0, reconstruction=reconstruction)

    @eqx.filter_jit
    def both(key):
        found, terms = objective._evaluate(params, key, frozenset({"noise"}))
        return found, terms["noise"]

    noisy, terms = jax.vmap(both)(jax.random.split(jax.random.key(5), 300))
    rms = jnp.sqrt(jnp.mean(objective.target() ** 2))
    spread = jnp.sqrt(jnp.mean(jnp.abs(noisy - noisy.mean(0)) ** 2)) / rms
    # The scale that fits each noisy image to the target varies too: a few per cent.
    assert float(jnp.mean(terms)) == pytest.approx(float(spread), rel=0.1)


@pytest.mark.slow
def test_full_subspace_fits_each_tissue_better():
    """With the whole subspace and ample lines, no contrast is left unexplained: the error falls to the ridge's."""
    full, params = make(
        noise=0.0, esp_s=0.04, reconstruction="subspace", rank=3, ridge=1e-8, iterations=200, prior=0.0
    )
    points = jnp.asarray(np.random.default_rng(0).uniform(-0.5, 0.5, (600, 2)))
    echo = jnp.arange(600) % ECHOES
    full = eqx.tree_at(lambda o: o.echo, full, echo)
    image = JointObjective(
        full.lines,
        echo,
        [TissueClasses(full.maps[:, 0], full.scene.t1, full.scene.t2)],
        dataclasses.replace(full.settings, reconstruction="image"),
    )
    more = {**params, "points": points}
    errors = [float(o(more, jax.random.key(0))[0]) for o in (full, image)]
    assert errors[0] < 0.1 * errors[1]


@pytest.mark.slow
def test_bounds_are_those_of_the_signal_model():
    objective, params = make(weight_crlb_t2=1.0)
    t1, t2 = objective.scene.t1, objective.scene.t2
    bounds = []
    for a, b in zip(t1, t2, strict=True):
        slope = jax.jacfwd(lambda t, a=a: fse(params["flips"], 5e-3, a, t))(b)
        echoes = fse(params["flips"], 5e-3, a, b)
        bounds.append(crlb(slope[:, None], signal=echoes)[0] / b**2)
    wanted = 0.05 * np.sqrt(np.mean(bounds))
    assert float(objective(params, jax.random.key(0))[1]["crlb_t2"]) == pytest.approx(wanted, rel=1e-9)


def test_main_lobe_of_a_gaussian_and_of_a_lobe_beside_it():
    n = jnp.arange(16) - 8
    sigma = 0.6
    energy = jnp.exp(-(n[:, None] ** 2 + n[None] ** 2) / (2 * sigma**2))
    found = main_lobe(jnp.sqrt(energy))
    # Two axes of variance sigma²; sums over voxels are those of the integral to 1e-2 at this width.
    assert float(found["width"]) == pytest.approx(np.sqrt(2) * sigma, rel=0.02)
    beside = main_lobe(jnp.sqrt(jnp.zeros((16, 16)).at[8, 8].set(1.0).at[2, 3].set(0.25)))
    assert float(beside["side_lobes"]) == pytest.approx(0.25)
    assert float(beside["width"]) == 0


@pytest.mark.slow
def test_point_spread_of_full_sampling_is_the_prior_s_wiener_filter():
    """Equal amplitudes on the whole grid: the response to a point is s²/(s² + ridge) in k-space."""
    objective, params = make(noise=0.0, ridge=0.1, iterations=60)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(10) / 10 - 0.5, jnp.arange(8) / 8 - 0.5, indexing="ij"), -1)
    scene = TissueClasses(objective.maps[:1, 0], jnp.array([1.0]), jnp.array([0.08]))
    lines = StraightLineEncoding(grid.reshape(-1, 2), SHAPE, 1)
    one = JointObjective(lines, jnp.zeros(80, jnp.int32), [scene], objective.settings)
    flips = jnp.array([jnp.pi])
    psf = one.point_spread({"points": lines.points, "flips": flips})
    # With a pulse of 180° the only echo is exp(-esp/T2), the target exp(-4 esp/T2).
    gain = float(jnp.exp(3 * 5e-3 / 0.08))
    power = spectral_prior(SHAPE[1:], 1.5, dtype=jnp.float64) ** 2 * gain**2
    wanted = jnp.fft.fftshift(jnp.fft.ifft2(power / (power + 0.1)))
    np.testing.assert_allclose(psf, wanted, atol=1e-9)
    assert params["points"].shape == (LINES, 2)


def test_unknown_tissues_are_reconstructed_with_those_assumed():
    """`known` changes what the reconstruction assumes, never the data or the target."""
    objective, params = make(noise=0.0)
    scene = TissueClasses(objective.maps[:, 0], 0.9 * objective.scene.t1, 1.4 * objective.scene.t2)
    other = JointObjective(objective.lines, objective.echo, [scene], objective.settings)
    blind = JointObjective(objective.lines, objective.echo, [scene], objective.settings, known=objective)
    key = jax.random.key(0)
    np.testing.assert_array_equal(other.target(), blind.target())
    assert float(blind(params, key)[0]) != float(other(params, key)[0])
    same = JointObjective(
        objective.lines,
        objective.echo,
        [TissueClasses(objective.maps[:, 0], objective.scene.t1, objective.scene.t2)],
        objective.settings,
        known=objective,
    )
    assert float(same(params, key)[0]) == pytest.approx(float(objective(params, key)[0]), rel=1e-12)


def test_each_scan_looks_only_where_its_own_head_is():
    """Whatever is known of another head; in a new pose at every step, where that pose is."""
    objective, params = make()
    there = jnp.roll(objective.maps[:, 0], 2, axis=2).at[:, :, :4].set(0)
    scene = TissueClasses(there, objective.scene.t1, objective.scene.t2)
    moved = JointObjective(objective.lines, objective.echo, [scene], objective.settings, known=objective)
    head = support(there.sum(0))
    assert 0 < head.mean() < 0.8
    found = reconstruct(moved, params, jax.random.key(0))[0]
    np.testing.assert_array_equal(found != 0, head == 1)

    fine = load_brain(shape=fine_shape(SHAPE), contrast="maps").astype(jnp.float64)
    fine = fine.at[:, :, : fine.shape[2] // 2].set(0)
    posed = eqx.tree_at(
        lambda o: o.poses,
        objective,
        Poses(fine[:, None], jnp.ones((3, *SHAPE))),
        is_leaf=lambda leaf: leaf is None,
    )
    key = jax.random.key(4)
    there = support(turned(posed.poses, jax.random.split(key)[1]).sum(0))[0]
    assert 0 < there.mean() < 0.8
    np.testing.assert_array_equal(reconstruct(posed, params, key)[0] != 0, there == 1)


def test_poses_turn_all_tissues_together_and_anew_for_each_key():
    fine = load_brain(shape=fine_shape((1, 12, 10)), contrast="maps").astype(jnp.float64)
    spread = jnp.repeat(jnp.array([0.8, 0.7, 1.0]), 2)[:, None, None, None] * jnp.ones((6, 1, 12, 10))
    poses = Poses(jnp.stack([fine, fine], axis=1), spread)
    maps = turned(poses, jax.random.key(0))
    assert maps.shape == (6, 2, 1, 12, 10)
    np.testing.assert_array_equal(maps[0], maps[1])
    total = maps[::2] / jnp.array([0.8, 0.7, 1.0])[:, None, None, None, None]
    assert float(total.sum(0).max()) <= 1 + 1e-6
    assert not np.allclose(maps[:, 0], maps[:, 1])
    assert not np.allclose(maps, turned(poses, jax.random.key(1)))


@pytest.mark.slow
def test_exchange_lowers_the_loss_and_moves_moments():
    """Positions and the optimiser's moments move together, only where that lowers the loss; starts by themselves."""
    objective, params = make()
    key, taken = jax.random.key(7), 0
    exchange = exchange_step(objective, key)
    for step in range(3):
        moments = {"mu": params["points"] * 10, "count": jnp.zeros(())}
        moved, state = exchange(step, params, moments)
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
    both = {
        "points": jnp.stack([params["points"], -params["points"]]),
        "flips": jnp.stack([params["flips"]] * 2),
    }
    moved_both, state = exchange(2, both, {"mu": both["points"] * 10})
    np.testing.assert_array_equal(moved_both["points"][0], moved["points"])
    np.testing.assert_array_equal(state["mu"], moved_both["points"] * 10)


def test_an_exchange_moves_positions_to_their_echoes_and_no_others():
    """Whatever line of an echo the assignment names, the same one is taken."""
    rng = np.random.default_rng(0)
    echo = rng.permutation(np.arange(24) % 6)
    for _ in range(20):
        slot = rng.permutation(24)
        source = exchanged(slot, echo)
        np.testing.assert_array_equal(np.sort(source), np.arange(24))
        np.testing.assert_array_equal(echo[np.argsort(source)], echo[slot])
        stay = echo[slot] == echo
        np.testing.assert_array_equal(source[stay], np.arange(24)[stay])
        # Slots of one echo shuffled among themselves.
        other = np.arange(24)
        for e in range(6):
            other[np.flatnonzero(echo == e)] = rng.permutation(np.flatnonzero(echo == e))
        np.testing.assert_array_equal(exchanged(other[slot], echo), source)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["lines of an echo", "mirrored lines too"])
def test_exchange_does_not_follow_rounding(tied):
    """Parameters changed by their last digits exchange alike; also where lines of an echo lie at k and -k."""
    objective, params = make(**({"noise": 0.0, "ridge": 1e-2} if tied else {}))
    if tied:
        pairs = jnp.asarray(np.random.default_rng(2).uniform(-0.4, 0.4, (4, 2)))
        own = jnp.array([[0.0, 0.0], [-0.5, 0.0], [0.0, -0.5], [-0.5, -0.5]])
        params = {"points": jnp.concatenate([pairs, -pairs, own]), "flips": jnp.linspace(0.5, 1.2, 4)}
        objective = eqx.tree_at(lambda o: o.echo, objective, jnp.arange(12) % 4)
    exchange, rng, moved = exchange_step(objective, jax.random.key(7)), np.random.default_rng(0), 0
    for step in range(1 if tied else 3):
        wanted = exchange(step, params, {})[0]["points"]
        moved += not np.array_equal(wanted, params["points"])
        for _ in range(10 if tied else 4):
            near = {k: v * (1 + 1e-14 * rng.normal(size=v.shape)) for k, v in params.items()}
            np.testing.assert_allclose(exchange(step, near, {})[0]["points"], wanted, rtol=1e-12)
        params = {**params, "points": wanted}
    assert moved


def test_errors_name_the_setting():
    with pytest.raises(ValueError, match=r"noise: got -1"):
        JointSettings(esp_s=5e-3, te_echo=3, noise=-1.0)
    with pytest.raises(ValueError, match="Did you mean 'subspace'"):
        JointSettings(esp_s=5e-3, te_echo=3, reconstruction="subspac")
    with pytest.raises(ValueError, match=r"weight_noise: got 1.0, expected 0 without noise"):
        JointSettings(esp_s=5e-3, te_echo=3, weight_noise=1.0)
    with pytest.raises(ValueError, match=r"weight_nrmse: got 0\.0"):
        JointSettings(esp_s=5e-3, te_echo=3, weight_nrmse=0.0)
    with pytest.raises(ValueError, match=r"rank: got 4, expected at most 3, the number of tissue classes"):
        make(reconstruction="subspace", rank=4)


def test_every_product_of_a_step_is_in_full_precision():
    """GPUs would take TF32, of ten bits, for products that do not ask for more."""
    for change in (ALL, {"reconstruction": "subspace"}):
        objective, params = make(coils=2, **change)
        step = jax.jit(jax.grad(lambda p, o=objective: o(p, jax.random.key(0))[0]))
        products = [line for line in step.lower(params).as_text().splitlines() if "dot_general" in line]
        assert len(products) > 10
        assert all("HIGHEST" in line for line in products)
