"""Export a learned design: `python -m acqdesign.export RUN_DIR --to seq|bin|cfl|mrd|mat`."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from acqdesign.base.checks import usage_error
from acqdesign.base.units import m_from_mm
from acqdesign.commands.flags import Count, Milliseconds, check_ranges, flag, read_flags, si, within
from acqdesign.commands.own import accepted, load_part, no_use, takes
from acqdesign.commands.run import run_command
from acqdesign.encoding import INITIALISERS, usual_pattern
from acqdesign.export import (
    FORMATS,
    Format,
    PulseqOptions,
    read_design,
    read_positions,
    with_lines,
    with_samples,
    write_design,
)
from acqdesign.export.formats import design_file, writes
from acqdesign.plot import plot_diagram
from acqdesign.plot.style import write_figure
from acqdesign.scene import system_limits


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Write the design of a run as a file that scanners and other packages read: RUN_DIR/design.<ending>.

    seq: a Pulseq sequence, ready for a scanner: any learned sequence at its own times, and a spoiled gradient echo of
    lines or other readouts alone, in 3D or of one slice, with a diagram of its first repetition. Needs the extra
    "pulseq".
    bin: SPARKLING gradients, as mri-nufft reads them. cfl: a BART trajectory, with its .hdr.
    mrd: ISMRM Raw Data with trajectory and header; needs the extra "mrd". mat: MATLAB, every array by its name.
    csv: a table of flips [deg], phases, times [ms] and the order of lines, for product sequences.

    --list says what each keeps of a design and what it loses.

    Designs of learn_flips have no lines to acquire: --lines gives them some. Times and pulses that the
    design does not say are chosen within the limits of --system. Exit codes: 0 written, 2 wrong use or a design that
    the scanner cannot play (the error says what would fix it), 4 file system. Examples:

    python -m acqdesign.export runs/joint --to seq --system prisma --tr-ms 2500

    python -m acqdesign.export runs/plane --to seq --samples 256 --slab-mm 150

    python -m acqdesign.export runs/flips --to seq csv --lines caipi --shape 192 192 96 --fov-mm 192 192 144

    python -m acqdesign.export runs/mrf --to seq --lines full --shape 32 32 16 --fov-mm 220 220 110 --tr-ms 8000

    python -m acqdesign.export runs/lines --to cfl --out brain.cfl
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or a design.npz."""
    to: tuple[str, ...] = ()
    """Formats, one or more: seq, bin, cfl, mrd, mat, csv, npz, or your own: FILE.py:NAME. That of --out
    unless given."""
    out: Path | None = None
    """File to write; design.<ending> beside the design unless given."""
    overwrite: bool = False
    """Replace files that are there."""
    lines: str | None = None
    """Lines for pulses that have none: a run's folder, a file, or poisson, caipi, spiral or full."""
    shape: Annotated[tuple[int, int, int] | None, within(1, 2**15)] = None
    """Voxels NX NY NZ of lines by name, x along the readout."""
    fov_mm: Annotated[tuple[float, float, float] | None, within(1.0, 3e3)] = None
    """Field of view along x, y and z [mm] of lines by name."""
    acceleration: Annotated[float | None, within(1.0, 1e3)] = None
    """Phase encodes of the full grid over lines, of lines by name; 4 unless given."""
    calibration: Annotated[int | None, within(0, 2**15)] = None
    """Side of the fully sampled block in the centre, of lines by name."""
    ordering: str | None = None
    """Which of these lines at which echo: linear, centre-out, radial-fan or random; or every, each line at all
    readouts of a repetition of its own. centre-out for pulses of one echo spacing, every for others, unless given."""
    te_eff_ms: Annotated[float | None, within(0.01, 1e5)] = None
    """Time at which the centre of k-space is then acquired, to the nearest echo [ms]; 80 of spin echoes, and at the
    first readout of others, unless given."""
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
    pulseq_version: str = "1.5"
    """seq: version of the file, 1.5, or 1.4 for older interpreters."""
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
            version=self.pulseq_version,
            **times,
        )


_OF_LINES = ("shape", "fov_mm", "acceleration", "calibration", "ordering", "te_eff_ms")


