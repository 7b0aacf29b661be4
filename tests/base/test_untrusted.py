"""Files that lie: each is refused by name, before memory is taken; each test is named after what once went wrong."""

import gzip
import io
import json
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io

from acqdesign.base.untrusted import check_memory
from acqdesign.commands.config import read_config
from acqdesign.export import read_design, write_design
from acqdesign.export.pns import read_hardware
from acqdesign.learn_traj import TrajOptions
from acqdesign.optim import load_checkpoint, save_checkpoint
from acqdesign.scene import load_image

DESIGN = {
    "points": np.linspace(-0.4, 0.4, 12).reshape(6, 2).astype(np.float32),
    "shape": np.array([8, 10, 7]),
    "fov_m": np.array([0.1, 0.1, 0.1]),
    "samples_per_line": np.array(8),
}


def refused(read, path, reason="expected"):
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=reason) as caught:
        read(path)
    assert path.name in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600 + len(str(path))
    assert time.perf_counter() - begun < 5


def test_an_archive_s_member_that_is_no_array(tmp_path):
    """NumPy returns its bytes as they are: an AttributeError once followed."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("points", b"text")
    refused(read_design, tmp_path / "a.npz", "sound .npy header")


def test_an_archive_with_two_members_of_one_name(tmp_path):
    content = io.BytesIO()
    np.save(content, DESIGN["points"])
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("points.npy", content.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("points.npy", content.getvalue())
    refused(read_design, tmp_path / "a.npz", "two arrays named 'points'")


def test_an_archive_whose_directory_points_before_its_start(tmp_path):
    """`OSError: [Errno 22]` without a name, and messages that quoted the whole file."""
    np.savez(tmp_path / "a.npz", image=np.ones((3, 3, 3)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, end + 16, 2**31 - 1)
    (tmp_path / "a.npz").write_bytes(content)
    refused(lambda path: load_image(str(path)), tmp_path / "a.npz")
    refused(read_design, tmp_path / "a.npz")


def test_a_compressed_volume_that_unpacks_to_gigabytes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((512, 512, 500))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        file.write(header.binaryblock + bytes(10**6))
    refused(lambda path: load_image(str(path)), tmp_path / "a.nii.gz", "takes 1.05e.09 bytes of memory")


def test_memory_is_four_times_the_file_and_192_mib(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1000))
    check_memory("a", tmp_path / "a", 4000 + 192 * 2**20)
    with pytest.raises(ValueError, match="4 times the file and 192 MiB"):
        check_memory("a", tmp_path / "a", 4001 + 192 * 2**20)


def test_a_checkpoint_whose_checksums_were_forged(tmp_path):
    """Damage behind sound checksums once raised TokenError and zlib.error."""
    record = save_checkpoint(tmp_path, 1, {"state.x": np.ones(3)}, meta={})
    import hashlib

    for damage in (b"\x93NUMPY\x01\x00\x06\x00{'a': ", b"PK", bytes(40)):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("state.x.npy", damage)
        record.with_suffix(".npz").write_bytes(out.getvalue())
        body = {"step": 1, "sha256": hashlib.sha256(out.getvalue()).hexdigest(), "meta": {}}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        record.write_text(json.dumps({"format": "acqdesign-checkpoint", "version": 2, "body_sha256": digest, **body}))
        with pytest.raises(ValueError, match="only damaged checkpoints"):
            load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"[" * 10**5, b'{"a":' * 10**5, b'{"steps": ' + b"1" * 5000 + b"}"])
def test_json_without_end_or_measure(content, tmp_path):
    """A RecursionError, once."""
    (tmp_path / "a.json").write_bytes(content)
    refused(lambda path: read_config(TrajOptions, path), tmp_path / "a.json")
    (tmp_path / "step-00000001.json").write_bytes(content)
    with pytest.raises(ValueError, match="only damaged checkpoints"):
        load_checkpoint(tmp_path)


def test_a_configuration_s_escape_sequences_stay_off_the_terminal(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"st\x1b[31meps\x07": 3}))
    refused(lambda path: read_config(TrajOptions, path), tmp_path / "a.json", "unknown key")


@pytest.mark.parametrize("fov", ["nan 1 1", "-1 1 1", "1 1", "1 inf 1"])
def test_a_bart_header_with_a_field_of_view_that_is_none(fov, tmp_path):
    """It was believed."""
    write_design(tmp_path / "a.cfl", DESIGN)
    header = tmp_path / "a.hdr"
    header.write_text(header.read_text().split("fov_m")[0] + f"fov_m {fov}\n")
    refused(read_design, header, "fov_m")


def matlab(path, *parts, order="<"):
    """A level 5 file of one variable named points, from its real part's bytes or the sizes it claims."""
    body = b"".join(struct.pack(order + "II", kind, len(data)) + data + bytes(-len(data) % 8) for kind, data in parts)
    path.write_bytes(bytes(124) + struct.pack("<H", 0x100) + b"IM" + struct.pack("<II", 14, len(body)) + body)


FLAGS, NAME = (6, struct.pack("<II", 6, 0)), (1, b"points")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([FLAGS, (5, struct.pack("<ii", 2**30, 2**30)), NAME, (9, bytes(48))], "sizes"),
        ([FLAGS, (5, struct.pack("<ii", -3, -2)), NAME, (9, bytes(48))], "sizes"),
        ([FLAGS, (5, b""), NAME, (9, bytes(48))], "sizes"),
        ([FLAGS, (5, struct.pack("<ii", 3, 2)), NAME, (77, bytes(48))], "KeyError"),
        ([FLAGS, (5, struct.pack("<ii", 3, 2)), NAME, (9, bytes(41))], "buffer size"),
        ([FLAGS], "1 parts"),
        ([(6, b""), (5, struct.pack("<ii", 3, 2)), NAME, (9, bytes(48))], "IndexError"),
    ],
)
def test_a_matlab_file_that_crashed_scipy(parts, reason, tmp_path):
    """SciPy's reader ended the process with a segmentation fault on a damaged variable."""
    matlab(tmp_path / "a.mat", *parts)
    refused(read_design, tmp_path / "a.mat", reason)


