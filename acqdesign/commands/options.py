"""What the commands ask: the same words, with the same meaning, in every command."""

import dataclasses
import inspect
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh

from acqdesign.base.checks import UsageError, check_choice, usage_error
from acqdesign.base.sharding import device_mesh
from acqdesign.base.types import PRNGKey
from acqdesign.base.units import GAMMA_HZ_PER_T, deg_from_rad, m_from_mm, ms_from_s, rad_from_deg, s_from_ms, ut_from_t
from acqdesign.commands.devices import DeviceOptions, check_memory
from acqdesign.commands.flags import Count, Degrees, Each, Milliseconds, Rate, Span, flag, si, within
from acqdesign.commands.own import accepted, by_flags, is_own, load_part, no_use, takes
from acqdesign.commands.presets import PRESETS
from acqdesign.design import TERMS, Problem, Term, term
from acqdesign.encoding import INITIALISERS, ORDERINGS, TRAJECTORIES, Hardware, Lines, Trajectory
from acqdesign.export import FORMATS, POSITION_FILES, read_design, read_noise, read_positions
from acqdesign.export.formats import design_file, format_of, reads
from acqdesign.optim import Box, Constraint, Limits, MeanAtMost, Scaled, Spline, make_optimizer
from acqdesign.recon import RECONSTRUCTIONS
from acqdesign.scene import (
    SYSTEMS,
    Scene,
    Tissue,
    b1_map,
    load_b1,
    load_noise,
    load_scene,
    load_smaps,
    noise_covariance,
    prewhitened,
    system_limits,
)
from acqdesign.scene.scanner import EchoShape, max_phase_encode, min_echo_spacing
from acqdesign.scene.tissue import Properties, check_relaxation, tissue_of, tissue_properties
from acqdesign.signal import FSE, SEQUENCES, SPGR, SelectivePulse, Sequence, sinc_pulse
from acqdesign.signal.repeated import Repeated
from acqdesign.signal.trains import PulseTrain

Shape = Annotated[tuple[int, int, int] | None, within(1, 4096)]
Noise = Annotated[float, within(0.0, 1e3)]
Echoes = Annotated[int | None, within(2, 2**14)]
Pulses = Annotated[tuple[tuple[int, int], ...], within(1, 2**14)]
Open = Annotated[float | None, within(1e-3, math.inf)]
Steps = Annotated[int, within(1, 10**7)]
Starts = Annotated[int, within(1, 1000)]

OWN = ("trajectory", "sequence", "reconstruction", "term", "limit")
"""Options that may name a user's own file."""
FIRST = (
    *("preset", "phantom", "tissue", "t1_ms", "t2_ms", "shape", "field", "contrast", "coils", "noise"),
    *("trajectory", "lines", "acceleration", "init", "sequence", "echoes", "esp_ms", "tr_ms", "te_eff_ms"),
    *("rms_flip_deg", "max_flip_deg", "max_step_deg", "term", "objective", "reconstruction", "learn", "compare"),
    *("steps", "starts", "seed", "out", "overwrite", "config", "resume"),
)
"""Options that most people need first, which `--help` shows; `--help-all` has the others too."""
# Found by benchmarks/traj_planes.py.
_PLANES = 4
# From so many voxels seen by coils in a step, cores that share its planes gain more than they cost.
_MANY_VOXELS = 2**17


def check_given(check: Callable[..., Any], options: Any, *names: str, **how: Any) -> None:
    """Checks those of some options that are given."""
    for name in names:
        if getattr(options, name) is not None:
            check(flag(name), getattr(options, name), **how)


def named_tissues(text: str, field: str) -> dict[str, Properties]:
    """Tissues that a flag lists with commas: names of the table, or `NAME:T1:T2` or `NAME:T1:T2:PD`, in ms."""
    found = dict[str, Properties]()
    for part in text.split(","):
        name, *numbers = (word.strip() for word in part.split(":"))
        if name in found:
            raise usage_error("--tissue", f"{name} twice", "different names")
        found[name] = _own_tissue(part, numbers) if numbers else _of_table(name, field)
    return found


def _of_table(name: str, field: str) -> Properties:
    known = tissue_properties(field=field)
    return known[check_choice("--tissue", name, (*known, "NAME:T1:T2 [ms]"))]


