"""Programs kept between runs: where, how many, and what becomes of a folder or an entry that cannot be used."""

import os

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from acqdesign.commands import cache
from acqdesign.commands.devices import DeviceOptions
from acqdesign.commands.run import run_command


@pytest.fixture
def seen(monkeypatch):
    """What is set of JAX, in place of setting it."""
    found = {}
    monkeypatch.setattr(jax.config, "update", found.__setitem__)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    return found


@pytest.fixture
def none_known():
    """As for users without JAX's own variable."""
    update, before = jax.config.update, jax.config.values["jax_compilation_cache_dir"]
    update("jax_compilation_cache_dir", None)
    yield
    update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_users_cache_folder(tmp_path, monkeypatch, none_known, seen):
    """By version of JAX and kind of processor, and read by nobody else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DeviceOptions().start() is None
    (folder,) = (tmp_path / "acqdesign").iterdir()
    assert folder.name.startswith(f"jax-{jax.__version__}-")
    assert folder.stat().st_mode & 0o077 == 0
    assert seen["jax_compilation_cache_dir"] == str(folder) == str(cache.usual_folder())


def test_programs_are_kept_where_asked_or_where_jax_was_told(tmp_path, seen):
    DeviceOptions(cache_dir=tmp_path).start()
    assert seen.pop("jax_compilation_cache_dir") == str(tmp_path)
    seen.clear()
    DeviceOptions().start()
    assert seen == {}
    DeviceOptions(no_cache=True).start()
    assert seen == {"jax_enable_compilation_cache": False}


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, none_known, seen):
    """Nothing is set then: one that is a file, and one of another user."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = [DeviceOptions().start(), DeviceOptions(cache_dir=tmp_path / "file").start()]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: -1, raising=False)
    said.append(DeviceOptions().start())
    assert seen == {}
    assert all(line.startswith("compiled programs are not kept, in ") and "\n" not in line for line in said)
    assert "another user" in said[-1]


def test_the_oldest_programs_go_beyond_the_most_that_is_kept(tmp_path, monkeypatch, none_known, seen):
    """Those of other versions too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "MOST_BYTES", 250)
    for age, name in enumerate(("jax-0.1-a/new", "jax-0.2-b/middle", "jax-0.1-a/old")):
        path = tmp_path / "acqdesign" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (10**9 - age, 10**9 - age))
    DeviceOptions().start()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["middle", "new"]


@pytest.mark.filterwarnings("default:Error reading")
def test_a_corrupt_entry_is_one_line_and_made_anew(tmp_path, capsys):
    """However many; the next run reads them."""
    before = jax.config.values["jax_compilation_cache_dir"]

    def compute(_):
        for n in (2, 3):
            # A new function each time: nothing is kept in memory.
            assert float(jax.jit(lambda x, n=n: jnp.sin(n * x).sum())(jnp.arange(4.0))) != 0
        return 0

    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    try:
        assert run_command(compute, [], prog="learn") == 0
        entries = list(tmp_path.glob("jit__lambda-*-cache"))
        assert len(entries) == 2
        for entry in entries:
            entry.write_bytes(b"junk")
        said = [capsys.readouterr().err for _ in range(2) if run_command(compute, [], prog="learn") == 0]
        assert said[0].count("\n") == 1
        assert "cannot be read" in said[0]
        assert said[1] == ""
        assert all(entry.stat().st_size > 100 for entry in entries)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()


def test_other_warnings_are_shown_as_they_are():
    assert cache.of_cache("something else") is None
