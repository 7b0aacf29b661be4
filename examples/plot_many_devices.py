r"""
Many devices
============

Coils, anatomies and tissues are sums, and a sum can be split: each device takes its part, and only the partial sums
meet,

.. math:: A^H A f = \sum_c S_c^* A_k^H A_k S_c f
          = \sum_{\text{devices}} \; \sum_{c \text{ of the device}} S_c^* A_k^H A_k S_c f .

``--mesh coils=4,anatomies=2`` on a command says what is split over how many devices; ``srun`` or ``--coordinator``
brings several machines. The design is the same but for the order in which numbers are added.
"""

# %%
# Set-up: two devices out of one processor
# ----------------------------------------
# A real run needs no flag: JAX finds its GPUs. Here XLA makes two devices of this machine's processor, which shows that
# the result does not change, not how much faster it gets.
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from acqdesign.export import read_design
from acqdesign.plot import plot_lines

STEPS = os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "20")
folder = Path(tempfile.mkdtemp())
scan = f"--shape 20 24 20 --lines 160 --samples 20 --coils 4 --steps {STEPS} --backend dft --precision double"


def learn(name, *options):
    """The same command as in a terminal."""
    command = [sys.executable, "-m", "acqdesign.learn_traj", *scan.split(), "--no-figures", *options]
    subprocess.run([*command, "--out", folder / name], check=True, capture_output=True)
    return json.loads((folder / name / "summary.json").read_text())


# %%
# Solve, on one device and on two
# -------------------------------
# ``python -m acqdesign.learn_traj --coils 4 --mesh coils=2``
found = {"one device": learn("one"), "two devices": learn("two", "--mesh", "coils=2")}
for name, summary in found.items():
    print(f"{name}: loss {summary['initial_loss']:.6f} -> {summary['final_loss']:.6f}, NRMSE {summary['nrmse']:.6f}")

# %%
# Show: the two designs are one
# -----------------------------
# To the digits of single precision, in which ``design.npz`` holds them.
designs = {name: read_design(folder / name) for name in ("one", "two")}
apart = np.abs(designs["one"]["points"] - designs["two"]["points"]).max()
print(f"positions differ by at most {apart:.1e} cycles/voxel")
figure = plot_lines(designs["two"]["points"], learned=designs["two"]["learned"], title="Learned on two devices")
figure
