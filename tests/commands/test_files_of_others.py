"""One file of each kind that people of the field met, through Python and through the commands: taken, or refused with
what to type next."""

import numpy as np
import pytest
import scipy.io

from acqdesign.base.checks import UsageError
from acqdesign.export import Bart, Mask, Pulseq, read_design
from acqdesign.scene import load_image

from ..export.test_other_files import CELLS, FOV, LINES, SHAPE, cfl, raw_data, version_7_3
from ..export.test_other_files import samples as positions
from ._lines import asked, main

nibabel, pp = pytest.importorskip("nibabel"), pytest.importorskip("pypulseq")
pytest.importorskip("ismrmrd")

from ..export import _sequences as made  # noqa: E402

MATRIX = ("--shape", *SHAPE.tolist())


def pulseq(kind="gre", *, rename=None, drop="", name=None, signed=True, **how):
    """A writer of one of pypulseq's sequences, with other definitions or no signature; of 1.4 with `v141_compat`."""
    old = {name: how.pop(name) for name in ("v141_compat",) if name in how}

    def write(path):
        sequence = made.KINDS[kind](**how)
        for before, after in (rename or {}).items():
            sequence.definitions[after] = sequence.definitions.pop(before)
        sequence.definitions.pop(drop, None)
        if name:
            sequence.set_definition("Name", name)
        sequence.write(str(path), check_timing=False, create_signature=signed, **old)

    return write


def bart(array):
    return lambda path: cfl(path, array)


