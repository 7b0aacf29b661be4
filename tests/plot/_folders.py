"""Folders as runs write them, made by hand."""

import json

import numpy as np

from acqdesign.base.files import write_history, write_json, write_npz

SHAPE = (3, 8, 10)


def arrays(seed=0, *, shape=SHAPE, lines=24, echoes=6):
    """What a run of both halves keeps for its figures."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(9).uniform(0, 1, shape).astype(np.float32)
    psf = np.full(shape[1:], 0.01)
    psf[shape[1] // 2, shape[2] // 2] = 1
    points = rng.uniform(-0.5, 0.5, (2, lines, 2)).astype(np.float32)
    flips = rng.uniform(0.5, 2, (2, echoes)).astype(np.float32)
    signals = rng.uniform(0, 1, (2, 2, echoes)).astype(np.float32)
    return {
        "shape": np.array(shape), "fov_m": np.array([0.1, 0.2, 0.2]), "truth": truth,
        "image.start": truth + 0.2 * rng.normal(size=shape).astype(np.float32), "nrmse.start": np.array(0.3),
        "image.learned": truth + 0.1 * rng.normal(size=shape).astype(np.float32), "nrmse.learned": np.array(0.1),
        "psf": psf, "start.psf": 2 * psf, "points": points[0], "start.points": points[1],
        "moves": np.arange(lines) > 2, "echo": np.arange(lines) % echoes,
        "frames": np.linspace(points[1], points[0], 3), "frame_steps": np.array([0, 2, 4]),
        "flips_rad": flips[0], "start.flips_rad": flips[1], "rms_rad": np.array(2.0),
        "tissues": np.array(["wm", "gm"]), "signals": signals[0], "start.signals": signals[1],
        "esp_s": np.array(0.005), "bound_tissues": np.array(["wm", "gm"]), "bound_label": np.array("σ(T2) / T2 [%]"),
        "bounds": np.array([4.0, 9.0]), "start.bounds": np.array([16.0, 8.0]),
    }  # fmt: skip


def folder(path, held=None, *, options=None, command="learn_joint", given=None, loss=(1.0, 0.6, 0.5, 0.45, 0.4)):
    """A run's folder; `held` is what it kept for its figures, nothing for a run that drew none."""
    path.mkdir(parents=True)
    options = {"steps": 4, "esp_ms": 5.0, "out": str(path), **(options or {})}
    given = {"steps": 4} if given is None else given
    write_json(path / "config.json", {"command": command, "options": options, "given": given})
    summary = {"initial_loss": 1.0, "final_loss": 0.4, "steps": 4, "initial_nrmse": 0.3, "nrmse": 0.1}
    summary |= {"initial_nrmse_held_out": 0.32, "nrmse_held_out": 0.15, "files": ["head.nii: matrix 3 x 8 x 10"]}
    (path / "summary.json").write_text(json.dumps(summary))
    held_out = np.array([0.32, np.nan, 0.2, np.nan, 0.15])
    write_history(path / "history.csv", {"step": np.arange(5), "loss": np.array(loss), "nrmse_held_out": held_out})
    names = {"points": "points", "moves": "learned", "flips_rad": "flips_rad", "echo": "echo"}
    write_npz(path / "design.npz", {to: arrays()[name] for name, to in names.items()})
    if held is not None:
        write_npz(path / "figures.npz", held)
    return path
