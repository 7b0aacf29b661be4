"""Export a learned design: `python -m acqdesign.export RUN_DIR --to seq|bin|cfl|mrd|mat`."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from acqdesign.base.checks import usage_error
from acqdesign.commands.flags import Count, Milliseconds, check_ranges, flag, read_flags, si, within
from acqdesign.commands.own import accepted, load_part, no_use, takes
from acqdesign.commands.run import run_command
from acqdesign.export import FORMATS, Format, PulseqOptions, read_design, with_samples, write_design
from acqdesign.export.formats import design_file, writes
from acqdesign.scene import system_limits


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Write the design of a run as a file that scanners and other packages read: RUN_DIR/design.<ending>.

    seq: a Pulseq sequence, ready for a scanner; 3D fast spin echo for designs of learn_joint, 3D spoiled gradient
    echo for those of learn_traj, which have lines but no echo trains. Needs the extra "pulseq".
    bin: SPARKLING gradients, as mri-nufft reads them. cfl: a BART trajectory, with its .hdr.
    mrd: ISMRM Raw Data with trajectory and header; needs the extra "mrd". mat: MATLAB, every array by its name.

    Designs of learn_flips have no lines to acquire: seq, bin, cfl and mrd refuse them. Times and pulses that the
    design does not say are chosen within the limits of --system. Exit codes: 0 written, 2 wrong use or a design that
    the scanner cannot play (the error says what would fix it), 4 file system. Examples:

    python -m acqdesign.export runs/joint --to seq --system prisma --tr-ms 2500

    python -m acqdesign.export runs/plane --to seq --samples 256 --slab-mm 150

    python -m acqdesign.export runs/lines --to cfl
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or a design.npz."""
    to: str
    """Format: seq, bin, cfl, mrd, mat, npz, or your own: FILE.py:NAME."""
    samples: Count = None
    """Samples of a readout instead of the design's. Designs of one plane need it: they get as many voxels along x,
    each as thick as the plane."""
    system: str = "generic"
    """Scanner whose limits hold: generic, prisma, skyra, aera, connectom, mr750 or uhp."""
    dwell_ms: Annotated[float | None, within(1e-4, 1.0)] = None
    """seq: time between samples [ms]; chosen to suit the echo spacing unless given."""
    tr_ms: Milliseconds = None
    """seq: repetition time [ms]; the design's, or 3000 for trains and the shortest for single echoes."""
    te_ms: Milliseconds = None
    """seq: echo time of single echoes [ms]; short unless given."""
    flip_deg: Annotated[float, within(0.01, 180.0)] = 15.0
    """seq: excitation of single echoes [°], where the design has none."""
    refocusing_ms: Milliseconds = None
    """seq: duration of refocusing pulses [ms]; the shortest within B1 unless given."""
    excitation_ms: Milliseconds = None
    """seq: duration of excitation pulses [ms]; likewise."""
    slab_mm: Annotated[float | None, within(0.1, 3e3)] = None
    """seq: thickness of a selective excitation [mm]; a hard pulse excites everything unless given."""
    crusher: Annotated[float, within(0.01, 100.0)] = 1.0
    """seq: dephasing along the readout beside each refocusing pulse [cycles/voxel]."""
    dummies: Annotated[int | None, within(0, 10**5)] = None
    """seq: trains, or single echoes, played first without a readout; 1 and 64 unless given."""
    no_noise_scan: bool = False
    """seq: leave out the readout of noise at the start."""
    pns_asc: Path | None = None
    """seq: scanner's .asc file for the prediction of nerve stimulation, instead of a published example."""

    def pulseq(self) -> PulseqOptions:
        """What concerns Pulseq, in SI."""
        times = {f"{name}_s": si(self, f"{name}_ms") for name in ("dwell", "tr", "te", "refocusing", "excitation")}
        return PulseqOptions(
            system=system_limits(self.system),
            flip_rad=si(self, "flip_deg"),
            slab_m=si(self, "slab_mm"),
            crusher=self.crusher,
            dummies=self.dummies,
            noise_scan=not self.no_noise_scan,
            **times,
        )


def _main(argv: Sequence[str] | None) -> int:
    args = sys.argv[1:] if argv is None else argv
    options = read_flags(ExportOptions, args, "python -m acqdesign.export")
    check_ranges(options)
    kind = load_part("--to", options.to, {name: kind for name, kind in FORMATS.items() if writes(kind)}, Format)
    readers = {"system": ("system", "options"), "pns_asc": ("pns_hardware",)}
    for field in dataclasses.fields(options)[3:]:
        value, able = getattr(options, field.name), readers.get(field.name, ("options",))
        if value != field.default and not any(takes(kind, name) for name in able):
            raise no_use(flag(field.name), value, options.to)
    source = design_file(options.run_dir)
    if not source.exists():
        raise usage_error("RUN_DIR", f"{options.run_dir}, without a design.npz", "the folder of a run")
    design: Mapping[str, Any] = read_design(source)
    if options.samples is not None:
        design = with_samples(design, options.samples)
    given = {"system": system_limits(options.system), "options": options.pulseq(), "pns_hardware": options.pns_asc}
    made = kind(**accepted(kind, given, dict.fromkeys(given, "--to"), given))
    if not kind.ending:
        raise usage_error("--to", f"{options.to}, without an ending", 'a class with one, such as ending = "csv"')
    path = source.with_name(f"design.{kind.ending}")
    if path == source:
        raise usage_error("--to", options.to, f"another format than that of {source}")
    said = write_design(path, design, to=made)
    for line in said.lines() if hasattr(said, "lines") else ():
        print(line)
    print(f"wrote {path}")
    return 0


main = partial(run_command, _main, prog="export")


if __name__ == "__main__":
    sys.exit(main())