def _own_tissue(part: str, numbers: list[str]) -> Properties:
    expected = "NAME:T1:T2 or NAME:T1:T2:PD, times in ms, such as lesion:1350:110:0.85"
    try:
        t1, t2, pd = map(float, numbers if len(numbers) == 3 else [*numbers, "1"])
    except ValueError:
        raise usage_error("--tissue", part, expected) from None
    if not (0 < t1 <= 1e5 and 0 < t2 <= 1e5 and 0 < pd <= 10):
        raise usage_error("--tissue", part, f"{expected}; times up to 1e5 and densities up to 10")
    with by_flags({"t2": "--tissue"}):
        check_relaxation(s_from_ms(t1), s_from_ms(t2))
    return Properties(s_from_ms(t1), s_from_ms(t2), pd, "given")


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """What is scanned."""

    usual_shape: ClassVar[tuple[int, int, int]] = (23, 28, 23)

    phantom: tuple[str, ...] = ("brain",)
    """Anatomies to learn on: brain, brainweb:SUBJECT, or .nii, .nii.gz, .mgz, .npy, .npz files; several may follow."""
    holdout: tuple[str, ...] = ()
    """Anatomies to judge on and never learn on, likewise; random poses of each phantom unless given."""
    volume: Annotated[int | None, within(0, 2**16)] = None
    """Which volume of a file that holds several, from 0."""
    fill: Annotated[float | None, within(-1e9, 1e9)] = None
    """What takes the place of a file's voxels that are NaN, in its unit."""
    augment: bool = False
    """Learn on a new random rotation, scale and mirroring of every anatomy at every step."""
    shape: Shape = None
    """Voxels NX NY NZ, x along the readout; NX = 1 is one plane. 23 28 23 unless given, here or in a file of --init."""
    fov_mm: Annotated[tuple[float, float, float] | None, within(1.0, 3e3)] = None
    """Field of view along x, y and z [mm]; that of a file of --init, else the phantom's own, unless given."""
    field: Literal["1.5T", "3T", "7T"] = "3T"
    """Field strength, for the tissues' relaxation times."""
    coils: Annotated[int, within(1, 1024)] = 1
    """Receive coils on a birdcage; 1 is a uniform one."""
    smaps: Path | None = None
    """Instead of --coils: measured sensitivities, complex: .npy (coils, nx, ny, nz), .nii, or BART's .cfl (x, y, z,
    coils). Of .nii other grids are resampled; the others have the scene's."""
    noise_from: Path | None = None
    """Measured noise of the coils, samples or their covariance: .npy (coils, samples) or (coils, coils), BART's .cfl,
    or the noise scans of an .mrd file. Coils are prewhitened, and --noise is the root mean square over them."""
    noise: Noise = 0.0
    """Standard deviation of the real and of the imaginary part of each sample, for an image whose brightest tissue
    is one and a unitary transform."""
    planes_per_step: Annotated[int | None, within(1, 4096)] = None
    """Planes across the readout that a step takes, others at every step; 4 of more than 32, else all, unless given.
    Of some, squared_error is learned, whose mean is that of all. What is found is judged on all."""
    anatomies_per_step: Annotated[int | None, within(1, 4096)] = None
    """Anatomies that a step takes, likewise; all unless given."""

    def check(self) -> None:
        if not self.phantom:
            raise usage_error("--phantom", "nothing", "at least one image")
        if self.smaps is not None and self.coils != type(self)().coils:
            raise usage_error("--smaps", f"it with --coils {self.coils}", "one of the two")
        if self.noise_from is not None and self.smaps is None and self.coils == 1:
            raise usage_error("--noise-from", "it with one uniform coil", "--coils or --smaps")

    @property
    def grid(self) -> tuple[int, int, int]:
        """The shape asked for, or the usual one."""
        return self.shape or self.usual_shape

    def load(self, dtype: Any, key: PRNGKey | None = None, *, held: bool = False, each: int = 1, **more: Any) -> Scene:
        """The scene to learn on or, `held` out, the one to judge on: what `holdout` names, or other poses."""
        fov = None if self.fov_mm is None else tuple(m_from_mm(length) for length in self.fov_mm)
        given = {"shape": self.grid, "fov": fov, "field": self.field, "coils": self.coils, "dtype": dtype} | more
        given |= {"volume": self.volume, "fill": self.fill}
        if not held:
            scene = load_scene(*self.phantom, augment=self.augment, **given)
        elif self.holdout:
            scene = load_scene(*self.holdout, **given)
        else:
            scene = load_scene(*self.phantom, key=key, each=each, **given)
        if not held and self.shape is None and any(Path(name).is_file() for name in self.phantom):
            grid = " x ".join(map(str, scene.shape))
            logging.getLogger("acqdesign").info(f"scanned on {grid} voxels, the usual number: --shape says another")
        if self.smaps is not None:
            with by_flags({"smaps": "--smaps"}):
                smaps = load_smaps(self.smaps, scene.shape, scene.fov)
            scene = _changed(scene, "smaps", jnp.asarray(smaps, np.result_type(dtype, np.complex64)))
        if self.noise_from is not None:
            with by_flags(dict.fromkeys(("noise", "covariance", "mrd"), "--noise-from")):
                raw = self.noise_from.suffix.lower() in (".mrd", ".h5")
                covariance = noise_covariance(read_noise(self.noise_from)) if raw else load_noise(self.noise_from)
                scene = _changed(scene, "smaps", prewhitened(jnp.asarray(scene.smaps), covariance))
        return scene

    def per_step(self, scene: Scene, trajectory: Trajectory, reconstruction: Any, *, whole: bool) -> dict[str, Any]:
        """Arguments of `Problem`: how much a step takes where that is not all, which `whole` is unless asked for."""
        assert scene.maps is not None
        anatomies, planes = scene.maps.shape[1:3]
        apart = trajectory.planes_apart(scene) and getattr(reconstruction, "planes_apart", False)
        usual = _PLANES if planes > 8 * _PLANES and apart and not whole else None
        asked = {"planes_per_step": self.planes_per_step or usual, "anatomies_per_step": self.anatomies_per_step}
        there = {"planes_per_step": planes, "anatomies_per_step": anatomies}
        return {name: count for name, count in asked.items() if count not in (None, there[name])}


@dataclasses.dataclass(frozen=True)
class ImageOptions(SceneOptions):
    """What is scanned."""

    contrast: Literal["T1w", "T2w", "PDw"] = "T1w"
    """Contrast of phantoms that are tissue maps."""


@dataclasses.dataclass(frozen=True)
class TissueSceneOptions(SceneOptions):
    """What is scanned: phantoms that have tissue maps. Images are T2-weighted, as at the effective echo time."""

    usual_shape = (1, 48, 48)

    shape: Shape = None
    """Voxels NX NY NZ, x along the readout; NX = 1 is one plane. 1 48 48 unless given, here or in a file of --init."""
    noise: Noise = 0.042
    """Standard deviation of the real and of the imaginary part of each sample, of a unitary transform, for proton
    densities relative to water."""
    tissue: str = "gm,wm,csf"
    """Tissues of the phantom's maps, in order. One of your own is NAME:T1:T2 [ms], or NAME:T1:T2:PD, with its proton
    density: gm:1200:90,wm,csf."""
    b1_spread: Annotated[float, within(0.0, 0.9)] = 0.0
    """Half the range of a smooth transmit field about one, 0.2 at 3 T; 0 is a perfect field."""
    b1_map: Path | None = None
    """Instead: a measured transmit field, actual over nominal flip: .npy (nx, ny, nz), .nii, or BART's .cfl."""
    t2_spread: Annotated[float, within(0.0, 2.0)] = 0.0
    """Standard deviation of ln T2 inside each tissue; 0 is one T2 a tissue."""

    def load(self, dtype: Any, key: PRNGKey | None = None, *, held: bool = False, each: int = 1, **more: Any) -> Scene:
        """As `SceneOptions.load`, under the transmit field and the spread of T2 that were asked for."""
        found = named_tissues(self.tissue, self.field)
        scene = super().load(dtype, key, held=held, each=each, tissue_names=found, **more)
        if self.t2_spread:
            with by_flags({"spread": "--t2-spread"}):
                scene = scene.with_t2_spread(self.t2_spread)
        if self.b1_spread:
            scene = scene.with_b1_map(b1_map(self.grid, centre=1 + self.b1_spread, edge=1 - self.b1_spread))
        if self.b1_map is not None:
            assert scene.support is not None
            # Of what is held out heads lie elsewhere, beyond what was measured.
            inside = None if held else np.asarray(scene.support).max(axis=0)
            with by_flags({"b1": "--b1-map"}):
                scene = scene.with_b1_map(load_b1(self.b1_map, scene.shape, scene.fov, inside))
        return scene

    def check(self) -> None:
        super().check()
        if self.b1_map is not None and self.b1_spread:
            raise usage_error("--b1-map", f"it with --b1-spread {self.b1_spread:g}", "one of the two")