def test_a_matlab_file_that_unpacks_to_gigabytes(tmp_path):
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    (tmp_path / "a.mat").write_bytes(
        bytes(124) + struct.pack("<H", 0x100) + b"IM" + struct.pack("<II", 15, len(packed)) + packed
    )
    refused(read_design, tmp_path / "a.mat", "unpacks to over")


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_files_of_other_writers_are_read(compressed, tmp_path):
    """SciPy's, with integers, text, structs and small elements among the arrays."""
    more = {"note": "text", "deep": {"x": np.eye(2)}, "echo": np.arange(6, dtype=np.uint8), "esp_s": 0.01}
    scipy.io.savemat(tmp_path / "a.mat", {**DESIGN, **more}, do_compression=compressed)
    found = read_design(tmp_path / "a.mat")
    np.testing.assert_array_equal(found["points"], DESIGN["points"])
    np.testing.assert_array_equal(found["echo"], np.arange(6))
    assert set(found) == {*DESIGN, "echo", "esp_s", "learned"}


class TestMRD:
    """Damage that made the HDF5 library loop for ever, take gigabytes, crash, or read other files."""

    @pytest.fixture
    def path(self, tmp_path):
        pytest.importorskip("ismrmrd")
        write_design(tmp_path / "a.mrd", DESIGN)
        return tmp_path / "a.mrd"

    def test_a_heap_that_never_ends(self, path):
        content = bytearray(path.read_bytes())
        at = content.index(b"GCOL") + 16
        content[at : at + 16] = bytes(16)
        path.write_bytes(content)
        refused(read_design, path, "an object of 0 bytes at byte")

    def test_a_text_of_gigabytes(self, path):
        import h5py

        with h5py.File(path) as file:
            at = file["dataset/xml"].id.get_offset()
        content = bytearray(path.read_bytes())
        struct.pack_into("<I", content, at, 2**31)
        path.write_bytes(content)
        refused(read_design, path, "2147483648 values")

    def test_a_trajectory_of_gigabytes(self, path):
        """With a head that claims 65535 samples of 65535 channels, for which ismrmrd takes 34 GB."""
        import h5py

        content = bytearray(path.read_bytes())
        with h5py.File(path) as file:
            data = file["dataset/data"].id
            for n in range(6):
                at = data.get_chunk_info(n).byte_offset
                struct.pack_into("<HHH", content, at + 34, 65535, 65535, 65535)
                struct.pack_into("<I", content, at + 340, 65535 * 3)
        path.write_bytes(content)
        refused(read_design, path, "393210 samples")

    @pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "external storage"])
    def test_data_that_lie_elsewhere(self, kind, path):
        import h5py

        with h5py.File(path, "r+") as file:
            del file["dataset/data"]
            if kind == "external link":
                file["dataset/data"] = h5py.ExternalLink("/etc/other.h5", "/data")
            elif kind == "soft link":
                file["dataset/data"] = h5py.SoftLink("/dataset/xml")
            elif kind == "virtual":
                layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
                layout[:] = h5py.VirtualSource("/etc/other.h5", "data", shape=(4,))
                file["dataset"].create_virtual_dataset("data", layout)
            else:
                file["dataset"].create_dataset("data", (4,), "u1", external=[("/etc/passwd", 0, 4)])
        refused(read_design, path, "in the file itself")

    def test_a_header_that_declares_entities(self, path):
        import h5py

        bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'
        with h5py.File(path, "r+") as file:
            file["dataset/xml"][0] = bomb
        refused(read_design, path, "declares entities")

    def test_a_matrix_of_words(self, path):
        import h5py

        with h5py.File(path, "r+") as file:
            text = file["dataset/xml"][0]
            file["dataset/xml"][0] = text.replace(b"<x>8</x>", b"<x>eight</x>")
        refused(read_design, path)


def test_a_scanner_s_model_with_numbers_that_are_none(tmp_path):
    """KeyError, RuntimeError and ValueError of pypulseq's parser once ended the export with a traceback."""
    pytest.importorskip("pypulseq")
    for text in ("flGSWDTauX[0] = 0.2", "a[b].c = 1", "a = = 1", "flGSWDTauX[0]"):
        (tmp_path / "a.asc").write_text(text)
        refused(read_hardware, tmp_path / "a.asc")


def test_a_pulseq_version_of_thousands_of_digits(tmp_path):
    pytest.importorskip("pypulseq")
    (tmp_path / "a.seq").write_text("[VERSION]\nmajor " + "1" * 5000 + "\nminor 4\n[SIGNATURE]\nHash 1\n")
    refused(read_design, tmp_path / "a.seq")


def test_a_device_is_no_configuration():
    with pytest.raises(ValueError, match="/dev/zero"):
        read_config(TrajOptions, "/dev/zero")


def test_what_the_package_writes_it_reads(tmp_path):
    write_design(tmp_path / "a.mat", DESIGN)
    np.testing.assert_array_equal(read_design(tmp_path / "a.mat")["points"], DESIGN["points"])