def _with_lines(design: Mapping[str, Any], options: ExportOptions) -> Mapping[str, Any]:
    """The design with the lines that the options say."""
    name = options.lines
    if name is None:
        for field in _OF_LINES:
            value = getattr(options, field)
            if value != getattr(ExportOptions, field):
                raise usage_error(flag(field), value, "it with --lines")
        return design
    if name in INITIALISERS:
        if options.shape is None or options.fov_mm is None:
            raise usage_error("--lines", f"{name} without --shape and --fov-mm", "both of them")
        made = usual_pattern(
            name, options.shape, jax.random.key(0), acceleration=options.acceleration, calibration=options.calibration
        )
        samples = options.samples or options.shape[0]
        found: Mapping[str, Any] = {
            "points": made.points,
            "shape": options.shape,
            "fov_m": tuple(map(m_from_mm, options.fov_mm)),
        }
        found = {**found, "samples_per_line": samples}
    else:
        if not design_file(name).exists():
            raise usage_error("--lines", name, "a file, a run's folder, or one of " + ", ".join(INITIALISERS))
        for field in _OF_LINES[:4]:
            if getattr(options, field) is not None:
                raise usage_error(flag(field), getattr(options, field), f"nothing: {name} has lines of its own")
        found = read_positions(name, tell=print)
    return with_lines(design, found, te=si(options, "te_eff_ms"), ordering=options.ordering)


def _listed() -> str:
    """Each format that is written, what it keeps of a design and what it loses."""
    kinds = [(name, kind) for name, kind in FORMATS.items() if writes(kind)]
    return "\n".join(f"{n}: {k.about}\n     keeps {k.keeps}\n     loses {k.loses}" for n, k in kinds)


def _main(argv: Sequence[str] | None) -> int:
    args = sys.argv[1:] if argv is None else argv
    if "--list" in args:
        print(_listed())
        return 0
    options = read_flags(ExportOptions, args, "python -m acqdesign.export")
    check_ranges(options)
    names = options.to or ((options.out.suffix[1:],) if options.out is not None and options.out.suffix else ())
    if not names:
        raise usage_error("--to", "nothing", "a format, or --out with an ending")
    if len(names) > 1 and options.out is not None:
        raise usage_error("--out", f"{options.out} with {len(names)} formats", "one format")
    source = design_file(options.run_dir)
    if not source.exists():
        raise usage_error("RUN_DIR", f"{options.run_dir}, without a design.npz", "the folder of a run")
    made = _formats(names, options)
    paths = [options.out or source.with_name(f"design.{form.ending}") for form in made]
    for name, path in zip(names, paths, strict=True):
        if path == source:
            raise usage_error("--to", name, f"another format than that of {source}")
        if path.exists() and not options.overwrite:
            raise usage_error("--out", f"{path}, which is there", "another file", "Or add --overwrite.")
    design: Mapping[str, Any] = _with_lines(read_design(source), options)
    if options.samples is not None:
        design = with_samples(design, options.samples)
    for form, path in zip(made, paths, strict=True):
        said = write_design(path, design, to=form)
        for line in said.lines() if hasattr(said, "lines") else ():
            print(line)
        print(f"wrote {path}")
        if hasattr(said, "diagram"):
            write_figure(picture := path.with_name(f"{path.stem}_timing.png"), plot_diagram(said.diagram))
            print(f"wrote {picture}")
    return 0


# Options that are no format's own.
_OF_COMMAND = ("run_dir", "to", "out", "overwrite", "lines", *_OF_LINES, "samples")


def _formats(names: Sequence[str], options: ExportOptions) -> list[Format]:
    """The formats by their names, each with the settings that it takes; those that none takes are refused."""
    known = {name: kind for name, kind in FORMATS.items() if writes(kind)}
    kinds = [load_part("--to", name, known, Format) for name in names]
    readers = {"system": ("system", "options"), "pns_asc": ("pns_hardware",)}
    for field in dataclasses.fields(options):
        value, able = getattr(options, field.name), readers.get(field.name, ("options",))
        used = field.name in _OF_COMMAND or any(takes(kind, name) for kind in kinds for name in able)
        if value != field.default and not used:
            raise no_use(flag(field.name), value, " or ".join(names))
    given = {"system": system_limits(options.system), "options": options.pulseq(), "pns_hardware": options.pns_asc}
    for name, kind in zip(names, kinds, strict=True):
        if not kind.ending:
            raise usage_error("--to", f"{name}, without an ending", 'a class with one, such as ending = "csv"')
    return [kind(**accepted(kind, given, dict.fromkeys(given, "--to"), given)) for kind in kinds]


main = partial(run_command, _main, prog="export")
