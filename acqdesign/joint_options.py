"""What `learn_joint` asks: its scene, its echo trains, and what is learned for what."""

import dataclasses
from typing import Literal

from acqdesign._checks import check_choice, check_count, check_positive
from acqdesign.design import ScheduleLimits
from acqdesign.design.joint_objective import RECONSTRUCTIONS
from acqdesign.encoding import ORDERINGS
from acqdesign.options import LineOptions, SceneOptions
from acqdesign.run import RunOptions
from acqdesign.units import rad_from_deg


@dataclasses.dataclass(frozen=True)
class JointRunOptions(RunOptions):
    """How the run is made and where its results go."""

    steps: int = 150
    """Optimisation steps."""
    schedule: str = "cosine"
    """Learning rate over the run: constant, cosine, exponential (to 1 %), linear or warmup-cosine."""


@dataclasses.dataclass(frozen=True)
class JointSceneOptions(SceneOptions):
    """What is scanned: phantoms that have tissue maps."""

    shape: tuple[int, int, int] = (1, 48, 48)
    """Voxels NX NY NZ, x along the readout; NX = 1 is one plane."""
    noise: float = 0.06
    """Standard deviation of the complex noise on each sample, of a unitary transform."""
    b1_spread: float = 0.0
    """Half the range of a smooth transmit field about one, 0.2 at 3 T; 0 is a perfect field."""


@dataclasses.dataclass(frozen=True)
class JointLineOptions(LineOptions):
    """How k-space is sampled."""

    lines: int | None = None
    """Number of readout lines, a multiple of --echoes; 768 unless --acceleration is given."""
    samples: int = 1
    """Samples of a line."""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The echo trains; excitation 90°, refocusing along its axis (CPMG)."""

    echoes: int = 96
    """Echoes of a train."""
    esp_ms: float = 5.0
    """Echo spacing [ms]."""
    te_eff_ms: float = 80.0
    """Effective echo time [ms]: the contrast to reach."""
    tissue: str = "gm,wm,csf"
    """Tissues of the phantom's maps, in their order, from the tissue table."""
    rms_flip_deg: float = 45.0
    """Largest root mean square of the refocusing flips [°]: the limit on power."""
    min_flip_deg: float = 0.0
    """Smallest flip [°]."""
    max_flip_deg: float = 180.0
    """Largest flip [°]."""
    max_step_deg: float | None = None
    """Largest change of flip from one echo to the next [°]."""
    ordering: str = "random"
    """Which line starts at which echo: linear, centre-out, radial-fan or random."""

    def __post_init__(self) -> None:
        check_count("--echoes", self.echoes)
        for name in ("esp_ms", "te_eff_ms", "rms_flip_deg", "max_flip_deg"):
            check_positive("--" + name.replace("_", "-"), getattr(self, name))
        check_choice("--ordering", self.ordering, ORDERINGS)

    def limits(self) -> ScheduleLimits:
        """Limits on the flips [rad]."""
        step = None if self.max_step_deg is None else rad_from_deg(self.max_step_deg)
        low, high = rad_from_deg(self.min_flip_deg), rad_from_deg(self.max_flip_deg)
        return ScheduleLimits(lower=low, upper=high, rms=rad_from_deg(self.rms_flip_deg), step=step)


@dataclasses.dataclass(frozen=True)
class GoalOptions:
    """What is learned, and for what."""

    learn: Literal["joint", "lines", "flips", "none"] = "joint"
    """What learning may change."""
    compare: bool = False
    """Learn all four designs from one start with one budget, and compare them."""
    reconstruction: str = "image"
    """image: one image by amplitude-weighted iterative SENSE; subspace: --rank coefficient images."""
    rank: int = 2
    """Coefficients of the subspace reconstruction."""
    ridge: float = 1e-2
    """Tikhonov weight of the reconstruction, relative to a fully sampled scan with amplitudes of one."""
    iterations: int = 12
    """Conjugate-gradient iterations of the reconstruction."""
    weight_nrmse: float = 1.0
    """Weight of the image's normalised error."""
    weight_noise: float = 0.0
    """Weight of the reconstruction's noise over the image."""
    weight_psf: float = 0.0
    """Weight of the point spread function's side-lobe energy."""
    lr_flips: float | None = None
    """Learning rate of the flips [rad]; --lr is that of the lines. 5e-2 and 1e-2 unless given."""
    exchange_every: int = 0
    """Steps between exchanges of echoes among lines by linear assignment; 0 for none."""

    def __post_init__(self) -> None:
        check_choice("--reconstruction", self.reconstruction, RECONSTRUCTIONS)
        check_count("--rank", self.rank)
        check_count("--exchange-every", self.exchange_every, minimum=0)
        if self.lr_flips is not None:
            check_positive("--lr-flips", self.lr_flips)


@dataclasses.dataclass(frozen=True)
class JointOptions:
    """Learn where readout lines lie and the flip angles of the echo trains that acquire them, with one gradient.

    Every line is acquired at an echo of a train, so flips weight k-space and positions decide what each echo is
    used for. Results go to a folder: design.npz, summary.json, history.csv, figures. Examples:

    python -m acqdesign.learn_joint

    python -m acqdesign.learn_joint --compare

    python -m acqdesign.learn_joint --learn flips --rms-flip-deg 60 --te-eff-ms 100
    """

    scene: JointSceneOptions = dataclasses.field(default_factory=JointSceneOptions)
    line: JointLineOptions = dataclasses.field(default_factory=JointLineOptions)
    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    goal: GoalOptions = dataclasses.field(default_factory=GoalOptions)
    run: JointRunOptions = dataclasses.field(default_factory=JointRunOptions)
