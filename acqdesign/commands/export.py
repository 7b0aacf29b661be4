"""Export a learned design: `python -m acqdesign.export RUN_DIR --to seq|bin|cfl|mrd|mat`."""

import dataclasses
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from acqdesign.base.checks import check_choice, check_count, check_positive, usage_error
from acqdesign.base.units import ms_from_s, rad_from_deg, s_from_ms
from acqdesign.commands.flags import description
from acqdesign.commands.run import run_command
from acqdesign.export.bart import write_bart
from acqdesign.export.mat import write_mat
from acqdesign.export.mrd import write_mrd
from acqdesign.export.npz import read_design
from acqdesign.export.plan import PulseqOptions
from acqdesign.export.pulseq import PulseqReport, write_pulseq
from acqdesign.export.sparkling import write_sparkling
from acqdesign.export.straight import with_samples
from acqdesign.scene.scanner import system_limits

COMMAND = "export"
_MM = 1e-3  # metres
FORMATS = ("seq", "bin", "cfl", "mrd", "mat")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Write the design of a run as a file that scanners and other packages read: RUN_DIR/design.<ending>.

    seq: a Pulseq sequence, ready for a scanner; 3D fast spin echo for designs of learn_joint, 3D spoiled gradient
    echo for those of learn_traj, which have lines but no echo trains. Needs the extra "pulseq".
    bin: SPARKLING gradients, as mri-nufft reads them. cfl: a BART trajectory, with its .hdr.
    mrd: ISMRM Raw Data with trajectory and header; needs the extra "mrd". mat: MATLAB, every array by its name.

    Designs of learn_flips have no lines to acquire: only mat takes them. Times and pulses that the design does not
    say are chosen within the limits of --system. Exit codes: 0 written, 2 wrong use or a design that the scanner
    cannot play (the error says what would fix it), 4 file system. Examples:

    python -m acqdesign.export runs/joint --to seq --system prisma --tr-ms 2500

    python -m acqdesign.export runs/plane --to seq --samples 256 --slab-mm 150

    python -m acqdesign.export runs/lines --to cfl
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or a design.npz."""
    to: str
    """Format: seq, bin, cfl, mrd or mat."""
    samples: int | None = None
    """Samples of a readout instead of the design's. Designs of one plane need it: they get as many voxels along x,
    each as thick as the plane."""
    system: str = "generic"
    """Scanner whose limits hold: generic, prisma, skyra, aera, connectom, mr750 or uhp."""
    dwell_ms: float | None = None
    """seq: time between samples [ms]; chosen to suit the echo spacing unless given."""
    tr_ms: float | None = None
    """seq: repetition time [ms]; the design's, or 3000 for trains and the shortest for single echoes."""
    te_ms: float | None = None
    """seq: echo time of single echoes [ms]; short unless given."""
    flip_deg: float = 15.0
    """seq: excitation of single echoes [°], where the design has none."""
    refocusing_ms: float | None = None
    """seq: duration of refocusing pulses [ms]; the shortest within B1 unless given."""
    excitation_ms: float | None = None
    """seq: duration of excitation pulses [ms]; likewise."""
    slab_mm: float | None = None
    """seq: thickness of a selective excitation [mm]; a hard pulse excites everything unless given."""
    crusher: float = 1.0
    """seq: dephasing along the readout beside each refocusing pulse [cycles/voxel]."""
    dummies: int | None = None
    """seq: trains, or single echoes, played first without a readout; 1 and 64 unless given."""
    no_noise_scan: bool = False
    """seq: leave out the readout of noise at the start."""
    pns_asc: Path | None = None
    """seq: scanner's .asc file for the prediction of nerve stimulation, instead of a published example."""

    def check(self) -> None:
        """Raises, in one line, what tyro would put in a box."""
        check_choice("--to", self.to, FORMATS)
        for name in ("samples", "dummies"):
            if getattr(self, name) is not None:
                check_count(f"--{name}", getattr(self, name), minimum=int(name == "samples"))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                check_positive("--" + field.name.replace("_", "-"), value)

    def pulseq(self) -> PulseqOptions:
        """What concerns Pulseq, in SI."""
        names = ("dwell", "tr", "te", "refocusing", "excitation")
        given = {f"{name}_s": getattr(self, f"{name}_ms") for name in names}
        return PulseqOptions(
            system=system_limits(self.system),
            flip_rad=rad_from_deg(self.flip_deg),
            slab_m=None if self.slab_mm is None else _MM * self.slab_mm,
            crusher=self.crusher,
            dummies=self.dummies,
            noise_scan=not self.no_noise_scan,
            **{name: None if value is None else s_from_ms(value) for name, value in given.items()},
        )


def _main(argv: Sequence[str] | None) -> int:
    prog, settings = "python -m acqdesign.export", (tyro.conf.FlagCreatePairsOff,)
    about = description(ExportOptions)
    options = tyro.cli(ExportOptions, prog=prog, args=argv, description=about, config=settings)
    options.check()
    source = options.run_dir / "design.npz" if options.run_dir.is_dir() else options.run_dir
    if not source.exists():
        raise usage_error("RUN_DIR", f"{options.run_dir}, without a design.npz", "the folder of a run")
    design: Mapping[str, Any] = read_design(source)
    if "points" not in design and options.to != "mat":
        remedy = "Designs of learn_flips have nothing to acquire: learn them together with learn_joint."
        raise usage_error("RUN_DIR", f"{source} without line positions", "a design with lines", remedy)
    if options.samples is not None:
        design = with_samples(design, options.samples)
    path = source.with_name(f"design.{options.to}")
    limits = system_limits(options.system)
    if options.to == "seq":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # printed below, in one line
            hardware = None if options.pns_asc is None else str(options.pns_asc)
            report = write_pulseq(path, design, options.pulseq(), pns_hardware=hardware)
        _report(report, options)
    elif options.to == "bin":
        write_sparkling(path, design, limits)
    elif options.to == "mrd":
        write_mrd(path, design, limits)
    else:
        (write_bart if options.to == "cfl" else write_mat)(path, design)
    print(f"wrote {path}")
    return 0


def _report(report: PulseqReport, options: ExportOptions) -> None:
    played, limits = report.played, system_limits(options.system)
    if "echo" in played:
        trains, echoes = len(set(played["train"].tolist())), len(played["flips_rad"])
        spacing = ms_from_s(float(played["esp_s"]))
        print(
            f"3D fast spin echo: {trains} trains of {echoes} echoes, {spacing:.4g} ms apart; {report.duration_s:.0f} s"
        )
        print(f"mean squared flip over that of 180°: {report.power:.3f}")
    else:
        te = ms_from_s(float(played["te_s"][0]))
        print(
            f"3D spoiled gradient echo: {len(played['points'])} lines, TE {te:.4g} ms; {report.duration_s:.0f} s"
        )
    print(
        f"largest gradient {report.max_gradient_t_per_m:.3g} T/m of {limits.max_gradient_t_per_m:.3g}, "
        f"slew {report.max_slew_t_per_m_s:.3g} T/m/s of {limits.max_slew_t_per_m_s:.3g}, "
        f"B1 {report.peak_b1_t:.3g} T of {limits.max_b1_t:.3g} ({limits.name})"
    )
    model = "the scanner's model" if options.pns_asc else "a published example of a scanner"
    print(f"nerve stimulation predicted at {100 * report.pns:.0f} % of the limit, by {model}")
    if report.advice:
        print(f"{COMMAND}: warning: {report.advice}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: its arguments; the process's own unless given.

    Returns:
        The exit code: 0 written, 2 wrong use or input, 4 file system.
    """
    return run_command(_main, argv, prog=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
