"""A problem: exact gradients whatever it is made of, held entries that never move, limits met, and errors that help."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.base.trees import leaf_names
from acqdesign.design import Design, Problem, bound, dissimilarity, learn, noise, nrmse, scaled_error, term, width
from acqdesign.encoding import Lines, Trajectory
from acqdesign.optim import Box, Constraint, Limits, Scaled, Spline, held, lbfgs
from acqdesign.optim.fit import NonFiniteError
from acqdesign.recon import CG, DensityAdjoint, Prior, Subspace
from acqdesign.scene import brain, tissues
from acqdesign.signal import BSSFP, FSE, SSFPFID, Pulse, Readout, Sequence, Wait

from ._problems import KEY, PLANE, check_gradient, gradient, joint, loss, of_lines, points

TISSUE = tissues("wm", "gm").astype(np.float64)
FLIPS = jnp.asarray(0.8 + 0.5 * np.sin(np.arange(4)))


# Gradients


@pytest.mark.parametrize(
    "make",
    [
        # Few iterations: later ones magnify rounding, and with it the differences' noise.
        lambda: joint(
            reconstruction=Prior(iterations=6), terms=nrmse() + 0.3 * noise() + 0.3 * width() + 0.3 * bound("t1", "t2")
        ),
        lambda: joint((3, 6, 5), coils=2, reconstruction=Subspace(iterations=6), terms=nrmse() + 0.3 * noise()),
        lambda: of_lines(terms=scaled_error(), reconstruction=DensityAdjoint("pipe")),
        lambda: of_lines(coils=2, reconstruction=CG(iterations=3), noise=0.01),
        lambda: of_lines(coils=2, terms=dissimilarity(), reconstruction=CG(iterations=3)),
    ],
    ids=["all terms", "subspace", "adjoint", "cg with coils", "ssim"],
)
def test_gradients_of_images_are_those_of_differences(make):
    """Through phase graphs, encoding, density, conjugate gradients, noise, point spread and bounds."""
    check_gradient(make(), entries=12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(23, 28, 23), (12, 14, 10)])
def test_the_recipe_s_gradient_is_that_of_differences_at_its_own_size(shape):
    """Density recomputed and differentiated, in every entry, at its own shape and an even one."""
    scene = brain(shape, dtype=np.float64)
    lines = 253 if shape[0] == 23 else 60
    readout = jnp.linspace(-0.5, 0.5, 128)
    start = Lines.start(scene, jax.random.key(0), init="reference", lines=lines)
    start = Lines(start.points, start.moves, readout=readout)
    check_gradient(Problem(scene, start, terms=scaled_error(), reconstruction=DensityAdjoint("pipe")), step=1e-5)


@pytest.mark.parametrize(
    "sequence",
    [
        FSE(FLIPS, 0.01, tr=1.0),
        SSFPFID(FLIPS, Scaled(jnp.full(4, 1.1), 0.01), 2e-3, inversion_time=Scaled(jnp.asarray(0.9), 0.02)),
        BSSFP(FLIPS, 5e-3, inversion_time=0.02),
        FSE(Spline(jnp.linspace(0.6, 1.4, 3), 4), 0.01),
    ],
    ids=["fse", "mrf with learned times", "bssfp", "spline"],
)
def test_gradients_of_bounds_are_those_of_differences(sequence):
    check_gradient(Problem(TISSUE, sequence=sequence, terms=bound("t2")), step=1e-5)


def test_forward_mode_agrees_with_reverse():
    """Through the density too."""
    problem = of_lines(terms=scaled_error(), reconstruction=DensityAdjoint("pipe"))
    learned, rest = problem.split()
    direction = jnp.asarray(np.random.default_rng(0).standard_normal(learned.trajectory.points.shape))

    @eqx.filter_jit
    def along(problem, direction):
        value = lambda p: problem.loss(  # noqa: E731
            eqx.combine(eqx.tree_at(lambda d: d.trajectory.points, learned, p), rest), KEY
        )[0]
        return jax.jvp(value, (learned.trajectory.points,), (direction,))[1]

    slope = gradient(problem)[2].trajectory.points
    np.testing.assert_allclose(along(problem, direction), jnp.vdot(slope, direction), rtol=1e-8)


def test_several_starts_are_the_starts_one_by_one():
    """Losses and gradients side by side under vmap."""
    problem = of_lines()
    learned, rest = problem.split()
    starts = jnp.stack([points(20, seed=s) for s in (1, 2)])

    @eqx.filter_jit
    def one(p):
        value = lambda p: problem.loss(  # noqa: E731
            eqx.combine(eqx.tree_at(lambda d: d.trajectory.points, learned, p), rest), KEY
        )[0]
        return jax.value_and_grad(value)(p)

    losses, slopes = eqx.filter_jit(jax.vmap(one))(starts)
    for p, value, slope in zip(starts, losses, slopes, strict=True):
        alone, alone_slope = one(p)
        np.testing.assert_allclose(value, alone, rtol=1e-9)
        np.testing.assert_allclose(slope, alone_slope, atol=1e-7 * float(jnp.abs(slope).max()))


# What is learned, and what is held


class Kept(FSE):
    """A train whose first two flips stay."""

    def learned(self):
        mask = jnp.arange(len(self.flips)) >= 2
        return eqx.tree_at(lambda s: s.flips, super().learned(), mask)


def with_held(which):
    """Problems in which some entries are held."""
    if which == "lines":
        scene = brain((5, 8, 7), dtype=np.float64)
        return Problem(scene, Lines(points(20), jnp.arange(20) >= 5, samples=9), noise=0.02)
    if which == "flips":
        limits = [Limits(0.0, np.pi, rms=0.8, step=0.3)]
        return Problem(TISSUE, sequence=Kept(FLIPS, 0.01), terms=bound("t2"), limits=limits)
    problem = joint()
    lines = Lines(problem.trajectory.points, jnp.arange(24) % 3 > 0)
    return Problem(problem.scene, lines, problem.sequence, noise=0.05, order=None)


OPTIMIZERS = {
    "adamw": optax.adamw(1e-2, weight_decay=0.1),
    "lion": optax.lion(1e-2),
    "noisy sgd": optax.noisy_sgd(1e-2, eta=0.1, key=0),
}


@pytest.mark.parametrize(
    ("which", "optimizer"), [("lines", "adamw"), ("flips", "noisy sgd"), ("flips", "lbfgs"), ("both", "lion")]
)
def test_held_entries_keep_every_bit(which, optimizer):
    """Whatever the optimiser does to an entry without a gradient: decay, signs, noise or line searches."""
    problem = with_held(which)
    own, masks = leaf_names(problem.design), leaf_names(problem.masks())
    chosen = lbfgs() if optimizer == "lbfgs" else OPTIMIZERS[optimizer]
    _, found, begin = learn(problem, 3, optimizer=chosen, key=KEY)
    moved = 0
    for name, leaf in leaf_names(found).items():
        free = np.broadcast_to(np.asarray(masks[name]), np.shape(leaf))
        np.testing.assert_array_equal(np.asarray(leaf)[~free], np.asarray(own[name])[~free])
        np.testing.assert_array_equal(np.asarray(leaf_names(begin[0])[name])[~free], np.asarray(own[name])[~free])
        moved += np.sum(np.asarray(leaf)[free] != np.asarray(own[name])[free]) if free.any() else 0
    assert moved


@pytest.mark.parametrize("which", ["flips", "both"])
def test_held_entries_have_no_gradient(which):
    problem = with_held(which)
    slope, masks = leaf_names(gradient(problem)[2]), leaf_names(problem.masks())
    for name, leaf in slope.items():
        free = np.broadcast_to(np.asarray(masks[name]), leaf.shape)
        assert np.all(np.asarray(leaf)[~free] == 0)
        assert np.all(np.asarray(leaf)[free] != 0)


def test_each_start_holds_its_own_entries():
    """A calibration block of several starts: values and masks differ from start to start."""
    problem = with_held("lines")
    masks = [jnp.asarray(np.random.default_rng(s).random(20) > 0.3) for s in (1, 2)]
    lines = [Lines(points(20, seed=s), mask, samples=9) for s, mask in enumerate(masks)]
    starts = [Design(line, None) for line in lines]
    result, found, _ = learn(problem, 2, starts=starts, key=KEY)
    own = lines[result.start]
    np.testing.assert_array_equal(found.trajectory.points[~own.moves], own.points[~own.moves])
    np.testing.assert_array_equal(found.trajectory.moves, own.moves)
    assert np.all(found.trajectory.points[own.moves] != own.points[own.moves])


def test_what_is_learned_is_said_by_name():
    assert list(joint().learning("trajectory").learned()) == ["trajectory.points"]
    assert with_held("both").learned() == {"trajectory.points": "(24, 2), 16 of 24", "sequence.flips": "(6,)"}


# Limits


def test_every_design_along_the_way_meets_all_limits():
    """Of the caller and of the parts themselves, on flips and on lines at once."""
    limits = [Limits(rms=0.7), Limits(0.2, 1.1, step=0.2)]
    base = joint()
    lines = Lines(base.trajectory.points, half_width=0.3)
    problem = Problem(base.scene, lines, base.sequence, limits=limits, noise=0.05, order=None)
    _, found, begin = learn(problem, 3, optimizer=optax.adam(0.2), key=KEY)
    for design in (found, *begin):
        flips = np.asarray(design.sequence.flips)
        assert np.sqrt(np.mean(flips**2)) <= 0.7 * (1 + 1e-6)
        assert flips.min() >= 0.2 - 1e-6
        assert flips.max() <= 1.1 + 1e-6
        assert np.abs(np.diff(flips)).max() <= 0.2 + 1e-6
        assert np.abs(design.trajectory.points).max() <= 0.3


def test_a_limit_on_what_is_not_learned_says_nothing_and_one_on_what_is_not_there_says_so():
    box = Box("sequence.flips", 0.0, 1.0)
    assert joint(limits=[box]).learning("trajectory").constraints != joint(limits=[box]).constraints
    with pytest.raises(UsageError, match=r"Box: got where = 'sequence.flip'.*sequence.flips"):
        joint(limits=[Box("sequence.flip", 0.0, 1.0)])


def test_a_learned_echo_train_halves_the_variance_of_t2_at_equal_power():
    train = FSE(jnp.full(32, np.pi / 3), 0.01, tr=1.0)
    problem = Problem(
        tissues("wm").astype(np.float64), sequence=train, terms=bound("t2"), limits=[Limits(rms=np.pi / 3)]
    )
    result, found, _ = learn(problem, 60, optimizer=lbfgs(), key=KEY)
    flips = np.asarray(found.sequence.flips)
    assert np.sqrt(np.mean(flips**2)) <= np.pi / 3 * (1 + 1e-6)
    assert flips.min() >= 0
    assert flips.max() <= np.pi
    assert result.initial_loss / result.final_loss >= 2.0


def test_a_run_traces_its_loss_once():
    """With poses and noise, steps trace nothing anew."""
    traces = []

    def counted(encoding, kspace, noise):
        traces.append(noise)
        return CG(iterations=2)(encoding, kspace, noise)

    scene = brain((5, 8, 7), augment=True)
    problem = of_lines(scene=scene, dtype=np.float32, noise=0.01, reconstruction=counted)
    result, _, _ = learn(problem, 5, key=KEY)
    # Once for the step, and once for the loss after the last.
    assert len(traces) <= 2
    assert len(np.unique(result.history["loss"])) == 6


# Parts of one's own that are wrong


class WrongSignal(Sequence):
    flips: jax.Array
    how: str = eqx.field(static=True)

    def signal(self, tissue):
        right = jnp.ones((*tissue.shape, len(self.flips)))
        return {"shape": right[..., None], "dtype": right > 0, "none": None}[self.how]


class WrongPoints(Trajectory):
    points: jax.Array

    def coordinates(self):
        return self.points


class WrongLimit(Constraint):
    where = "trajectory.points"

    def project(self, points):
        return points[:2]


def wrong_recon(encoding, kspace, noise):
    return encoding.adjoint(kspace)[..., :-1]


PLANES = brain(PLANE, dtype=np.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Problem(PLANES, Lines(points(24)), _wrong("shape")), r"WrongSignal.signal: got .*expected shape \("),
        (lambda: loss(Problem(TISSUE, sequence=_wrong("dtype"))), r"WrongSignal.signal: got .*real or complex"),
        (lambda: loss(Problem(TISSUE, sequence=_wrong("none"))), r"WrongSignal.signal: got .*real or complex"),
        (
            lambda: loss(Problem(PLANES, WrongPoints(jnp.zeros((4, 2))))),
            r"WrongPoints.coordinates: got .*\(readouts, samples, D\)",
        ),
        (lambda: loss(of_lines(reconstruction=wrong_recon)), r"reconstruction wrong_recon: got .*\(anatomies, nx"),
        (lambda: loss(of_lines(terms=term(lambda scan: scan.image))), r"term <lambda>: got .*a real number"),
        (lambda: loss(of_lines(terms=term(lambda scan: scan.image.sum()))), r"term <lambda>: got .*a real number"),
        (lambda: learn(of_lines(limits=[WrongLimit()]), 1), r"WrongLimit.project: got .*an array like trajectory.p"),
        (lambda: loss(of_lines(terms=bound("t2"))), "sequence: got None, expected a sequence, for what a term asks"),
        (lambda: loss(Problem(TISSUE, sequence=FSE(FLIPS, 0.01), terms=nrmse())), "trajectory: got None"),
    ],
)
def test_a_part_that_gives_something_wrong_is_told_by_the_seam_s_name(call, message, unchecked_types):
    with pytest.raises(UsageError, match=message):
        call()


def _wrong(how):
    return WrongSignal(FLIPS, how)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Problem(PLANES), "trajectory: got neither a trajectory nor a sequence"),
        (lambda: Problem(PLANES.maps, Lines(points(4))), "scene: got a ArrayImpl, expected a Scene or a Tissue"),
        (lambda: Problem(PLANES, FSE(FLIPS, 0.01)), "trajectory: got a FSE, expected a Trajectory or None"),
        (lambda: Problem(TISSUE, Lines(points(4))), "scene: got tissues alone, expected a scene with maps"),
        (lambda: of_lines(noise=-1.0), "noise: got -1"),
        (lambda: of_lines(terms=scaled_error), "terms: got a function, expected a Term"),
        (lambda: of_lines(learn=("lines",)), "learn: got 'lines', expected one of trajectory, sequence"),
        (lambda: joint(lines=25), r"lines: got 25, expected a multiple of the 6 echoes.*24 or 30"),
        (lambda: joint(order="radial"), "order"),
        (lambda: of_lines(limits=["box"]), "limits: got 'box', expected constraints"),
        (lambda: joint(limits=[Limits(rms=60.0)]), r"limits: got 60, expected radians.*deg2rad\(60\) is 1.047"),
        (lambda: joint(limits=[Limits(0.0, 180.0)]), "limits: got 180, expected radians"),
        (lambda: learn(of_lines(), 1, key=0), r"key: got 0, expected a random key. jax.random.key\(0\) makes one"),
        (lambda: of_lines(target=lambda tissue: jnp.ones(2)), r"target: got .*expected shape \(3,\)"),
        (lambda: loss(joint(reconstruction=Subspace(rank=4))), "rank: got 4, expected at most 3"),
        (lambda: learn(of_lines(learn=()), 1), "problem: got nothing to learn"),
        (
            lambda: learn(of_lines(), 1, starts=[Design(Lines(points(n)), None) for n in (4, 5)]),
            "starts: got designs of different form",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message, unchecked_types):
    with pytest.raises(UsageError, match=message):
        call()


class NotANumber(Sequence):
    flips: jax.Array

    def signal(self, tissue):
        return jnp.sqrt(-self.flips) * jnp.ones((*tissue.shape, 1))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Problem(TISSUE, sequence=NotANumber(FLIPS)), "NotANumber.signal"),
        (lambda: Problem(PLANES, WrongPoints(jnp.full((4, 5, 2), jnp.nan))), "WrongPoints.coordinates"),
        (lambda: of_lines(reconstruction=lambda *given: jnp.nan * CG()(*given)), "reconstruction <lambda>"),
        (lambda: of_lines(terms=term(lambda scan: jnp.nan * scan.image.real.sum())), "term '<lambda>'"),
    ],
)
def test_what_is_not_finite_is_told_by_the_seam_s_name(make, name):
    with pytest.raises((NonFiniteError, UsageError), match=f"(step 0: not finite: )?{name}"):
        learn(make(), 2)


def test_python_numbers_and_held_fields_are_not_learned():
    class Two(Sequence):
        flips: jax.Array
        wait: float
        delay: jax.Array = held()

        def events(self):
            for flip in self.flips:
                yield from (Pulse(flip), Wait(self.wait), Readout(), Wait(self.delay))

    problem = Problem(TISSUE, sequence=Two(FLIPS, 0.01, jnp.asarray(0.02)))
    assert list(problem.learned()) == ["sequence.flips"]
