"""Designs that the tests write and read."""

import numpy as np

RNG = np.random.default_rng(7)
DESIGN = {
    "points": RNG.uniform(-0.5, 0.5, (12, 2)).astype(np.float32),
    "shape": np.array([16, 20, 15]),
    "fov_m": np.array([0.192, 0.22, 0.18]),
    "samples_per_line": np.array(32),
    "train": np.repeat(np.arange(3), 4),
    "echo": np.tile(np.arange(4), 3),
    "flips_rad": np.linspace(0.5, 2.5, 4).astype(np.float32),
    "te_s": 5e-3 * np.arange(1, 5),
    "tr_s": np.array([2.0]),
    "esp_s": np.array(5e-3),
}
READOUT = (np.arange(32) - 16) / 32

# Spokes of a plane, as a trajectory of one's own writes them: two columns go with the axes longer than one.
RADIUS, ANGLES = np.linspace(-0.5, 0.5, 65), np.array([0.3, 1.4, 2.9])
SPOKES = {
    "coordinates": (RADIUS[:, None] * np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1)[:, None]).astype("f4"),
    "trajectory.angles": ANGLES.astype("f4"),
    "shape": np.array([1, 24, 20]),
    "fov_m": np.array([0.005, 0.24, 0.2]),
}
IN_SPACE = np.pad(SPOKES["coordinates"], ((0, 0), (0, 0), (1, 0)))
