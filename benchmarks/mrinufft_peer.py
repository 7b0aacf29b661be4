"""mri-nufft's side of the benchmarks: its straight-line example, its operators, and SigPy's reconstruction.

Runs in the interpreter of `requirements-peers.txt`; the drivers talk to it through `_harness.Worker`. The
learning follows mri-nufft 1.5.1's gallery example "Learn Straight line readout pattern" on its finufft
backend, with the reference recipe's settings. mri-nufft scales its operators by 1/sqrt(∏(2N)).
"""

import sys
import time
import types
from collections.abc import Sequence

import numpy as np
import torch
from _harness import serve


def stub_deepinv() -> None:
    """Stands in for deepinv, of which mri-nufft's autodiff imports one base class that nothing here uses."""
    modules = [types.ModuleType(name) for name in ("deepinv", "deepinv.physics", "deepinv.physics.forward")]
    modules[2].LinearPhysics = type("LinearPhysics", (torch.nn.Module,), {})
    sys.modules.update({module.__name__: module for module in modules})


stub_deepinv()
from mrinufft import get_operator  # noqa: E402


def trajectory(points: torch.Tensor, samples_per_line: int) -> torch.Tensor:
    """The example's 3D samples of straight lines along the first axis, ends of the readout included."""
    line = torch.linspace(-0.5, 0.5, samples_per_line, dtype=points.dtype)
    return torch.stack(
        [
            line.repeat(points.shape[0], 1),
            points[:, 0].repeat(samples_per_line, 1).T,
            points[:, 1].repeat(samples_per_line, 1).T,
        ],
        dim=-1,
    ).reshape(-1, 3)


class Model(torch.nn.Module):
    """The example's model: fixed central points, free others, `|adjoint| / mean` of the density operator."""

    def __init__(
        self,
        points: np.ndarray,
        fixed: int,
        shape: Sequence[int],
        samples_per_line: int,
        density_iterations: int,
        eps: float,
    ) -> None:
        super().__init__()
        self.samples_per_line = samples_per_line
        start = torch.from_numpy(points)
        self.central_points = torch.nn.Parameter(start[:fixed].clone(), requires_grad=False)
        self.non_center_points = torch.nn.Parameter(start[fixed:].clone(), requires_grad=True)
        self.operator = get_operator("finufft", wrt_data=True, wrt_traj=True)(
            trajectory(start, samples_per_line).numpy(),
            shape=tuple(shape),
            density={"name": "pipe", "max_iter": density_iterations} if density_iterations else False,
            squeeze_dims=False,
            eps=eps,
        )
        # Its operator recomputes the density whenever the samples are set: note how long that takes.
        nufft = self.operator.nufft_op
        self.density_seconds = 0.0
        compute = nufft.compute_density

        def timed(method: object = None) -> None:
            start_s = time.perf_counter()
            compute(method)
            self.density_seconds += time.perf_counter() - start_s

        nufft.compute_density = timed

    def get_2d_points(self) -> torch.Tensor:
        return torch.vstack([self.central_points, self.non_center_points])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.operator.samples = trajectory(self.get_2d_points(), self.samples_per_line)
        kspace = self.operator.op(x)
        adjoint = self.operator.adj_op(kspace).abs()
        return adjoint / torch.mean(adjoint)


def _model_and_target(
    image: np.ndarray, points: np.ndarray, fixed: int, samples_per_line: int, density_iterations: int, precision: str
) -> tuple[Model, torch.Tensor, torch.Tensor]:
    real, cpx, eps = {"single": (np.float32, np.complex64, 1e-6), "double": (np.float64, np.complex128, 1e-12)}[
        precision
    ]
    model = Model(points.astype(real), fixed, image.shape, samples_per_line, density_iterations, eps)
    target = torch.from_numpy((image / image.mean()).astype(real))[None, None]
    return model, target, torch.from_numpy((image / image.mean()).astype(cpx))[None]


