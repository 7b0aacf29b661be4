"""Every flag of every command changes the problem, the fit, the output or what the machine does, or is refused."""

from pathlib import Path

import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.commands.config import flat_options

from ._lines import COMMANDS, asked, changed, content, phantom

SPGR = {"sequence": "spgr", "echoes": 4, "te_eff_ms": 80.0}
SYSTEM = {"system": "generic", "fov_mm": (8.0, 8.0, 8.0), "samples": 8, "esp_ms": 4.3, "dwell_us": 200.0}
PROCESSES = {"coordinator": "a:1", "num_processes": 2, "process_id": 0, "mesh": "coils=1"}
TIMES = {"t1_ms": (1000.0,), "t2_ms": (100.0,)}
HOLES = {"phantom": ("holes.npz",), "holdout": ("holes.npz",), "volume": 0, "fill": 0.0}
PLAYED = {"trajectory": "radial", "init": None, "calibration": None, "samples": 40, "fov_mm": (8.0, 80.0, 80.0)}
# To what every flag is changed, by name, with the others that it needs.
CHANGES = {
    # what is scanned
    "phantom": (("other.npz",), {}),
    "holdout": (("other.npz",), {}),
    "volume": (1, HOLES),
    "fill": (0.25, HOLES),
    "augment": (True, {}),
    "shape": ((1, 8, 10), {}),
    "fov_mm": ((100.0, 80.0, 80.0), {}),
    "field": ("1.5T", {}),
    "coils": (2, {}),
    "smaps": (Path("smaps.npy"), {}),
    "noise_from": (Path("noise.npy"), {"coils": 2}),
    "noise": (0.5, {}),
    "planes_per_step": (2, {"shape": (4, 8, 8)}),
    "anatomies_per_step": (2, {"phantom": ("one.npz", "other.npz", "one.npz")}),
    "contrast": ("T2w", {}),
    "tissue": ("csf,wm,gm", {}),
    "b1_spread": (0.2, {}),
    "b1_map": (Path("b1.npy"), {}),
    "t2_spread": (0.2, {}),
    "t1_ms": ((900.0,), TIMES),
    "t2_ms": ((80.0,), TIMES),
    "b1": ((0.8, 1.2), {}),
    "t2_prime_ms": ((50.0,), {}),
    "t1_rho_ms": ((80.0,), {}),
    "adc_um2_ms": ((0.8,), {}),
    # how
    "trajectory": ("radial", {"init": None, "calibration": None}),
    "lines": (16, {}),
    "acceleration": (4.0, {"lines": None, "acceleration": 8.0, "init": "spiral"}),
    "samples": (6, {}),
    "init": ("reference", {}),
    "calibration": (3, {}),
    "backend": ("dft", {}),
    "eps": (1e-3, {}),
    "sequence": ("mprage", {"te_eff_ms": 80.0, "esp_ms": 20.0}),
    "echoes": (2, {}),
    "esp_ms": (7.0, {}),
    "tr_ms": (300.0, {}),
    "te_ms": (3.0, SPGR),
    "ti_ms": (50.0, SPGR),
    "excitation_deg": (80.0, {}),
    "time_bandwidth": (2.0, {}),
    "excitation_time_bandwidth": (4.0, {"time_bandwidth": 2.0}),
    "refocusing_thickness": (1.5, {"time_bandwidth": 2.0}),
    "learn_tr_ms": ((8.0, 12.0), SPGR),
    "learn_ti_ms": ((10.0, 60.0), SPGR),
    "start": ("comb", {}),
    "te_eff_ms": (20.0, {}),
    "ordering": ("linear", {}),
    # within what
    "rms_flip_deg": (30.0, {}),
    "sar_fraction": (0.04, {}),
    "b1rms_ut": (0.5, {}),
    "pulse_ms": (0.3, {"b1rms_ut": 0.5}),
    "min_flip_deg": (5.0, {}),
    "max_flip_deg": (100.0, {}),
    "max_step_deg": (10.0, {}),
    "max_bend_deg": (10.0, {}),
    "symmetric": (True, {}),
    "rising": (((1, 3),), {}),
    "falling": (((1, 3),), {}),
    "spline": (3, {}),
    "limit": (("own.py:Small",), {}),
    "system": ("prisma", SYSTEM),
    "dwell_us": (190.0, SYSTEM),
    # for what
    "recipe": ("reference", {}),
    "term": (("width=2",), {}),
    "objective": ("t1", {}),
    "ensemble": ("worst", {}),
    "nuisance": (("m0", "b1"), {}),
    "per_time": (True, {}),
    "reconstruction": ("adjoint", {}),
    "ridge": (0.1, {}),
    "iterations": (3, {}),
    "prior": (1.0, {"reconstruction": "prior"}),
    "rank": (1, {"reconstruction": "subspace"}),
    "density": ("none", {"reconstruction": "adjoint"}),
    "density_iterations": (2, {"reconstruction": "adjoint"}),
    "learn": ("flips", {}),
    "compare": (True, {}),
    "lr_flips": (0.5, {}),
    "exchange_every": (1, {}),
    # the run
    "out": (Path("elsewhere"), {}),
    "overwrite": (True, {}),
    "seed": (1, {}),
    "steps": (3, {}),
    "optimizer": ("sgd", {}),
    "lr": (0.5, {}),
    "schedule": ("linear", {}),
    "clip": (0.5, {}),
    "starts": (2, {"init": "poisson"}),
    "checkpoint_every": (7, {}),
    "checkpoint_minutes": (3.0, {}),
    "max_minutes": (4.0, {}),
    "no_early_stop": (True, {}),
    "no_figures": (True, {}),
    "style": ("paper", {}),
    "deterministic": (True, {}),
    "precision": ("double", {}),
    "mesh": ("coils=1", {}),
    "cache_dir": (Path("cache"), {}),
    "no_cache": (True, {}),
    "coordinator": ("b:1", PROCESSES),
    "num_processes": (3, PROCESSES),
    "process_id": (1, PROCESSES),
}
# Where a command means something else by it.
OF_COMMAND = {
    ("learn_traj", "system"): ("prisma", {**PLAYED, "system": "generic"}),
    ("learn_traj", "dwell_us"): (20.0, {**PLAYED, "system": "generic"}),
}
IMAGES = {"shape": (1, 8, 8), "lines": 12, "samples": 4, "init": "caipi", "calibration": 2} | {
    which: ("one.npz",) for which in ("phantom", "holdout")
}
BASE = {
    "learn_traj": IMAGES,
    "learn_joint": IMAGES | {"echoes": 4, "te_eff_ms": 10.0},
    "learn_flips": {"echoes": 4, "starts": 1, "optimizer": "adam"},
}
# What only stands for something beside another flag, and says so in its help.
SILENT_ALONE = ("pulse_ms", "dwell_us", "fill")
OWN = """
from acqdesign.optim import Box

class Small(Box):
    def __init__(self):
        super().__init__("sequence.flips", 0.0, 1.0)
"""


