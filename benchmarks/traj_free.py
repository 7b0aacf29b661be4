"""Readouts of any shape, learned beside mri-nufft and beside those that nobody learned.

    step       seconds of a step of free readouts, density included: 64³ voxels, 256 readouts of 512 samples
    plane      error of images from free readouts of a plane, learned by mri-nufft's recipe and by ours in equally many
               steps, and from spokes, spirals and variable-density Poisson lines of equally many samples
    kooshball  error of CG-SENSE from a learned kooshball over that from golden means: 32³ voxels, 8 coils

Learned readouts begin and end at rest within 40 mT/m and 180 T/m/s, 10 µs a sample; those of mri-nufft, and whatever
else is compared, are projected onto these limits. Images are judged by SigPy's conjugate gradients on mri-nufft's
operators, with complex white noise of 0.05 of the image's RMS on every sample (ridge 0.05²) and without (ridge 1e-4),
on the image learned on (T1w) and on one that was not (T2w).

    python benchmarks/traj_free.py [--parts step plane kooshball] [--rounds 3] [--steps 100]
"""

import argparse
import dataclasses
import json
import sys
import time
from typing import Any

import numpy as np
from _harness import RESULTS, Worker, alternate, machine, peers_python, serve, summary, versions, write_results

DENSITY_ITERATIONS = 10
SIDE, SHOTS, SAMPLES = 64, 256, 512
PLANE, PLANE_SHOTS, PLANE_SAMPLES = 256, 16, 512
BALL, BALL_SHOTS, BALL_SAMPLES, COILS = 32, 32, 256, 8
NOISE, RIDGE = 0.05, 0.05**2


# ----------------------------------------------------------------------------- ours


def _limits() -> Any:
    from acqdesign.scene import system_limits

    return dataclasses.replace(system_limits("generic"), max_gradient_t_per_m=40e-3, max_slew_t_per_m_s=180.0)


def our_steps(image: np.ndarray, points: np.ndarray, density: str, steps: int) -> dict[str, Any]:
    """Mean-normalised error of the density-compensated adjoint by Adam, clipped to k-space."""
    import jax.numpy as jnp
    import optax

    from acqdesign.design import Problem, learn, scaled_error
    from acqdesign.encoding import FreeForm
    from acqdesign.recon import DensityAdjoint
    from acqdesign.scene import Scene

    scene = Scene(jnp.asarray(image)[None, None])
    how = DensityAdjoint(density, DENSITY_ITERATIONS)
    problem = Problem(scene, FreeForm(jnp.asarray(points)), terms=scaled_error(), reconstruction=how)
    result, design, _ = learn(problem, steps, optimizer=optax.adam(1e-3))
    return {
        "seconds": result.seconds_per_step, "losses": result.history["loss"].tolist(),
        "compile_seconds": result.compile_seconds, "points": np.asarray(design.trajectory.points),
    }  # fmt: skip