def learn(
    image: np.ndarray,
    points: np.ndarray,
    fixed: int,
    samples_per_line: int,
    steps: int,
    density_iterations: int,
    lr: float,
) -> dict:
    """The reference recipe: Adam on the mean squared error, clipped to the box after each step.

    Returns the loss before each step and after the last (`steps + 1` values), median seconds of a step (the
    first, which fills caches, left out), of which in the density, and the learned points.
    """
    model, target, data = _model_and_target(image, points, fixed, samples_per_line, density_iterations, "single")
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses, seconds, in_density = [], [], []
    for _ in range(steps):
        start, model.density_seconds = time.perf_counter(), 0.0
        loss = torch.mean((model(data) - target) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for param in model.parameters():
                param.clamp_(-0.5, 0.5)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        in_density.append(model.density_seconds)
    with torch.no_grad():
        losses.append(torch.mean((model(data) - target) ** 2).item())
    return {
        "losses": losses,
        "seconds_per_step": float(np.median(seconds[1:])) if steps > 1 else None,
        "density_seconds_per_step": float(np.median(in_density[1:])) if steps > 1 else None,
        "points": model.get_2d_points().detach().numpy(),
    }


def gradient(
    image: np.ndarray,
    points: np.ndarray,
    fixed: int,
    samples_per_line: int,
    density_iterations: int,
    precision: str,
    coordinates: np.ndarray,
    step: float,
) -> dict:
    """Loss, its gradient in the free points, and central differences at some `coordinates` (flat indices)."""
    model, target, data = _model_and_target(image, points, fixed, samples_per_line, density_iterations, precision)
    free = model.non_center_points
    loss = torch.mean((model(data) - target) ** 2)
    loss.backward()
    differences = []
    with torch.no_grad():
        for index in coordinates:
            values = []
            for shift in (step, -step):
                free.view(-1)[index] += shift
                values.append(torch.mean((model(data) - target) ** 2).item())
                free.view(-1)[index] -= shift
            differences.append((values[0] - values[1]) / (2 * step))
    return {"loss": loss.item(), "gradient": free.grad.numpy(), "differences": np.array(differences)}


def _operator(shape: Sequence[int], points: np.ndarray, samples_per_line: int) -> tuple:
    """mri-nufft's forward and adjoint for lines at `points`, in the unitary scaling 1/sqrt(∏N)."""
    samples = trajectory(torch.from_numpy(points), samples_per_line).numpy()
    nufft = get_operator("finufft")(samples, shape=tuple(shape), density=False, eps=1e-6)
    scale = 2 ** (len(shape) / 2)
    return lambda x: nufft.op(x.astype(nufft.cpx_dtype)) * scale, lambda y: nufft.adj_op(y) * scale


def operators(image: np.ndarray, points: np.ndarray, samples_per_line: int) -> dict:
    """Forward values of an image, and the adjoint of those."""
    forward, adjoint = _operator(image.shape, points, samples_per_line)
    samples = forward(image)
    return {"forward": samples, "adjoint": adjoint(samples)}


def reconstruct(
    image: np.ndarray, points: np.ndarray, samples_per_line: int, noise: float, seed: int, iterations: int, ridge: float
) -> dict:
    """NRMSE of an image reconstructed from lines at `points` by SigPy's CG on mri-nufft's operators.

    Complex white noise of standard deviation `noise` times the image's RMS is added to every sample (an
    image sampled once, fully and unitarily, would then have an error of `noise`). CG minimises
    `‖A x - y‖² + ridge ‖x‖²` by at most `iterations` steps from zero.
    """
    import sigpy

    forward, adjoint = _operator(image.shape, points.astype(np.float32), samples_per_line)
    data = forward(image)
    rng = np.random.default_rng(seed)
    sigma = noise * np.sqrt(np.mean(np.abs(image) ** 2) / 2)
    data = data + sigma * (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape))
    result = np.zeros(image.shape, np.complex64)
    solver = sigpy.alg.ConjugateGradient(
        lambda x: adjoint(forward(x)) + np.float32(ridge) * x,
        adjoint(data.astype(np.complex64)),
        result,
        max_iter=iterations,
    )
    while not solver.done():
        solver.update()
    error = np.linalg.norm(result - image) / np.linalg.norm(image)
    return {"nrmse": float(error), "image": np.abs(result)}


if __name__ == "__main__":
    serve({"learn": learn, "gradient": gradient, "operators": operators, "reconstruct": reconstruct})