MASK = np.zeros((6, 4), bool)
MASK[::2] = True
STEPS = (positions() * SHAPE).transpose(2, 1, 0)
# File: what writes it; settings in Python and flags that it needs; lines, samples and trains, or how it is refused.
DESIGNS = {
    "no_matrix.seq": (pulseq(drop="ImgSize"), Pulseq(shape=SHAPE.tolist()), MATRIX, (24, 8, 0)),
    "no_matrix_and_no_word.seq": (pulseq(drop="ImgSize"), None, (), r"--shape, or Pulseq\(shape=.*about \(8, 6, 4\)"),
    "other_word.seq": (pulseq(rename={"ImgSize": "MatrixSize"}), None, (), (24, 8, 0)),
    "unsigned.seq": (pulseq(signed=False), None, (), (24, 8, 0)),
    "older.seq": (pulseq(v141_compat=True), None, (), (24, 8, 0)),
    "umlaut.seq": (pulseq(name="Schädel"), None, (), (24, 8, 0)),
    "along_y.seq": (pulseq(axes="yxz"), None, (), (24, 8, 0)),
    "falling.seq": (pulseq(sign=-1), None, (), (24, 8, 0)),
    "trains_v14.seq": (pulseq("tse", v141_compat=True), None, (), (24, 8, 6)),
    "trains_without_uses.seq": (pulseq("tse", uses=False), None, (), (24, 8, 6)),
    "balanced.seq": (pulseq("bssfp", v141_compat=True), None, (), (24, 8, 0)),
    "inversion_v14.seq": (pulseq("mprage", v141_compat=True), None, (), (24, 8, 0)),
    "units_of_the_matrix.h5": (
        lambda path: raw_data(path, positions() * SHAPE), None, (), r"look like cycles per field of view: .* / np.array"
    ),
    "steps.h5": (raw_data, None, (), (24, 8, 0)),
    "counters_of_others.h5": (lambda path: raw_data(path, positions(), train=4), None, (), (24, 8, 0)),
    "radians.mat": (
        lambda path: scipy.io.savemat(path, {"points": LINES * 2 * np.pi}), None, (), r"radians: points / \(2 "
    ),
    "v73.mat": (lambda path: version_7_3(path, {"points": LINES}), None, MATRIX, (24, None, 0)),
    "trajectory.cfl": (bart(STEPS), Bart(shape=SHAPE.tolist()), MATRIX, (24, 8, 0)),
    "trajectory_without_matrix.cfl": (bart(STEPS), None, (), r"no matrix.*--shape, or Bart\(shape=.*about \(8, 6, 4\)"),
    "mask.cfl": (bart(MASK[None]), Bart(shape=SHAPE.tolist()), MATRIX, (12, 8, 0)),
    "mask.npy": (lambda path: np.save(path, MASK), Mask(shape=SHAPE.tolist()), MATRIX, (12, 8, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_of_others_through_python_and_the_commands(name, tmp_path, monkeypatch, capsys):
    """The same lines, matrix and field of view by both, or the same refusal: code 2 and one line."""
    write, by, flags, wanted = DESIGNS[name]
    path = tmp_path / name
    write(path)
    small = [*flags, "--phantom", tmp_path / "head.npy", "--holdout", tmp_path / "head.npy"]
    np.save(tmp_path / "head.npy", np.ones((4, 4, 4)))
    if isinstance(wanted, str):
        with pytest.raises(UsageError, match=wanted):
            read_design(path, by)
        assert main("learn_traj", "--init", path, *small) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert path.stem in error
        return
    found = read_design(path, by)
    lines, samples, trains = wanted
    assert len(found["points"]) == lines
    assert found.get("samples_per_line") == samples
    assert len(np.unique(found.get("train", []))) == trains
    problem = asked(monkeypatch, "learn_traj", "--init", path, *small)["problem"]
    np.testing.assert_allclose(problem.trajectory.points, found["points"], atol=1e-6)
    if "shape" in found:
        assert problem.scene.shape == tuple(found["shape"])
        assert set(problem.scene.shape) == set(SHAPE)
    if "fov_m" in found:
        np.testing.assert_allclose(problem.scene.fov, found["fov_m"], rtol=1e-6)
    assert f"{path}: " in capsys.readouterr().out


BLOB = np.exp(-((np.indices((20, 24, 20)) - 10) ** 2).sum(0) / 30).astype(np.float32)
IMAGES = {
    "nan.nii.gz": (np.where(BLOB > 0.05, BLOB, np.nan), 8.0, {"fill": 0.0}, r"holds \d+ NaN voxels, .*--fill 0"),
    "two.nii.gz": (np.stack([BLOB, BLOB / 2], -1), 8.0, {"volume": 1}, r"holds 2 volumes .*--volume 0 to 1"),
    "freesurfer.mgz": (BLOB, 8.0, {}, None),
    "wide.nii": (BLOB, 12.8, {}, None),
}


@pytest.mark.parametrize("name", IMAGES)
def test_phantoms_of_others_through_python_and_the_commands(name, tmp_path, monkeypatch, capsys):
    array, size, how, refused = IMAGES[name]
    kind = nibabel.MGHImage if name.endswith(".mgz") else nibabel.Nifti1Image
    nibabel.save(kind(array, np.diag([size, size, size, 1.0])), tmp_path / name)
    small = ["--shape", 10, 12, 10, "--lines", 20, "--samples", 10, "--phantom", tmp_path / name]
    if refused is not None:
        with pytest.raises(UsageError, match=refused):
            load_image(str(tmp_path / name))
        assert main("learn_traj", *small) == 2
        assert capsys.readouterr().err.count("\n") == 1
    flags = [part for flag, value in how.items() for part in (f"--{flag}", value)]
    scene = asked(monkeypatch, "learn_traj", *small, *flags)["problem"].scene
    np.testing.assert_allclose(scene.maps[0, 0], load_image(str(tmp_path / name), shape=(10, 12, 10), **how), rtol=1e-6)
    np.testing.assert_allclose(np.sort(scene.fov), np.sort([1e-3 * size * n for n in BLOB.shape]), rtol=1e-6)
    assert f"{tmp_path / name}: " in capsys.readouterr().out


def test_a_field_of_view_that_a_file_says_is_not_said_again_differently(tmp_path, monkeypatch, capsys):
    """64 lines of one matrix are other places in another: refused, where once they were taken."""
    pulseq()(tmp_path / "a.seq")
    for flags in (["--shape", 8, 8, 8], ["--fov-mm", 160, 160, 160], ["--samples", 16]):
        assert main("learn_traj", "--init", tmp_path / "a.seq", *flags) == 2
        assert f"{flags[0]}: got" in capsys.readouterr().err
    assert len(CELLS) == 24
    asked(monkeypatch, "learn_traj", "--init", tmp_path / "a.seq", *MATRIX, "--fov-mm", *(1e3 * FOV), "--samples", 8)