def our_design(family: str, shape: list[int], shots: int, samples: int, coils: int, steps: int, lr: float) -> dict:
    """Points of a family as it starts, within the limits; with steps, those that free readouts learn from there."""
    import jax
    import optax

    from acqdesign.design import Problem, learn, nrmse
    from acqdesign.encoding import TRAJECTORIES, FreeForm, Hardware
    from acqdesign.scene import brain

    scene = brain(tuple(shape), coils=coils)
    if family == "lines":
        return {"points": poisson_lines(shots * samples // shape[1], shape[1])}
    start = TRAJECTORIES[family].start(scene, jax.random.key(0), lines=shots, samples=samples)
    hardware = Hardware.of(_limits(), scene, 10e-6)
    points = jax.jit(hardware.project)(start.coordinates())
    found: dict[str, Any] = {"points": np.asarray(points)}
    if steps:
        problem = Problem(scene, FreeForm(points).within(hardware), terms=nrmse(), noise=NOISE * _rms(scene))
        result, design, _ = learn(problem, steps, optimizer=optax.adam(optax.cosine_decay_schedule(lr, steps)))
        points = design.trajectory.coordinates()
        found |= {"points": np.asarray(points), "seconds_per_step": result.seconds_per_step}
    gradient, slew = hardware.waveforms(found["points"])
    largest = [float(np.linalg.norm(x, axis=-1).max()) for x in (gradient, slew)]
    return found | {"over limits": [largest[0] / 40e-3 - 1, largest[1] / 180.0 - 1]}


def poisson_lines(lines: int, voxels: int) -> np.ndarray:
    """Lines of a plane `(lines, voxels, 2)`, a random one in each share of a density `min(1, c |k|^-2)` a cell."""
    edges = np.linspace(-0.5, 0.5, 4001)
    centres = np.abs(edges[1:] + edges[:-1]) / 2
    low, high = 0.0, 1.0
    for _ in range(60):
        scale = (low + high) / 2
        density = np.minimum(1, scale / np.maximum(centres, 1e-6) ** 2) * voxels / 4000
        low, high = (scale, high) if density.sum() < lines else (low, scale)
    shares = (np.arange(lines) + np.random.default_rng(0).uniform(0.2, 0.8, lines)) / lines
    at = np.interp(shares, np.append(0, np.cumsum(density)) / density.sum(), edges)
    along = (np.arange(voxels) - voxels // 2) / voxels
    return np.stack(np.broadcast_arrays(along[None], at[:, None]), axis=-1).astype(np.float32)


def _rms(scene: Any) -> float:
    """Of noise, whose standard deviation is that of each part."""
    return float(np.sqrt(np.mean(np.abs(np.asarray(scene.image())) ** 2) / 2))


def within(points: np.ndarray, shape: list[int]) -> dict[str, Any]:
    """Points projected onto the limits."""
    import jax

    from acqdesign.encoding import Hardware
    from acqdesign.scene import brain

    return {"points": np.asarray(jax.jit(Hardware.of(_limits(), brain(tuple(shape)), 10e-6).project)(points))}


# ----------------------------------------------------------------------------- mri-nufft's


def their_steps(image: np.ndarray, points: np.ndarray, steps: int, lr: float) -> dict[str, Any]:
    """Its example "Learn sampling pattern": the same loss, its density, Adam, clipped."""
    import torch
    from mrinufft_peer import get_operator

    operator = get_operator("finufft", wrt_data=True, wrt_traj=True)(
        points.reshape(-1, points.shape[-1]), shape=image.shape, squeeze_dims=False, eps=1e-6,
        density={"name": "pipe", "max_iter": DENSITY_ITERATIONS},
    )  # fmt: skip
    free = torch.nn.Parameter(torch.from_numpy(points.reshape(-1, points.shape[-1]).copy()))
    optimizer = torch.optim.Adam([free], lr=lr)
    target = torch.from_numpy(image / image.mean())
    losses, seconds = [], []
    for _ in range(steps):
        begin = time.perf_counter()
        operator.samples = free.clone()
        found = operator.adj_op(operator.op(target.to(torch.complex64)[None])).abs()
        loss = torch.mean((found / found.mean() - target[None, None]) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            free.clamp_(-0.5, 0.5)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
    return {
        "seconds": float(np.median(seconds)),
        "losses": losses,
        "points": free.detach().numpy().reshape(points.shape),
    }


def judge(points: np.ndarray, image: np.ndarray, smaps: np.ndarray, noise: float, ridge: float) -> dict[str, float]:
    """NRMSE of SigPy's conjugate gradients, 30 iterations, on mri-nufft's operators scaled to be unitary."""
    import sigpy
    from mrinufft_peer import get_operator

    flat, scale = points.reshape(-1, points.shape[-1]).astype(np.float32), 2 ** (image.ndim / 2)
    coils = {"n_coils": len(smaps), "smaps": smaps.astype(np.complex64)} if smaps.size else {}
    nufft = get_operator("finufft")(flat, shape=image.shape, density=False, eps=1e-6, **coils)
    data = nufft.op(image.astype(np.complex64)) * scale
    rng, sigma = np.random.default_rng(0), noise * np.sqrt(np.mean(np.abs(image) ** 2) / 2)
    data = data + sigma * (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape))
    found = np.zeros(image.shape, np.complex64)
    solver = sigpy.alg.ConjugateGradient(
        lambda x: (nufft.adj_op(nufft.op(x)) * scale**2 + np.float32(ridge) * x).reshape(x.shape),
        (nufft.adj_op(data.astype(np.complex64)) * scale).reshape(image.shape), found, max_iter=30,
    )  # fmt: skip
    while not solver.done():
        solver.update()
    return {"nrmse": float(np.linalg.norm(found - image) / np.linalg.norm(image))}


# ----------------------------------------------------------------------------- the driver


def step(own: Worker, peer: Worker, options: Any) -> dict[str, Any]:
    from acqdesign.scene import load_brain

    points = own.call(
        "our_design", family="kooshball", shape=[SIDE] * 3, shots=SHOTS, samples=SAMPLES, coils=1, steps=0, lr=0.0
    )["points"]
    image = np.asarray(load_brain(shape=(SIDE,) * 3, contrast="T1w"), np.float32)
    given: dict[str, Any] = {"image": image, "points": points, "steps": 2}
    told: dict[str, Any] = {"shape": [SIDE] * 3, "shots": SHOTS, "samples": SAMPLES}

    def theirs() -> list[float]:
        told["losses of mri-nufft"] = (found := peer.call("their_steps", lr=1e-3, **given))["losses"]
        return [found["seconds"]]

    def ours(density: str) -> list[float]:
        told[f"losses of ours, {density}"] = (found := own.call("our_steps", density=density, **given))["losses"]
        return [found["seconds"]]

    sides = {
        "mri-nufft": theirs,
        "ours, density constant as theirs": lambda: ours("pipe-stopped"),
        "ours, gradient through density": lambda: ours("pipe"),
    }
    times = alternate(sides, rounds=options.rounds)
    told |= {name: summary(seconds) for name, seconds in times.items()}
    told["times faster"] = {
        name: told["mri-nufft"]["median_s"] / told[name]["median_s"] for name in sides if name != "mri-nufft"
    }
    return told


def judged(peer: Worker, points: np.ndarray, images: dict[str, np.ndarray], smaps: np.ndarray) -> dict[str, float]:
    return {
        f"{label}, {kind}": peer.call("judge", points=points, image=image, smaps=smaps, noise=noise, ridge=ridge)[
            "nrmse"
        ]
        for label, noise, ridge in (("noise-free", 0.0, 1e-4), ("noisy", NOISE, RIDGE))
        for kind, image in images.items()
    }


def plane(own: Worker, peer: Worker, options: Any) -> dict[str, Any]:
    from acqdesign.scene import brain

    shape = [1, PLANE, PLANE]
    images = {c: np.asarray(brain(tuple(shape), contrast=c).image())[0, 0].real for c in ("T1w", "T2w")}
    images = {c: x.astype(np.float32) for c, x in images.items()}
    given: dict[str, Any] = {"shape": shape, "shots": PLANE_SHOTS, "samples": PLANE_SAMPLES, "coils": 1}
    start = {"lr": 0.0, "steps": 0, **given}
    points = {name: own.call("our_design", family=name, **start)["points"] for name in ("radial", "spiral", "lines")}
    told: dict[str, Any] = {"shape": shape, "shots": PLANE_SHOTS, "samples": PLANE_SAMPLES, "steps": options.steps}
    for name in ("radial", "spiral"):
        found = own.call("our_design", family=name, **given, steps=options.steps, lr=2e-3)
        points[f"learned from {name}"] = found["points"]
        told[f"learned from {name}, over limits"] = found["over limits"]
    how = {"image": images["T1w"], "steps": options.steps}
    for name, lr in (("radial", 1e-3), ("spiral", 1e-3)):
        found = peer.call("their_steps", points=points[name], lr=lr, **how)
        told[f"mri-nufft from {name}, losses"] = [found["losses"][0], found["losses"][-1]]
        points[f"mri-nufft from {name}"] = own.call("within", points=found["points"], shape=shape)["points"]
    told["nrmse"] = {name: judged(peer, at, images, np.zeros(0)) for name, at in points.items()}
    return told


def kooshball(own: Worker, peer: Worker, options: Any) -> dict[str, Any]:
    from acqdesign.scene import brain

    shape = [BALL] * 3
    scenes = {c: brain(tuple(shape), coils=COILS, contrast=c) for c in ("T1w", "T2w")}
    images = {c: np.asarray(scene.image())[0].real.astype(np.float32) for c, scene in scenes.items()}
    given: dict[str, Any] = {"shape": shape, "shots": BALL_SHOTS, "samples": BALL_SAMPLES, "coils": COILS}
    golden = own.call("our_design", family="kooshball", steps=0, lr=0.0, **given)
    found = own.call("our_design", family="kooshball", steps=options.steps, lr=5e-3, **given)
    told = given | {"steps": options.steps, "over limits": found["over limits"]}
    told |= {"seconds_per_step": found["seconds_per_step"]}
    smaps = np.asarray(scenes["T1w"].smaps)
    points = {"golden means": golden["points"], "learned": found["points"]}
    told["nrmse"] = {name: judged(peer, at, images, smaps) for name, at in points.items()}
    told["learned over golden means"] = {
        k: told["nrmse"]["learned"][k] / told["nrmse"]["golden means"][k] for k in told["nrmse"]["learned"]
    }
    return told


PARTS = {"step": step, "plane": plane, "kooshball": kooshball}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="turns per side (default: 3)")
    parser.add_argument("--steps", type=int, default=100, help="of learning (default: 100)")
    options = parser.parse_args()
    path = RESULTS / "traj_free.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results |= {"machine": machine(2), "versions": versions(("jax", "jax-finufft", "acqdesign"))}
    with Worker("traj_free.py") as own, Worker("traj_free.py", python=peers_python()) as peer:
        for part in options.parts:
            results[part] = PARTS[part](own, peer, options)
            print(part, json.dumps(results[part], indent=1))
            write_results("traj_free", results)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve({f.__name__: f for f in (our_steps, our_design, within, their_steps, judge)})
    else:
        main()
