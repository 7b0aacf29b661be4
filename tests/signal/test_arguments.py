"""Arguments of public functions of signal and encoding: accepted where meaningful, else refused in one line of ours."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.encoding import nufft_adjoint, nufft_forward, pipe_density
from acqdesign.scene import Tissue
from acqdesign.signal import BSSFP, FSE, MPRAGE, SPGR, SSFPFID, Pulse, Readout, Wait, crlb, play

SEQUENCES = {
    "fse": FSE,
    "fse, repeated": lambda flips: FSE(flips, tr=1.0),
    "spgr": lambda flips: SPGR(flips, 1e-2, 2e-3),
    "spgr, steady": lambda flips: SPGR(flips, 1e-2, 2e-3, state="steady"),
    "ssfp": lambda flips: SSFPFID(flips, 1e-2, 2e-3),
    "bssfp": lambda flips: BSSFP(flips, 1e-2),
    "mprage": lambda flips: MPRAGE(flips, 8e-3, inversion_time=0.9, tr=2.3),
}
FLIPS = np.full(4, 0.3, np.float32)
pytestmark = pytest.mark.usefixtures("unchecked_types")


@pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES)
def test_lists_integers_and_empty_batches_mean_what_they_say(make):
    wanted = make(jnp.asarray(FLIPS)).signal(Tissue(jnp.array([1.0, 2.0]), jnp.array([0.1, 0.2])))
    np.testing.assert_allclose(make(FLIPS.tolist()).signal(Tissue([1, 2], [0.1, 0.2])), wanted, rtol=1e-5)
    none = make(FLIPS).signal(Tissue(np.ones(0), np.ones(0)))
    assert (none.shape, none.dtype) == ((0, 4), wanted.astype(np.result_type(wanted.dtype, 1.0)).dtype)


@pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize(
    ("flips", "times", "message"),
    [
        (None, (1.0, 0.1), "flips: got"),
        (FLIPS.astype(np.float16), (1.0, 0.1), "flips: got .* float16"),
        (np.full((2, 2), 0.3), (1.0, 0.1), r"flips: got .*\(2, 2\)"),
        (np.full(4, 60.0), (1.0, 0.1), r"flips: got 60, expected radians, .* jnp.deg2rad\(60\) is 1.047"),
        (FLIPS, (None, 0.1), "t1: got None"),
        (FLIPS, (np.ones(3), np.full(2, 0.1)), r"t2: got shape \(2,\)"),
        (FLIPS, (0.0, 0.0), "t1: got 0.0, expected values > 0"),
    ],
)
def test_others_are_refused_by_name(make, flips, times, message):
    with pytest.raises(UsageError, match=message):
        make(flips).signal(Tissue(*times))


def test_increments_of_single_precision_and_traced_ones():
    """117° in single precision has a steady state as in double; one that is not known is refused."""
    steady = lambda increment: SPGR(FLIPS, 1e-2, 2e-3, state="steady", rf_increment=increment).signal(Tissue(1.0, 0.1))  # noqa: E731
    np.testing.assert_array_equal(steady(jnp.deg2rad(jnp.float32(117.0))), steady(np.deg2rad(117.0)))
    with pytest.raises(UsageError, match=r"rf_increment: got 115\.4°, expected a whole number of half degrees"):
        steady(np.deg2rad(115.4))
    with pytest.raises(UsageError, match="rf_increment: got a traced number"):
        jax.jit(steady)(2.0)


def test_derivatives_as_lists():
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]
    np.testing.assert_array_equal(crlb(rows, values=[1, 2]), crlb(jnp.array(rows), values=jnp.array([1.0, 2.0])))
    with pytest.raises(UsageError, match="jacobian: got None"):
        crlb(None)


@pytest.mark.parametrize("points", [None, [[0.0, 0.0]], np.zeros((5, 2), np.float16), np.zeros((5, 2), int)])
def test_points_are_arrays_of_single_or_double_precision(points):
    for call in (
        lambda: nufft_forward(np.ones((8, 8)), points),
        lambda: nufft_adjoint(np.ones(5), points, (8, 8)),
        lambda: pipe_density(points, (8, 8)),
    ):
        with pytest.raises(UsageError, match="points: got"):
            call()


def test_programs_are_exported_for_any_number_of_tissues_and_points():
    """As `jax.export` does; pulses, and points of finufft, must be counted."""
    tissues, points = jax.export.symbolic_shape("tissues, points")
    times, places = jax.ShapeDtypeStruct((tissues,), FLIPS.dtype), jax.ShapeDtypeStruct((points, 2), FLIPS.dtype)

    def exported(function, *shapes):
        return jax.export.export(jax.jit(function))(*shapes)

    for make in SEQUENCES.values():
        made = exported(lambda t1, make=make: make(FLIPS).signal(Tissue(t1, 0.1)), times)
        t1 = np.array([0.5, 1.0, 2.0], FLIPS.dtype)
        np.testing.assert_allclose(made.call(t1), make(FLIPS).signal(Tissue(t1, 0.1)), rtol=1e-5, atol=1e-6)
    image = np.ones((4, 6), np.complex64)
    made = exported(lambda points: nufft_forward(image, points, backend="dft"), places)
    where = np.linspace(-0.4, 0.4, 14, dtype=np.float32).reshape(7, 2)
    np.testing.assert_allclose(made.call(where), nufft_forward(image, where, backend="dft"), rtol=1e-5)
    with pytest.raises(UsageError, match=r"points: got symbolic sizes .* expected known ones with finufft"):
        exported(lambda points: nufft_forward(image, points, backend="finufft"), places)
    with pytest.raises(UsageError, match=r"flips: got .* of known length"):
        exported(lambda flips: FSE(flips).signal(Tissue(1.0, 0.1)), times)


def test_an_excitation_in_degrees_is_told():
    with pytest.raises(UsageError, match="excitation: got 90, expected radians"):
        FSE(FLIPS, 1e-2, excitation=90.0)


def test_an_event_in_degrees_is_told():
    with pytest.raises(UsageError, match="events: angle of event 0: got 90, expected radians"):
        play([Pulse(90.0), Wait(0.01), Readout()], Tissue(1.0, 0.1))


def test_help_has_short_types():
    """An argument that is anything numeric is one word."""
    assert str(inspect.signature(crlb)).startswith("(jacobian: ArrayLike, *, noise: ArrayLike = 1.0")
