"""Arguments of every public function and class of signal, encoding and recon, walked with values nobody should give.

Accepted where meaningful, else refused by one line of ours that names the argument: JAX never sees them.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign import encoding, recon, signal
from acqdesign.base.checks import UsageError
from acqdesign.scene import Tissue

pytestmark = pytest.mark.usefixtures("unchecked_types")
F = np.float32
SHAPE, POINTS, KEY = (6, 8), np.linspace(-0.4, 0.4, 10, dtype=F).reshape(5, 2), jax.random.key(0)
IMAGE, SAMPLES = np.ones(SHAPE, np.complex64), np.ones(5, np.complex64)
VOLUME, FLIPS, TISSUE = (4, 6, 8), np.full(4, 0.3, F), Tissue(1.0, 0.1, t1_rho=0.09)
JACOBIAN = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]], F)


@functools.cache
def nufft():
    return encoding.NUFFTEncoding(POINTS, SHAPE)


def doubled(image):
    return 2 * image


def echoes():
    return signal.FSE(FLIPS)


# A call of every public function, and of every class that is given numbers.
CALLS = {
    "signal.crlb": {
        "jacobian": JACOBIAN, "noise": 0.1, "weights": np.ones(3, F), "signal": np.ones(3, F),
        "nuisance": np.ones((3, 1), F), "values": np.ones(2, F),
    },
    "signal.reduce_bounds": {"bounds": np.ones(3, F), "reduce": "mean", "weights": np.ones(3, F)},
    "signal.relative_bounds": {"sequence": echoes, "tissue": TISSUE, "targets": ("t2",), "noise": 0.1},
    "signal.tissue_bounds": {
        "sequence": echoes, "tissue": TISSUE, "targets": ("t2",), "nuisance": ("m0",), "noise": 0.1, "magnitude": True,
        "weights": np.ones(4, F),
    },
    "signal.simulate": {"sequence": echoes, "tissue": TISSUE},
    "signal.play": {"events": lambda: [signal.Pulse(1.0), signal.Readout(1e-3)], "tissue": TISSUE, "order_moment": 1e4},
    "signal.sinc_pulse": {"samples": 16, "time_bandwidth": 4.0},
    "signal.SelectivePulse": {
        "envelope": np.ones(8, F), "time_bandwidth": 2.0, "thickness": 1.0, "extent": 3.0, "positions": 4,
    },
    "signal.FSE": {
        "flips": FLIPS, "esp": 0.01, "tr": 1.0, "te": 0.02, "excitation": 1.5, "excitation_phase": 1.0,
        "phases": FLIPS, "t2_prep": 0.05, "order_moment": 1e4, "spoiling": "complete", "n_states": 4,
    },
    "signal.SSFPFID": {
        "flips": FLIPS, "tr": 0.01, "te": 0.002, "phases": FLIPS, "inversion_time": 0.02,
        "inversion_efficiency": 0.9, "spoiler_moment": 1e4, "n_states": 4,
    },
    "signal.SPGR": {"flips": FLIPS, "tr": 0.01, "te": 0.002, "rf_increment": 1.0, "state": "ideal"},
    "signal.BSSFP": {"flips": FLIPS, "tr": 0.01, "te": 0.002, "phase_increment": 3.0, "steady": True},
    "signal.MPRAGE": {
        "flips": FLIPS, "esp": 0.01, "inversion_time": 0.9, "tr": 2.0, "te": 0.002, "inversion_efficiency": 0.9,
    },
    "signal.SpinEcho": {"flips": FLIPS, "te": 0.02, "tr": 1.0},
    "signal.MultiSpinEcho": {"flips": FLIPS, "spacings": 0.01 * np.ones(4, F), "excitation": 1.5},
    "signal.StimulatedEcho": {"flips": FLIPS[:3], "te": 0.02, "tm": 0.1},
    "signal.Hyperecho": {"flips": FLIPS, "esp": 0.01},
    "signal.MultiGradientEcho": {"flips": FLIPS, "spacings": 0.002 * np.ones(2, F), "tr": 0.05},
    "signal.DESS": {"flips": FLIPS, "tr": 0.01, "te": 0.002},
    "signal.PSIF": {"flips": FLIPS, "tr": 0.01},
    "signal.InversionRecovery": {"flips": FLIPS, "ti": 0.1, "inversion_efficiency": 0.9},
    "signal.SaturationRecovery": {"flips": FLIPS, "ti": 0.1},
    "signal.FLAIR": {"flips": FLIPS, "esp": 0.01, "ti": 0.5},
    "signal.LookLocker": {"flips": FLIPS, "esp": 0.03},
    "signal.MOLLI": {
        "flips": np.full(8, 0.3, F), "ti": np.array([0.1, 0.2], F), "beat": 1.0, "pulses": 4,
    },
    "signal.MP2RAGE": {"flips": FLIPS[:2], "ti": np.array([0.5, 1.0], F), "esp": 0.01, "pulses": 4},
    "signal.T2Prepared": {"flips": FLIPS, "prep": 0.05},
    "signal.SpinLock": {"flips": FLIPS, "prep": 0.05},
    "signal.DiffusionPrepared": {"flips": FLIPS, "order_moment": 1e4, "delta": 0.01},
    "signal.exponential_decay": {"echoes": 4, "esp": 0.01, "time": 0.1, "level": 0.8},
    "signal.flips_for_echoes": {
        "target": np.full(4, 0.5, F), "esp": 0.01, "t1": 1.0, "t2": 0.1, "excitation": 1.5, "upper": 3.0,
    },
    "signal.pseudo_steady_state": {"echoes": 4, "level": 0.5},
    "signal.start_flips": {"name": "comb", "pulses": 8, "level": 0.5, "upper": 1.0, "key": KEY},
    "encoding.nufft_forward": {"image": IMAGE, "points": POINTS, "eps": 1e-3},
    "encoding.nufft_adjoint": {"samples": SAMPLES, "points": POINTS, "shape": SHAPE, "eps": 1e-3},
    "encoding.NUFFTEncoding": {"points": POINTS, "shape": SHAPE, "eps": 1e-3},
    "encoding.StraightLineEncoding": {"points": POINTS, "shape": VOLUME, "readout": np.array([-0.25, 0.0], F)},
    "encoding.CartesianEncoding": {"shape": SHAPE, "mask": np.ones(SHAPE, bool)},
    "encoding.Coils": {"smaps": np.ones((2, *SHAPE), np.complex64)},
    "encoding.Mask": {"weights": np.ones(SHAPE, F), "dims": 2},
    "encoding.LineWeights": {"lines": np.ones(5, F), "samples": np.ones(2, F)},
    "encoding.uniform_readout": {"samples": 4},
    "encoding.density_weights": {"name": "pipe", "points": POINTS, "shape": SHAPE},
    "encoding.pipe_density": {"points": POINTS, "shape": SHAPE, "iterations": 2},
    "encoding.least_squares_density": {"points": POINTS, "shape": SHAPE, "ridge": 0.1},
    "encoding.initial_lines": {"name": "poisson", "shape": VOLUME, "lines": 16, "key": KEY, "calibration": 2},
    "encoding.usual_pattern": {"name": "poisson", "shape": VOLUME, "key": KEY, "lines": 16, "calibration": 2},
    "encoding.order_readouts": {
        "name": "linear", "points": np.zeros((8, 2), F), "echoes": 4, "te_echo": 1, "key": KEY,
    },
    "encoding.Lines": {"points": POINTS, "samples": 4, "half_width": 0.5},
    "encoding.GridLines": {"points": POINTS, "grid": (4, 5), "samples": 4},
    "encoding.Radial": {"angles": FLIPS, "samples": 4},
    "encoding.FreeForm": {"points": POINTS.reshape(1, 5, 2)},
    "encoding.Splines": {"control": np.zeros((1, 5, 2), F), "samples": 8, "degree": 3},
    "encoding.Kooshball": {"polar": FLIPS, "azimuth": FLIPS, "samples": 4},
    "encoding.Spiral": {"angles": FLIPS, "density": np.zeros(4, F), "turns": 2.0, "samples": 16},
    "encoding.Cones": {"polar": FLIPS, "azimuth": FLIPS, "density": np.zeros(4, F), "turns": 2.0, "samples": 16},
    "encoding.EPI": {"encodes": np.zeros((2, 3), F), "samples": 12},
    "encoding.Hardware": {
        "where": "points", "step": 0.1, "bend": 0.01, "start": 0.0, "end": 0.0, "held": ((0, 0.0),), "reach": 0.5,
        "dwell": 1e-5, "gradient": 0.04, "slew": 180.0,
    },
    "recon.cg": {"gram": lambda: doubled, "rhs": IMAGE, "iterations": 2, "dims": 2},
    "recon.cg_sense": {"encoding": nufft, "kspace": SAMPLES, "ridge": 0.1, "iterations": 2},
    "recon.match_dictionary": {"sequence": echoes, "samples": np.ones((2, 4), F), "atoms": TISSUE},
    "recon.nrmse": {"image": IMAGE, "truth": IMAGE, "dims": 2},
    "recon.psnr": {"image": IMAGE, "truth": IMAGE, "dims": 2},
    "recon.ssim": {"image": np.ones((16, 16), F), "truth": np.ones((16, 16), F)},
    "recon.posterior_mean": {
        "gram": lambda: doubled, "rhs": IMAGE, "spectrum": np.ones(SHAPE, F), "ridge": 0.1, "iterations": 2,
        "dims": 2,
    },
    "recon.spectral_prior": {"plane": SHAPE, "exponent": 1.5},
    "recon.signal_basis": {"signals": JACOBIAN, "rank": 1},
}  # fmt: skip
# Events, which `play` checks; seams; recipes, whose numbers their `__call__` uses.
OTHERS = {
    "Interval",
    "Invert",
    "Lock",
    "Repeated",
    "Pulse",
    "Readout",
    "Spoil",
    "Wait",
    "Sequence",
    "Encoding",
    "Gram",
    "ImageMap",
    "Plane",
    "Trajectory",
    "Played",
    "Stack",
    "StackOfSpirals",
    "StackOfStars",
}
OTHERS |= {"fit_tissue", "timing"}  # needs an extra; of events, which `play` checks
OTHERS |= {"available_backends", "CG", "DensityAdjoint", "Prior", "Subspace", "Reconstruction"}

# Made when called: what JAX would make at import.
MADE = ("sequence", "events", "encoding", "gram")
# How errors name arguments that commands know by other names.
SAID = {"readout": ("samples_per_line",), "name": ("start", "density", "init", "ordering"), "pulses": ("echoes",)}


def public():
    """Functions and classes of the three rooms, by name."""
    found = {}
    for room in (signal, encoding, recon):
        for name, thing in vars(room).items():
            if not name.startswith("_") and not inspect.ismodule(thing) and callable(thing) and name not in OTHERS:
                found[f"{room.__name__.split('.')[-1]}.{name}"] = thing
    return found


def wrong(value):
    """Values that nobody should give in place of one, by kind."""
    given = {"none": None, "text": "wrong", "object": object(), "empty": np.ones(0, F), "nan": np.nan}
    if isinstance(value, np.ndarray) and value.dtype != bool:
        given |= {"half": value.real.astype(np.float16), "deeper": value[None, None, None], "number": 1.0}
        given |= {"shorter": value[..., :-1], "longer": np.concatenate([value, value], axis=-1), "list": value.tolist()}
        given |= {"integers": np.ones(value.shape, int), "traced": jnp.asarray(value), "not finite": value * np.nan}
    elif isinstance(value, int | float):
        given |= {"array": np.ones((2, 3), F), "negative": -1, "zero": 0, "large": 1e30, "fraction": 1.5}
    elif isinstance(value, tuple):
        given |= {"number": 3, "nested": (value,), "zeros": (0,) * len(value)}
    return given


def perform(thing, arguments):
    made = {name: value() if name in MADE and callable(value) else value for name, value in arguments.items()}
    found = thing(**made)
    found = found.signal(TISSUE) if isinstance(found, signal.Sequence) else found
    jax.block_until_ready(jax.tree.leaves(found))


def test_every_public_name_is_walked():
    assert set(public()) == set(CALLS)


CASES = [
    (name, argument, kind)
    for name, given in CALLS.items()
    for argument, value in given.items()
    for kind in wrong(value)
]


@pytest.mark.parametrize(("name", "argument", "kind"), CASES)
def test_wrong_values_are_refused_by_name_or_mean_something(name, argument, kind):
    given = CALLS[name]
    try:
        perform(public()[name], given | {argument: wrong(given[argument])[kind]})
    except UsageError as error:
        said = str(error)
    else:
        return
    assert "\n" not in said
    # What doesn't go together may be told of either.
    assert said.startswith((*given, *SAID.get(argument, ())))