@dataclasses.dataclass(frozen=True)
class TissueOptions:
    """What is measured."""

    tissue: str | None = None
    """Tissues, with commas, of the table: wm,gm,csf; wm,gm unless --t1-ms is given. One of your own is NAME:T1:T2 [ms],
    or NAME:T1:T2:PD, with its proton density: wm,lesion:1350:110."""
    field: Literal["1.5T", "3T", "7T"] = "3T"
    """Field strength, for the tissues' relaxation times."""
    t1_ms: Each = ()
    """T1 of each tissue [ms], instead of --tissue."""
    t2_ms: Each = ()
    """T2 of each tissue [ms]."""
    b1: Annotated[tuple[float, ...], within(0.01, 10.0)] = (1.0,)
    """Transmit fields relative to nominal that every tissue is seen at."""
    t2_prime_ms: Each = ()
    """T2' of each tissue [ms], or one of all; none unless given."""
    t1_rho_ms: Each = ()
    """T1 in the rotating frame of each tissue [ms], or one of all; t1rho needs it."""
    adc_um2_ms: Annotated[tuple[float, ...], within(1e-3, 10.0)] = ()
    """Diffusivity of each tissue [µm²/ms], or one of all; diffusion needs it."""

    def check(self) -> None:
        if self.tissue is not None and (self.t1_ms or self.t2_ms):
            raise usage_error("--tissue", f"{self.tissue} and --t1-ms or --t2-ms", "one of the two")
        if len(self.t1_ms) != len(self.t2_ms):
            wanted = f"one for each of the {len(self.t1_ms)} of --t1-ms"
            raise usage_error("--t2-ms", f"{len(self.t2_ms)} values", wanted)
        if not self.b1:
            raise usage_error("--b1", "nothing", "at least one transmit field")

    def scene(self, dtype: Any) -> Scene:
        """The tissues, of unit M0, and the ensemble of them and of transmit fields that bounds run over."""
        if self.t1_ms:
            names = tuple(f"{t1:g}/{t2:g} ms" for t1, t2 in zip(self.t1_ms, self.t2_ms, strict=True))
            t1, t2 = (s_from_ms(np.asarray(t, dtype)) for t in (self.t1_ms, self.t2_ms))
            with by_flags({"t2": "--t2-ms"}):
                tissue = Tissue(t1, t2, names=names)
        else:
            tissue = tissue_of(named_tissues("wm,gm" if self.tissue is None else self.tissue, self.field))
        units: dict[str, Any] = {"t2_prime": ("t2_prime_ms", s_from_ms), "t1_rho": ("t1_rho_ms", s_from_ms)}
        units["diffusivity"] = ("adc_um2_ms", lambda adc: 1e-9 * adc)
        for field, (option, convert) in units.items():
            if given := getattr(self, option):
                if len(given) not in (1, tissue.t1.size):
                    raise usage_error(flag(option), f"{len(given)} values", f"one, or {tissue.t1.size}")
                value = convert(np.asarray(given, dtype))
                tissue = _changed(tissue, field, jnp.asarray(value[0] if len(value) == 1 else value))
        tissue = tissue.astype(dtype)
        # One B1 for all stays a scalar: the pulses' sines and cosines are then the same for every tissue.
        b1 = jnp.asarray(self.b1, dtype)
        ensemble = dataclasses.replace(tissue, b1=b1[0] if len(b1) == 1 else b1[:, None])
        return Scene(tissue=tissue, ensemble=ensemble)


