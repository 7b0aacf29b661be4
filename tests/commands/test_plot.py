"""`python -m acqdesign.plot` draws runs again, and beside each other."""

import importlib

import pytest

from acqdesign.commands.plot import main

from ..plot._folders import arrays, folder


def drawn(capsys, *words):
    code = main([str(word) for word in words])
    return code, "".join(capsys.readouterr())


def test_a_run_is_drawn_into_its_folder_or_another(tmp_path, capsys):
    run = folder(tmp_path / "run", arrays())
    code, said = drawn(capsys, run, "--format", "pdf")
    assert code == 0
    assert "loss.pdf" in said
    assert (run / "report.html").exists()
    assert (run / "loss.pdf").read_bytes().startswith(b"%PDF")
    code, said = drawn(capsys, folder(tmp_path / "old"), "--out", tmp_path / "elsewhere", "--style", "paper")
    assert code == 0
    assert "kept no figures.npz" in said
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} >= {"loss.png", "loss.pdf", "report.html"}
    assert not (tmp_path / "old" / "loss.png").exists()


def test_runs_are_compared_in_the_terminal_and_in_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two")):
        folder(tmp_path / name, arrays(seed))
    code, said = drawn(capsys, "one", "two")
    assert code == 0
    assert "error (NRMSE), held out" in said
    table = (tmp_path / "comparison" / "comparison.csv").read_text().splitlines()
    assert table[0] == ",one,two"
    assert (tmp_path / "comparison" / "comparison.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RUNS: got nothing"),
        (["run"], "run: got run without config.json"),
        (["run", "--format", "gif"], "--format"),
        (["run", "--out", "file"], "--out: got file, which is a file"),
        (["run", "--dpi", "1"], "--dpi: got 1.0, expected 20 to 2400"),
    ],
)
def test_wrong_use_is_one_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    code, said = drawn(capsys, *words)
    assert code == 2
    assert message in said
    assert said.count("\n") == 1


def test_the_command_is_that_of_the_room():
    assert importlib.import_module("acqdesign.plot.__main__").main is main