def flags(kind):
    """Of a command's options, but for those that set others, which `test_run` and `test_presets` are about."""
    return [name for name in flat_options(kind()) if name not in ("config", "preset", "resume")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("flags")
    for seed, name in enumerate(("one.npz", "other.npz")):
        phantom(path / name, seed)
    maps = np.random.default_rng(0).uniform(0, 0.3, (3, 6, 7, 5, 2))
    maps[:, 2] = np.nan
    np.savez(path / "holes.npz", **dict(zip(("gm", "wm", "csf"), maps, strict=True)))
    (path / "own.py").write_text(OWN)
    parts = np.random.default_rng(1).normal(size=(2, 2, 1, 8, 8))
    np.save(path / "smaps.npy", parts[0] + 1j * parts[1])
    np.save(path / "noise.npy", np.array([[2, 0.5j], [-0.5j, 1]]))
    np.save(path / "b1.npy", np.linspace(0.8, 1.2, 64).reshape(1, 8, 8))
    return path


@pytest.fixture(scope="module")
def known():
    """What is asked for without the flag, by command and other flags."""
    return {}


def asks(monkeypatch, name, given):
    """All that a command asks of the run and sets, for comparison; None where it refuses the options."""
    own = {"mesh": "tissues=1"} if name == "learn_flips" and given.get("mesh") else {}
    base = {"steps": 2, "out": Path("out")} | BASE[name]
    options = changed(COMMANDS[name][1](), **base | given | own)
    try:
        for part in vars(options).values():
            getattr(part, "check", lambda: None)()
        seen = asked(monkeypatch, name, options=options)
    except UsageError:
        return None
    # The options themselves are kept with the results, whatever they do.
    return content({key: value for key, value in seen.items() if key not in ("config", "identity")})


@pytest.mark.parametrize(("name", "flag"), [(n, flag) for n, (_, kind) in COMMANDS.items() for flag in flags(kind)])
def test_a_flag_changes_something(name, flag, folder, known, monkeypatch):
    """Beside those that it needs; alone it does too, or is refused."""
    monkeypatch.chdir(folder)
    value, beside = OF_COMMAND.get((name, flag), CHANGES[flag])
    for context in [beside] if flag in SILENT_ALONE or not beside else [beside, {}]:
        place = name, str(context)
        if place not in known:
            known[place] = asks(monkeypatch, name, context)
            assert known[place] is not None
        found = asks(monkeypatch, name, context | {flag: value})
        assert found != known[place]
        assert found is not None or not context


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_line_asks_for_the_same_twice(name, folder, monkeypatch):
    """Otherwise a difference would say nothing of a flag."""
    monkeypatch.chdir(folder)
    assert asks(monkeypatch, name, {}) == asks(monkeypatch, name, {}) is not None
