"""The peers' side of `export_agreement.py`: MRzeroCore simulates a `.seq`; mri-nufft reads files and transforms.

Run by the driver in the peers' interpreter, whose packages are no dependency of ours (MRzeroCore is AGPL).
"""

import os
import time
import warnings

import numpy as np
from _harness import serve


def simulate(path, maps, t1, t2, voxel_m, states, threshold):
    """Signal of a `.seq` of one phantom, by phase distribution graphs: `(samples,)`, and seconds.

    `maps` are proton densities `(tissues, nx, ny, nz)`, each tissue with its own T1 and T2 [s]; their signals add.
    States whose share of the signal is below `threshold` are left out.
    """
    import MRzeroCore as mr0  # noqa: N813
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    begin = time.perf_counter()
    sequence = mr0.Sequence.import_file(path)
    # An adiabatic inversion is no rotation by what its samples sum up to; it is what the file says it is for.
    uses = {line.split()[0]: line.split()[-1] for line in section(path, "RF")}
    played = [uses[row[2]] for row in map(str.split, section(path, "BLOCKS")) if row[2] != "0"]
    for repetition, use in zip(sequence, played, strict=True):
        if use == "i":
            repetition.pulse.angle = torch.tensor(np.pi)
    affine = np.diag([*(1e3 * np.asarray(voxel_m)), 1.0])
    total, shape = 0, maps.shape[1:]
    for density, long, short in zip(maps, t1, t2, strict=True):
        one = np.ones(shape)
        phantom = mr0.VoxelGridPhantom(
            density, long * one, short * one, 1e9 * one, 0 * one, 0 * one, one[None], one[None], affine
        )
        data = phantom.build(PD_threshold=1e-6)
        graph = mr0.compute_graph(sequence, data, int(states), threshold)
        signal = mr0.execute_graph(
            graph, sequence, data, min_emitted_signal=threshold, min_latent_signal=threshold, print_progress=False
        )
        total = total + signal.numpy().ravel()
    return {"signal": total, "seconds": time.perf_counter() - begin}


def section(path, name):
    """The rows of a section of a `.seq`."""
    with open(path) as file:
        text = file.read().split(f"[{name}]\n")[1].split("\n\n")[0]
    return [line for line in text.split("\n") if line.strip() and not line.startswith("#")]


def read_bin(path):
    """What mri-nufft reads from a `.bin`: points in [-0.5, 0.5], one more than the gradients' samples."""
    from mrinufft.io import read_trajectory

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points, parameters = read_trajectory(path, read_shots=True)
    return {"points": points, "num_shots": int(parameters["num_shots"]), "img_size": parameters["img_size"]}


def write_bin(path, points, fov, shape):
    """mri-nufft's own file of a trajectory."""
    from mrinufft.io import write_trajectory

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_trajectory(points, tuple(map(float, fov)), tuple(map(int, shape)), path, check_constraints=False)
    return {}


def read_seq(path):
    """What mri-nufft's reader finds in a `.seq` [1/m]."""
    from mrinufft.io.pulseq import read_pulseq_traj

    points, definitions, _ = read_pulseq_traj(path)
    return {"points": points, "img_size": np.array(definitions["ImgSize"])}


def read_mrd(path):
    """What mrpro's loader reads of an ISMRM Raw Data file: every sample's position, line by line, and the matrix."""
    from mrpro.data import KData
    from mrpro.data.traj_calculators import KTrajectoryIsmrmrd

    read = KData.from_file(path, KTrajectoryIsmrmrd())
    kz, ky, kx = read.traj.as_tensor().numpy()
    matrix = read.header.recon_matrix
    points = np.stack([kx, ky, kz], -1)
    return {"points": points.reshape(-1, points.shape[-2], 3), "shape": np.array([matrix.x, matrix.y, matrix.z])}


def forward(points, image):
    """mri-nufft's forward operator, without its scale: `Σ f exp(-2πi k·r)`."""
    import mrinufft

    operator = mrinufft.get_operator("finufft")(points.reshape(-1, 3), image.shape, density=False, eps=1e-7)
    return {"kspace": operator.op(image.astype(np.complex64)).ravel() * operator.norm_factor}


if __name__ == "__main__":
    serve({f.__name__: f for f in (simulate, read_bin, write_bin, read_seq, read_mrd, forward)})
