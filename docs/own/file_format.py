"""Flips and positions as a table, one line a readout."""

import numpy as np

import acqdesign as aq


class Csv(aq.export.Format):
    ending, about = "csv", "flip [deg] and position [cycles/voxel] of each readout"

    def write(self, design, path):
        flips = np.rad2deg(design["flips_rad"])[design["echo"]]
        rows = np.column_stack([flips, design["points"]])
        np.savetxt(path, rows, delimiter=",", header="flip_deg,ky,kz", comments="")

    def read(self, path):
        rows = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
        return {"points": rows[:, 1:]}