@dataclasses.dataclass(frozen=True)
class TrajectoryOptions:
    """How k-space is sampled."""

    usual_samples: ClassVar[int] = 128

    trajectory: str = "lines"
    """lines, radial, spiral, epi, kooshball, stars, spirals, cones, free, splines, or your own:
    FILE.py:NAME."""
    lines: Count = None
    """Number of readouts; 253 unless --acceleration or a file is given."""
    acceleration: Annotated[float | None, within(0.1, 1e4)] = None
    """Instead of --lines: phase encodes of the full grid over lines."""
    samples: Count = None
    """Samples of a readout; 128, or as many as voxels along x where those are more, unless given, here or in a file of
    --init."""
    init: str | None = None
    """Where lines start: poisson unless given, reference (of that recipe), caipi, spiral, full, or positions: a run's
    folder, or a file .npz, .seq (Pulseq), .bin (SPARKLING), .cfl (BART), .mrd, .h5 or .mat."""
    calibration: Annotated[int | None, within(0, 1024)] = None
    """Side of the fully sampled block of lines in the centre, which stays as it is; 0 for none."""
    backend: Literal["auto", "finufft", "dft"] = "auto"
    """NUFFT of lines: finufft (fast), dft (exact; any device) or auto."""
    eps: Annotated[float | None, within(1e-14, 0.1)] = None
    """Relative accuracy of finufft; 1e-6 in single and 1e-12 in double precision unless given."""

    def check(self) -> None:
        if self.lines is not None and self.acceleration is not None:
            raise usage_error("--acceleration", f"{self.acceleration} and --lines {self.lines}", "one of the two")
        if not self.from_file:
            files = (f"FILE{ending}" for ending in POSITION_FILES)
            check_given(check_choice, self, "init", choices=(*INITIALISERS, *files))
            return
        for name in ("lines", "acceleration", "calibration"):
            if getattr(self, name) is not None:
                both = f"{self.init} with {flag(name)}"
                raise usage_error("--init", both, "one of the two: the file says how many")

    @property
    def from_file(self) -> bool:
        """Whether the lines are those of a file."""
        return self.init is not None and (self.init.endswith(POSITION_FILES) or Path(self.init).is_dir())

    def make(
        self, scene: Scene, key: PRNGKey, *, deterministic: bool, held: Mapping[str, np.ndarray], **more: Any
    ) -> Trajectory:
        """The trajectory to start from; `held` is the design in the file of `--init`, `more` goes to `Lines`.

        Where runs must repeat bit for bit, `deterministic`, lines take the `dft` backend.
        """
        if deterministic and self.backend == "finufft":
            raise usage_error("--backend", "finufft with --deterministic", "dft or auto", "Its sums vary with threads.")
        kind = load_part("--trajectory", self.trajectory, TRAJECTORIES, Trajectory)
        if deterministic and kind.operator is Trajectory.operator:
            remedy = "Sums of other NUFFTs vary with threads."
            raise usage_error("--deterministic", f"it with --trajectory {self.trajectory}", "lines", remedy)
        nufft: dict[str, Any] = {
            "eps": self.eps,
            "backend": "dft" if deterministic and issubclass(kind, Lines) else self.backend,
        }
        if self.from_file:
            assert scene.support is not None
            dtype, samples = scene.support.dtype, self.samples or max(self.usual_samples, scene.shape[0])
            usual = (np.arange(samples) - samples // 2) / samples
            if "readout" in held and not np.allclose(held["readout"], usual, atol=1e-6):
                more = {"readout": jnp.asarray(held["readout"], dtype)} | more
            points = jnp.asarray(held["points"]).astype(dtype)
            nufft["samples"] = None if "readout" in more else samples
            return Lines(points, jnp.asarray(held["learned"]), **nufft, **more)
        names = ("lines", "acceleration", "samples", "init", "calibration")
        given = {name: getattr(self, name) for name in names} | nufft
        if self.lines is None and self.acceleration is None and self.init != "full" and issubclass(kind, Lines):
            given["lines"] = min(253, scene.shape[1] * scene.shape[2])
        if self.samples is None and takes(kind.start, "samples"):
            given["samples"] = max(self.usual_samples, scene.shape[0])
        default = {f.name: f.default for f in dataclasses.fields(self)}
        flags = {name: flag(name) for name in given}
        with by_flags(flags | {"trajectory": "--trajectory"}):
            settings = accepted(kind.start, given, flags, default)
            return kind.start(scene, key, **settings, **(more if issubclass(kind, Lines) else {}))


def with_file(scene: Any, lines: Any) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """The design in the file of `--init`, empty without one, and the options with its shape, field of view and samples.

    A file that does not say its matrix has that of `--shape`. A flag that says another than the file is refused.
    """
    held, known = dict[str, np.ndarray](), dict[str, Any]()
    if lines.from_file:
        path = str(lines.init)
        if lines.trajectory != "lines":
            raise usage_error("--init", f"{path} with --trajectory {lines.trajectory}", "lines")
        kind: Any = type(format_of(design_file(path), FORMATS, reads))
        told, settable = list[str](), scene.shape is not None and takes(kind, "shape")
        try:
            held = read_positions(path, tell=told.append)
        except UsageError:
            if not settable:
                raise
        if settable and (not held or held["shape"][0] == 1):  # no word on the matrix, or a mask without its nx
            held = read_positions(path, kind(shape=scene.shape), tell=told.append)
        logging.getLogger("acqdesign").info(told[-1])
    units = {"shape": ("shape", 1.0), "fov_mm": ("fov_m", 1 / m_from_mm(1.0)), "samples": ("samples_per_line", 1.0)}
    for name, (key, unit) in units.items():
        given = getattr(lines if name == "samples" else scene, name)
        if key in held:
            value = held[key] if unit == 1 else unit * np.asarray(held[key], float)
            if given is not None and (np.shape(given) != value.shape or not np.allclose(given, value, rtol=1e-3)):
                raise usage_error(flag(name), given, f"that of {lines.init}, {value.tolist()}", "Leave it out.")
            known[name] = value.tolist() if given is None else given
    lines = dataclasses.replace(lines, samples=known.pop("samples", lines.samples))
    return dataclasses.replace(scene, **{name: tuple(value) for name, value in known.items()}), lines, held


@dataclasses.dataclass(frozen=True)
class SequenceOptions:
    """How the spins are played."""

    sequence: str = "fse"
    """fse (echo trains); mrf, spgr, bssfp, mprage (gradient-echo trains); se, mese, steam, hyperecho (spin echoes);
    mgre, dess, psif (gradient echoes); ir, sr, flair, looklocker, molli, mp2rage, t2prep, t1rho, diffusion (prepared);
    or your own: FILE.py:NAME."""
    echoes: Echoes = None
    """Readouts of a train, or acquisitions; 32 for fse, 128 for mprage, 400 for mrf, spgr and bssfp unless given."""
    esp_ms: Milliseconds = None
    """Spacing of pulses or echoes in trains [ms]; 10 for fse and 8 for mprage unless given."""
    tr_ms: Milliseconds = None
    """Repetition time [ms]: from train to train for fse (1000) and mprage (2300), from pulse to pulse for mrf, spgr
    (10) and bssfp (5)."""
    te_ms: Milliseconds = None
    """Echo time [ms] of gradient echoes (2, mprage 3) and single spin echoes; that of bssfp is half of TR."""
    ti_ms: Milliseconds = None
    """From the inversion to the first pulse [ms]: 900 for mprage, 20 for mrf, spgr and bssfp."""
    excitation_deg: Degrees = None
    """Excitation flip of fse [deg]; 90 unless given."""
    time_bandwidth: Annotated[float | None, within(1.0, 16.0)] = None
    """Time-bandwidth product of slice-selective pulses (Hamming-windowed sincs): signals are summed across the slice.
    Unless given, pulses turn all spins alike."""
    excitation_time_bandwidth: Annotated[float | None, within(1.0, 16.0)] = None
    """That of fse's excitation; as --time-bandwidth unless given."""
    refocusing_thickness: Annotated[float | None, within(0.1, 10.0)] = None
    """Slice of fse's refocusing pulses over that of its excitation; 1 unless given."""
    learn_tr_ms: Span = None
    """Shortest and longest TR [ms]: learn the TR of every pulse, or acquisition, too, with --tr-ms as the largest mean
    (mrf, spgr, and sequences of single acquisitions)."""
    learn_ti_ms: Span = None
    """Shortest and longest TI [ms]: learn the inversion delay too (mrf, spgr, bssfp, flair, looklocker); the range of
    those that are learned anyway (ir, sr, molli, mp2rage)."""
    start: str | None = None
    """Flips to start from: constant (at the RMS), sinusoid, random (smooth) or comb (a strong pulse every few).
    For fse also those whose echoes settle at a level (pss) or decay with twice the T2 (exponential). Or those of a
    file, with the times that it says: a run's folder, csv, npz, seq or mat.
    Unless given, constant for fse and mprage, sinusoid for others. Further --starts are combs for fse, else random."""

    def check(self) -> None:
        for name in ("excitation_time_bandwidth", "refocusing_thickness"):
            if getattr(self, name) is not None and (self.time_bandwidth is None or self.sequence != "fse"):
                raise usage_error(flag(name), getattr(self, name), "fse with --time-bandwidth")
        if self.te_ms is not None and self.sequence == "fse":
            raise usage_error("--te-ms", f"{self.te_ms:g} with --sequence fse", "--esp-ms, or --te-eff-ms")
        for name in ("learn_tr_ms", "learn_ti_ms"):
            span = getattr(self, name)
            if span is not None and span[0] > span[1]:
                raise usage_error(flag(name), f"{span[0]:g} {span[1]:g}", "the shortest first")

    @property
    def kind(self) -> type[Sequence]:
        """The sequence's class."""
        return load_part("--sequence", self.sequence, SEQUENCES, Sequence)

    @property
    def from_file(self) -> bool:
        """Whether the flips to start from are a file's."""
        return self.start is not None and (self.start.endswith(POSITION_FILES) or Path(self.start).is_dir())

    def with_file(self) -> Any:
        """The options with the number of pulses and the times of the file of `--start`, where there is one.

        A flag that says another than the file is refused.
        """
        if not self.from_file:
            return self
        design = read_design(str(self.start))
        if "flips_rad" not in design:
            raise usage_error("--start", f"{self.start}, without flips", "a design with flips, or a table")
        keys = {
            "esp_ms": "esp_s",
            "tr_ms": "tr_s",
            "te_ms": "te_s",
            "ti_ms": "ti_s",
            "excitation_deg": "excitation_rad",
        }
        said: dict[str, Any] = {}
        for name in (n for n, key in keys.items() if key in design and (n != "te_ms" or self.sequence != "fse")):
            values = design[keys[name]].astype(float)
            if np.ptp(values) > 1e-6 * values.max():
                got = f"{self.start}, whose {keys[name]} differs from pulse to pulse"
                raise usage_error("--start", got, "one for all", "Keep it out of the file.")
            said[name] = (deg_from_rad if name == "excitation_deg" else ms_from_s)(values.flat[0].item())
        said["echoes"] = len(design["flips_rad"])
        for name, value in said.items():
            given = getattr(self, name)
            if given is not None and not math.isclose(given, value, rel_tol=1e-4):
                raise usage_error(flag(name), f"{given:g}", f"that of {self.start}, {value:.6g}", "Leave it out.")
        new = {name: type(value)(f"{value:.6g}") for name, value in said.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **new)

    @property
    def spacing_ms(self) -> float | None:
        """From one pulse to the next [ms], where that is known."""
        parameters = inspect.signature(self.kind.start).parameters
        name, given = ("esp", self.esp_ms) if "esp" in parameters else ("tr", self.tr_ms)
        default = parameters[name].default if name in parameters else None
        return ms_from_s(default) if given is None and isinstance(default, float) else given

    def settings(self) -> dict[str, Any]:
        """What the class's `start` is given, in SI, by its argument names."""
        return {name: si(self, option) for name, option in _SETTINGS.items()}

    def make(self, tissue: Tissue, key: PRNGKey, limits: Limits, start: str | None) -> Sequence:
        """The sequence to start from, before it is projected onto the limits."""
        kind, held = self.kind, dict[str, np.ndarray]()
        if self.from_file and start == self.start:
            held, start = read_design(str(start)), None
        flags = {name: flag(option) for name, option in _SETTINGS.items()}
        default = dataclasses.replace(type(self)(), sequence=self.sequence).settings()
        said = {name: getattr(self, option) for name, option in _SETTINGS.items()}
        settings = accepted(kind.start, self.settings() | {"start": start}, flags, default, said)
        level = {"rms": limits.rms, "upper": float(np.max(limits.upper))}
        level = {name: value for name, value in level.items() if value is not None and math.isfinite(value)}
        settings |= accepted(kind.start, level, dict.fromkeys(level, "--start"), level)
        with by_flags(flags):
            made: Any = kind.start(tissue, key, **settings)
        for name in ("flips", "phases"):
            wanted, own = held.get(f"{name}_rad"), made.design().get(f"{name}_rad")
            if wanted is not None and not (np.shape(own) == wanted.shape and np.allclose(own, wanted, atol=1e-6)):
                if np.shape(own) != wanted.shape or (name == "phases" and isinstance(made, SPGR)):
                    raise usage_error("--start", f"{self.start} of {len(wanted)} {name}", f"those of {self.sequence}")
                made = _changed(made, name, jnp.asarray(wanted, made.flips.dtype))
        return self._with_learned_times(self._with_selective_pulses(made))

    def _with_selective_pulses(self, sequence: Any) -> Any:
        if self.time_bandwidth is None:
            return sequence
        if not isinstance(sequence, PulseTrain):
            names = ", ".join(name for name, kind in SEQUENCES.items() if issubclass(kind, PulseTrain))
            raise usage_error("--time-bandwidth", f"it with {self.sequence}", f"one of {names}")
        excitation = self.excitation_time_bandwidth or self.time_bandwidth
        positions = round(12 * max(4.0, excitation, self.time_bandwidth))  # an edge takes 1 / TBW

        def selective(time_bandwidth: float, thickness: float) -> SelectivePulse:
            envelope = sinc_pulse(128, time_bandwidth)
            return SelectivePulse(envelope, time_bandwidth, thickness=thickness, positions=positions)

        pulse = selective(self.time_bandwidth, self.refocusing_thickness or 1.0)
        sequence = _changed(sequence, "pulse", pulse)
        if isinstance(sequence, FSE):
            sequence = _changed(sequence, "excitation_pulse", selective(excitation, 1.0))
        return sequence

    def _with_learned_times(self, sequence: Any) -> Any:
        if isinstance(sequence, Repeated):
            return self._with_repeated_times(sequence)
        for name, field in (("learn_tr_ms", "tr"), ("learn_ti_ms", "inversion_time")):
            span = getattr(self, name)
            if span is None:
                continue
            held, what = getattr(sequence, field, None), f"{span[0]:g} {span[1]:g}"
            if not isinstance(held, float) or field not in _TIMES_OF.get(self.sequence, ()):
                names = " or ".join(name for name, fields in _TIMES_OF.items() if field in fields)
                raise usage_error(flag(name), f"{span} with --sequence {self.sequence}", f"it with {names}")
            if not s_from_ms(span[0]) <= held <= s_from_ms(span[1]):
                raise usage_error(flag(name), what, f"a range that holds {ms_from_s(held):g} ms, the start")
            if field == "tr" and s_from_ms(span[0]) < sequence.te:
                raise usage_error(flag(name), what, f"at least {ms_from_s(sequence.te):g} ms, the echo time")
            relative = jnp.ones((sequence.readouts(),) if field == "tr" else (), sequence.flips.dtype)
            sequence = _changed(sequence, field, Scaled(relative, held))
        return sequence

    def _with_repeated_times(self, sequence: Repeated) -> Repeated:
        for name, field in (("learn_tr_ms", "tr"), ("learn_ti_ms", "ti")):
            span, held = getattr(self, name), getattr(sequence, field, None)
            if span is None:
                continue
            if held is None:
                raise usage_error(flag(name), f"{span} with --sequence {self.sequence}", f"one that has a {field}")
            low, high = (s_from_ms(end) for end in span)
            size = (sequence.acquisitions(),) if field in sequence.each else jnp.shape(held)
            sequence = _changed(sequence, field, jnp.clip(jnp.broadcast_to(jnp.asarray(held), size), low, high))
        return sequence

    def time_limits(self, sequence: Any) -> list[Constraint]:
        """Limits on the times that are learned."""
        found: list[Constraint] = []
        if isinstance(sequence, Repeated):
            if self.learn_tr_ms is not None:
                mean = float(jnp.mean(sequence.tr))
                found.append(MeanAtMost("sequence.tr", mean, *map(s_from_ms, self.learn_tr_ms)))
            if self.learn_ti_ms is not None:
                found.append(Box("sequence.ti", *map(s_from_ms, self.learn_ti_ms)))
            return found
        if self.learn_tr_ms is not None:
            found.append(MeanAtMost("sequence.tr", sequence.tr.unit, *map(s_from_ms, self.learn_tr_ms)))
        if self.learn_ti_ms is not None:
            found.append(Box("sequence.inversion_time", *map(s_from_ms, self.learn_ti_ms)))
        return found


# The arguments of a class's `start`, and the options that give them.
_SETTINGS = {"esp": "esp_ms", "tr": "tr_ms", "te": "te_ms", "ti": "ti_ms", "echoes": "echoes"}
_SETTINGS |= {"excitation": "excitation_deg", "start": "start"}
_TIMES_OF = {"mrf": ("tr", "inversion_time"), "spgr": ("tr", "inversion_time"), "bssfp": ("inversion_time",)}


def _changed(part: Any, field: str, value: Any) -> Any:
    return eqx.tree_at(lambda p: getattr(p, field), part, value, is_leaf=lambda x: x is None)


@dataclasses.dataclass(frozen=True)
class TrainOptions(SequenceOptions):
    """The echo trains; of fse excitation 90°, refocusing along its axis (CPMG), from equilibrium."""

    echoes: Echoes = 96
    """Readouts of a train."""
    esp_ms: Milliseconds = 5.0
    """Echo spacing [ms]."""
    tr_ms: Milliseconds = None
    """Repetition time [ms] of the steady state that trains are in; None: they start from equilibrium."""
    te_eff_ms: Annotated[float, within(0.01, 1e5)] = 80.0
    """Effective echo time of fse [ms]: the contrast to reach."""
    ordering: str | None = None
    """Which line starts at which echo: linear, centre-out, radial-fan or random; random unless given, here or in a file
    of --init."""

    def check(self) -> None:
        super().check()
        if self.te_eff_ms != type(self).te_eff_ms and self.sequence != "fse":
            raise usage_error("--te-eff-ms", f"{self.te_eff_ms:g} with --sequence {self.sequence}", "fse")
        check_given(check_choice, self, "ordering", choices=ORDERINGS)

    def settings(self) -> dict[str, Any]:
        """As of `SequenceOptions`; the effective echo time is fse's `te`."""
        found = super().settings()
        return found | {"te": si(self, "te_eff_ms")} if self.sequence == "fse" else found

    def make(self, tissue: Tissue, key: PRNGKey, limits: Limits, start: str | None) -> Sequence:
        """As of `SequenceOptions`, trains of fse being from equilibrium unless there is a TR."""
        made: Any = super().make(tissue, key, limits, start)
        if self.sequence == "fse" and self.tr_ms is None:
            made = _changed(made, "tr", None)
        return made


def _deg(given: float | None, usual: Any) -> float:
    """What is given [deg], or a usual limit [rad], which is infinite where there is none."""
    return given if given is not None else math.inf if usual is None else deg_from_rad(usual)


@dataclasses.dataclass(frozen=True)
class LimitOptions:
    """What the flips must keep to."""

    rms_flip_deg: Open = None
    """Largest root mean square of the flips [deg], a limit on SAR; 60 for fse (45 in learn_joint), else inf (none),
    unless it or one of the next two is given."""
    sar_fraction: Annotated[float | None, within(1e-6, 1.0)] = None
    """Instead: largest power of the pulses, as a fraction of that of all-180° pulses."""
    b1rms_ut: Annotated[float | None, within(1e-3, 1e3)] = None
    """Instead: largest root mean square of B1 over the train [µT], of rectangular pulses of --pulse-ms."""
    pulse_ms: Annotated[float, within(0.01, 100.0)] = 0.6
    """Duration of a pulse [ms], for --b1rms-ut and --system."""
    min_flip_deg: Annotated[float, within(0.0, 180.0)] = 0.0
    """Smallest flip [deg]."""
    max_flip_deg: Degrees = None
    """Largest flip [deg]; 180 for fse, 90 for mrf, spgr and bssfp, 30 for mprage unless given."""
    max_step_deg: Open = None
    """Largest change from one pulse to the next [deg]; inf (none) for fse and mprage, else 1 unless given."""
    max_bend_deg: Annotated[float | None, within(1e-3, 720.0)] = None
    """Smoothness: largest root mean square of the flips' second difference [deg]."""
    symmetric: bool = False
    """Flips that read the same backwards."""
    rising: Pulses = ()
    """First and last pulse, counted from 1, of each segment over which flips may not fall: 1 10 20 32."""
    falling: Pulses = ()
    """First and last pulse of each segment over which flips may not rise."""
    spline: Echoes = None
    """Learn this many B-spline control points in place of free flips."""
    limit: tuple[str, ...] = ()
    """Constraints of your own, FILE.py:NAME each."""

    def check(self) -> None:
        powers = [n for n in ("rms_flip_deg", "sar_fraction", "b1rms_ut") if getattr(self, n) is not None]
        if len(powers) > 1:
            raise usage_error("SAR", " and ".join(map(flag, powers)), "one of them")

    def of(self, sequence: Any, limits: Limits) -> list[Constraint]:
        """The limits on a sequence's flips, where it has any, and the constraints of one's own."""
        own = [load_part("--limit", name, {}, Constraint)() for name in self.limit]
        if hasattr(sequence, "flips"):
            return [limits, *own]
        for field in dataclasses.fields(self):
            if field.name not in ("limit", "pulse_ms") and getattr(self, field.name) != field.default:
                raise usage_error(flag(field.name), f"it with {type(sequence).__name__}, which has no flips", "nothing")
        return own

    def _rms(self, usual: Limits, spacing_ms: float | None) -> tuple[str, float, float]:
        """The flag that limits power, its value, and the root mean square [deg] that it allows."""
        if self.sar_fraction is not None:
            return "--sar-fraction", self.sar_fraction, 180 * math.sqrt(self.sar_fraction)
        if self.b1rms_ut is not None:
            if spacing_ms is None:
                raise usage_error("--b1rms-ut", self.b1rms_ut, "it with a known spacing of pulses, as of fse")
            # A rectangular pulse of flip a and length d has B1 = a / (2π γ d); it is on for d of each spacing.
            lasting = s_from_ms(math.sqrt(self.pulse_ms * spacing_ms))
            return "--b1rms-ut", self.b1rms_ut, 360 * GAMMA_HZ_PER_T * si(self, "b1rms_ut") * lasting
        rms = _deg(self.rms_flip_deg, usual.rms)
        return "--rms-flip-deg", rms, rms

    def make(self, usual: Limits, pulses: int, spacing_ms: float | None, system: str | None = None) -> Limits:
        """The limits on so many flips, the `usual` ones where none is given; a `system` bounds B1.

        Those that exclude each other are refused, with the nearest value that would do.
        """
        low, high = self.min_flip_deg, _deg(self.max_flip_deg, float(np.max(usual.upper)))
        if low > high:
            raise usage_error("--min-flip-deg", low, f"at most --max-flip-deg, {high:g}")
        if system is not None:
            peak = system_limits(system).max_b1_t
            most = 360 * GAMMA_HZ_PER_T * peak * s_from_ms(self.pulse_ms)
            if low > most:
                text = f"{self.pulse_ms:g}, too short for {low:g}° at the {ut_from_t(peak):g} µT of {system}"
                raise usage_error("--pulse-ms", text, f"at least {self.pulse_ms * low / most:.3g}")
            high = min(high, most)
        name, given, rms = self._rms(usual, spacing_ms)
        if rms < low:
            # Power goes with the square, B1 and flips themselves do not.
            least = given * (low / rms) ** (2 if name == "--sar-fraction" else 1)
            remedy = f"--min-flip-deg alone needs as much: {low:g}° where {rms:.4g}° are allowed."
            raise usage_error(name, f"{given:g}", f"at least {least:.4g}", remedy)
        step = _deg(self.max_step_deg, usual.step)
        for kind in ("rising", "falling"):
            for first, last in getattr(self, kind):
                if not 1 <= first < last <= pulses:
                    raise usage_error(f"--{kind}", f"{first} {last}", f"1 <= first < last <= {pulses}")
        if self.spline is not None:
            for other in ("rising", "falling", "symmetric", "max_bend_deg"):
                if getattr(self, other):
                    raise usage_error(flag(other), "it with --spline", "one of the two")
            if not 2 <= self.spline <= pulses:
                raise usage_error("--spline", self.spline, f"2 to {pulses} control points")
        return Limits(
            rad_from_deg(low),
            rad_from_deg(high),
            rms=rad_from_deg(rms) if rms < high else None,
            step=rad_from_deg(step) if step < high - low else None,
            bend=si(self, "max_bend_deg"),
            symmetric=self.symmetric,
            rising=tuple((first - 1, last - 1) for first, last in self.rising),
            falling=tuple((first - 1, last - 1) for first, last in self.falling),
        )

    def as_learned(self, sequence: Any) -> Any:
        """The sequence with its flips as a spline, where that was asked for."""
        if self.spline is None:
            return sequence
        return _changed(sequence, "flips", Spline.near(np.asarray(sequence.flips), self.spline))


@dataclasses.dataclass(frozen=True)
class GradientOptions:
    """What the scanner can play."""

    system: str | None = None
    """Scanner whose gradients and slew readouts keep to, from rest to rest, while they are learned; none unless given.
    Of straight lines learn_joint knows how they are played."""
    dwell_us: Annotated[float, within(0.1, 1e3)] = 10.0
    """Time between samples of a readout [µs], for --system."""

    def check(self) -> None:
        check_given(check_choice, self, "system", choices=SYSTEMS)

    def played(self, trajectory: Trajectory, scene: Scene) -> Trajectory:
        """A trajectory within what the scanner can play."""
        if self.system is None:
            return trajectory
        if scene.fov is None:
            raise usage_error("--fov-mm", "nothing, with --system", "a field of view", "The phantom does not say.")
        with by_flags({"dwell": "--dwell-us", "trajectory": "--system"}):
            return trajectory.within(Hardware.of(system_limits(self.system), scene, si(self, "dwell_us")))


@dataclasses.dataclass(frozen=True)
class ScannerOptions(GradientOptions):
    """What the scanner can play."""

    system: str | None = None
    """Scanner whose gradients, slew and B1 bound the echo spacing, the readouts and the flips; none unless given."""
    dwell_us: Annotated[float, within(0.1, 1e3)] = 10.0
    """Time between samples of a readout [µs], for --system."""

    def half_width(self, scene: Scene, samples: int, esp_ms: float, pulse_ms: float) -> float:
        """Half the side of the box [cycles/voxel] that the prewinders of an echo reach; 0.5 without a system.

        A single plane stands for a scan whose readout is as long and as fine as the plane's longer side.
        """
        if self.system is None:
            return 0.5
        shape, voxel = scene.shape, scene.voxel_size()
        if scene.fov is None:
            raise usage_error("--fov-mm", "nothing, with --system", "a field of view", "The phantom does not say.")
        if shape[0] == 1:
            side = int(np.argmax(shape[1:])) + 1
            samples, voxel = max(samples, shape[side]), (voxel[side], *voxel[1:])
        limits = system_limits(self.system)
        echo = EchoShape(samples, si(self, "dwell_us"), tuple(voxel), refocusing_s=s_from_ms(pulse_ms))
        try:
            shortest = ms_from_s(min_echo_spacing(limits, echo, phase_encode=0.0))
        except ValueError as error:
            raise usage_error("--dwell-us", self.dwell_us, f"what {self.system} can read", str(error)) from None
        if esp_ms < shortest:
            short = f"{shortest - esp_ms:.3g} ms too short for {samples} samples on {self.system}"
            raise usage_error("--esp-ms", f"{esp_ms:g}, {short}", f"at least {shortest:g}")
        return max_phase_encode(limits, echo, s_from_ms(esp_ms))


@dataclasses.dataclass(frozen=True)
class TermOptions:
    """What the design is made for."""

    term: tuple[str, ...] = ()
    """Terms to make small, each NAME or NAME=WEIGHT: nrmse, squared_error, dissimilarity (1 - SSIM), scaled_error,
    noise, width, side_lobes, bound_t2, bound_t1, bound_t1t2, deviation_t2, deviation_t1, or your own: FILE.py:NAME."""

    def make(self, *usual: str) -> Term:
        """Their sum; of `usual` ones unless any is given."""
        parts = []
        for text in self.term or usual:
            name, _, weight = text.rpartition("=") if "=" in text else (text, "", "1")
            try:
                factor = float(weight)
            except ValueError:
                raise usage_error("--term", text, "NAME or NAME=WEIGHT, such as bound_t2=0.1") from None
            if not (math.isfinite(factor) and factor > 0):
                raise usage_error("--term", text, "a weight above 0")
            made = load_part("--term", name, TERMS)
            parts.append(factor * (term(made) if is_own(name) else made()))
        return Term(*(part for each in parts for part in each.parts))


@dataclasses.dataclass(frozen=True)
class ReconstructionOptions:
    """How images are reconstructed while learning."""

    reconstruction: str | None = None
    """cg (iterative SENSE), prior (with a power spectrum and the head's support), subspace (--rank images of the
    echoes), adjoint (density-compensated), or your own: FILE.py:NAME."""
    ridge: Annotated[float | None, within(0.0, 1e6)] = None
    """Tikhonov weight of cg, relative to a fully sampled scan: 1e-3 unless given; of prior and subspace the noise over
    the head's mean power, that of the scene unless given."""
    iterations: Annotated[int | None, within(1, 1000)] = None
    """Conjugate-gradient iterations; 10 for cg, 12 for prior and subspace unless given."""
    prior: Annotated[float | None, within(0.0, 10.0)] = None
    """Exponent of the power spectrum that prior and subspace expect of images, 0 being white; 1.5 unless given."""
    rank: Annotated[int | None, within(1, 64)] = None
    """Images of subspace; 2 unless given."""
    density: str | None = None
    """Density of adjoint: pipe, pipe-stopped (no gradient through it), least-squares or none; pipe unless given."""
    density_iterations: Annotated[int | None, within(1, 1000)] = None
    """Iterations of that density; 10 unless given."""

    def make(self, usual: str) -> Any:
        """The reconstruction, of the `usual` kind unless one is named."""
        name = self.reconstruction or usual
        kind = load_part("--reconstruction", name, RECONSTRUCTIONS)
        # Which option each argument is; of the two numbers of iterations a reconstruction has one.
        iterations, other = ("iterations", "density_iterations")[:: -1 if name == "adjoint" else 1]
        options = {
            "ridge": "ridge",
            "exponent": "prior",
            "rank": "rank",
            "density": "density",
            "iterations": iterations,
        }
        for option in (other, *(() if isinstance(kind, type) else options.values())):
            if getattr(self, option) is not None:
                raise no_use(flag(option), getattr(self, option), name)
        if not isinstance(kind, type):
            return kind
        given = {argument: getattr(self, option) for argument, option in options.items()}
        flags = {option: flag(option) for option in options.values()} | {a: flag(o) for a, o in options.items()}
        with by_flags(flags):
            return kind(**accepted(kind, given, flags, {}))


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How the run is made and where its results go."""

    out: Path | None = None
    """Folder for the results; runs/COMMAND-TIME unless given."""
    overwrite: bool = False
    """Replace the run that --out already holds."""
    seed: Annotated[int, within(0, 2**32 - 1)] = 0
    """Seed of every random choice."""
    steps: Steps = 100
    """Optimisation steps."""
    optimizer: str = "adam"
    """Optimiser: adam, adamw, nadam, amsgrad, radam, adabelief, lion, rmsprop, sgd, momentum or lbfgs."""
    lr: Rate = None
    """Learning rate in units of what is learned [cycles/voxel, rad]: unless given, of lines 0.28 steps of the grid of
    phase encodes (1e-2 of 28 of them), of flips 1e-2. Where --init is a file it grows from nothing over a quarter of
    the steps.
    For lbfgs the largest multiple of its own step, 1 unless given."""
    schedule: str = "constant"
    """Learning rate over the run: constant, cosine, exponential (to 1 %), linear or warmup-cosine."""
    clip: Annotated[float | None, within(1e-12, 1e12)] = None
    """Largest norm of the gradient; longer ones are scaled down to it."""
    starts: Starts = 1
    """Starting points learned side by side; the best is kept."""
    preset: str | None = None
    """Protocol to start from: t1w-3d-1mm, tse-t2-3d, mprage, mrf-400 or t2-map-16, each of one command; see --presets.
    Flags given here come first."""
    config: Path | None = None
    """config.json of an earlier run, or options in JSON, to start from; flags given here come first."""
    resume: Path | None = None
    """Folder of an interrupted run to continue, with its options, from its newest checkpoint."""
    checkpoint_every: Steps = 100
    """Steps between checkpoints; one is also written at the end and on SIGINT and SIGTERM."""
    checkpoint_minutes: Annotated[float, within(1e-9, 1e6)] = 10.0
    """A step that ends this long after the last checkpoint writes one too [min]."""
    max_minutes: Annotated[float | None, within(1e-9, 1e6)] = None
    """Stop learning, save and report after this many minutes."""
    no_early_stop: bool = False
    """Take all steps, also those that would gain less than 0.05 % of the loss together at the pace of the last ones."""
    no_figures: bool = False
    """Leave out the figures and the animation."""
    style: Literal["screen", "paper"] = "screen"
    """Figures for the screen, or for paper: the width of a page, text of 8 points, 300 dpi, and as PDF too."""
    deterministic: bool = False
    """Bit-identical results on one platform, for some loss of speed."""
    precision: Literal["single", "double"] = "single"
    """Arithmetic: float32 or float64."""
    device: Annotated[DeviceOptions, tyro.conf.arg(prefix_name=False)] = dataclasses.field(
        default_factory=DeviceOptions
    )

    def check(self) -> None:
        self.device.check()
        check_given(check_choice, self, "preset", choices=PRESETS)
        # What the optimiser has no use for is refused here, before --overwrite removes anything.
        self.make_optimizer(self.lr)

    def make_optimizer(self, lr: float | None, *, gentle: bool = False) -> Any:
        """The optimiser, with a learning rate, which grows from nothing for a start that has been learned."""
        flags = {name: flag(name) for name in ("optimizer", "lr", "steps", "schedule", "clip")} | {"max_step": "--lr"}
        with by_flags(flags):
            how: dict[str, Any] = {"schedule": self.schedule, "clip": self.clip, "gentle": gentle}
            return make_optimizer(self.optimizer, lr, steps=self.steps, **how)

    def line_rate(self, scene: Scene, grid_steps: float) -> float | None:
        """The learning rate [cycles/voxel] asked for, or of so many steps of the grid of phase encodes."""
        return self.lr if self.lr or self.optimizer == "lbfgs" else grid_steps / max(scene.shape[1:])

    @property
    def dtype(self) -> type[np.floating]:
        """The real working precision that `precision` names."""
        return np.float64 if self.precision == "double" else np.float32

    @property
    def key(self) -> PRNGKey:
        """The key that the seed stands for."""
        return jax.random.key(self.seed)

    def mesh(self, problem: Problem, held: Scene | None = None) -> Mesh | None:
        """The mesh asked for over what can be split, or that of the processor's cores; None for one device."""
        text, scene = self.device.mesh, problem.scene
        if problem.trajectory is None:
            assert scene.ensemble is not None
            return None if text is None else device_mesh(text, {"tissues": int(scene.ensemble.shape[-1])})
        anatomies, planes = problem.of_a_step or (scene.support.shape[0], scene.shape[0])  # type: ignore[union-attr]
        if held is not None and held.maps is not None:
            anatomies = math.gcd(anatomies, held.maps.shape[1])  # what is held out is split likewise
        lengths = {"anatomies": anatomies, "coils": 1 if scene.smaps is None else len(scene.smaps)}
        if problem.trajectory.planes_apart(scene):
            lengths["planes"] = math.gcd(planes, scene.shape[0])
        elif text is not None and "planes" in text:
            samples, planes = getattr(problem.trajectory, "samples", None), scene.shape[0]
            mixed = f"--samples {samples} mix the {planes} planes across a readout; --samples {planes} would not."
            raise usage_error("--mesh", text, "no planes", mixed)
        if text is None:
            cores = jax.local_device_count() if jax.default_backend() == "cpu" and jax.process_count() == 1 else 1
            share = max(n for n in range(1, cores + 1) if lengths.get("planes", 1) % n == 0)
            work = anatomies * planes * math.prod(scene.shape[1:]) * lengths["coils"]
            text = f"planes={share}" if share > 1 and work >= _MANY_VOXELS else None
        return None if text is None else device_mesh(text, lengths)

    def refuse_size(self, scene: SceneOptions, lines: TrajectoryOptions, usual_lines: int) -> None:
        """Raises where memory does not even hold the images and samples of every coil and start, three of each."""
        voxels, count = math.prod(scene.grid), lines.lines or usual_lines
        if lines.acceleration is not None or lines.init == "full":
            count = math.ceil(math.prod(scene.grid[1:]) / (lines.acceleration or 1))
        sizes = f"{' x '.join(map(str, scene.grid))} voxels, {count} lines, {scene.coils} coils, {self.starts} starts"
        each = voxels + count * (lines.samples or max(lines.usual_samples, scene.grid[0]))
        need = 6 * np.dtype(self.dtype).itemsize * len(scene.phantom) * (voxels + scene.coils * self.starts * each)
        check_memory(need, sizes, "Fewer of one of them.")

    @property
    def whole(self) -> bool:
        """Whether a step needs all of the scene, as L-BFGS needs one loss."""
        return self.optimizer == "lbfgs"

    def refuse_lbfgs(self, scene: SceneOptions) -> None:
        """Raises where a loss that changes from step to step is given to L-BFGS."""
        changing = ("augment", "noise", "planes_per_step", "anatomies_per_step")
        for name in (name for name in changing if self.optimizer == "lbfgs" and getattr(scene, name)):
            same = "It needs a loss that is the same at every step."
            raise usage_error("--optimizer", f"lbfgs with {flag(name)}", "another optimiser", same)
