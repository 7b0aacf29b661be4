"""What watches a fit: snapshots, checkpoints that continue to the bit, signals, clocks, and changes between steps."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acqdesign.optim import (
    Between,
    Callback,
    Checkpoints,
    NonFiniteError,
    Progress,
    Settled,
    Snapshots,
    StopOnSignal,
    TimeLimit,
    lbfgs,
    load_checkpoint,
)

from ._fits import bowl, run, start

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def root(params, key):
    """Not finite below zero."""
    return jnp.sum(jnp.sqrt(params["x"])), {}


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


class Notes(Callback):
    """Writes down what it is called for."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def begin(self, fit):
        self.notes.append((self.name, "begin", fit.done))

    def after(self, fit):
        self.notes.append((self.name, "after", fit.done))

    def end(self, fit):
        self.notes.append((self.name, "end", fit.done))

    def failed(self, fit):
        self.notes.append((self.name, "failed", fit.done))

    def close(self):
        self.notes.append((self.name, "close", None))


# What is called, and when


def test_callbacks_are_called_in_the_order_given_at_every_turn():
    notes = []
    run(steps=2, callbacks=[Notes("a", notes), Notes("b", notes)])
    turns = [("begin", 0), ("after", 1), ("after", 2), ("end", 2), ("close", None)]
    assert notes == [(name, *turn) for turn in turns for name in "ab"]


def test_a_callback_that_stops_the_fit_still_lets_the_others_see_the_step():
    class Enough(Callback):
        def after(self, fit):
            fit.stop = "enough" if fit.done == 3 else ""

    notes = []
    result = run(callbacks=[Enough(), Notes("b", notes)])
    assert (result.stopped, result.steps) == ("enough", 3)
    assert [note[1:] for note in notes][-3:] == [("after", 3), ("end", 3), ("close", None)]


def test_a_fit_that_breaks_calls_failed_and_close_and_never_end():
    notes = []
    with pytest.raises(NonFiniteError):
        run(root, {"x": -jnp.ones(2)}, callbacks=[Notes("a", notes), Notes("b", notes)])
    turns = [("begin", 0), ("failed", 0), ("close", None)]
    assert notes == [(name, *turn) for turn in turns for name in "ab"]


def test_a_callback_that_raises_closes_all_of_them():
    class Wrong(Callback):
        def after(self, fit):
            raise RuntimeError("mine")

    notes = []
    with pytest.raises(RuntimeError, match="mine"):
        run(callbacks=[Wrong(), Notes("b", notes)])
    assert [note[1] for note in notes] == ["begin", "close"]


def test_a_callback_may_exchange_the_state():
    """What `after` puts into `fit.state` is what the next step starts from."""

    class Back(Callback):
        def after(self, fit):
            if fit.done == 5:
                fit.state = fit.state._replace(params=jax.tree.map(jnp.zeros_like, fit.state.params))

    shots = Snapshots(5)
    run(steps=6, optimizer=optax.sgd(0.0), callbacks=[Back(), shots])
    assert [params["x"].tolist() for params in shots.of(None)] == [5 * [1.0], 5 * [0.0], 5 * [0.0]]


# Progress


def test_progress_is_on_standard_error_and_says_the_loss(capsys):
    run(steps=3)
    assert capsys.readouterr() == ("", "")
    result = run(steps=3, callbacks=[Progress()])
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert f"loss={result.history['loss'][2]:.4g}" in err


# Snapshots


def test_snapshots_hold_the_first_every_so_many_and_the_last():
    shots = Snapshots(4)
    result = run(steps=10, callbacks=[shots])
    np.testing.assert_array_equal(shots.steps(), [0, 4, 8, 10])
    held = shots.of(None)
    np.testing.assert_array_equal(held[0]["x"], start()["x"])
    np.testing.assert_array_equal(held[-1]["x"], result.params["x"])
    np.testing.assert_array_equal(held[1]["x"], run(steps=4).params["x"])


# Checkpoints


@pytest.mark.parametrize(
    ("starts", "stopped", "saved_last"), [(None, 10, True), (2, 11, True), (None, 11, False), (2, 10, False)]
)
def test_resuming_continues_to_the_bit(tmp_path, starts, stopped, saved_last):
    """Wherever it stopped, and in whichever order snapshots and checkpoints were given."""
    params = {"x": jnp.linspace(0, 1, 10).reshape(2, 5)[slice(None) if starts else 0]}

    def go(directory, steps, **more):
        shots, saved = Snapshots(4), Checkpoints(directory, every=5, **more)
        both = [shots, saved] if saved_last else [saved, shots]
        return run(params=params, steps=steps, starts=starts, log_every=3, callbacks=both), shots

    whole, whole_shots = go(tmp_path / "whole", 20)
    go(tmp_path / "parts", stopped)
    resumed, resumed_shots = go(tmp_path / "parts", 20, resume=True)
    np.testing.assert_array_equal(resumed.params["x"], whole.params["x"])
    for column in whole.history:
        np.testing.assert_array_equal(resumed.history[column], whole.history[column])
    # The stop was a snapshot of neither run's plan, nor a row of either's log.
    np.testing.assert_array_equal(resumed_shots.steps(), whole_shots.steps())
    for one, other in zip(resumed_shots.of(None), whole_shots.of(None), strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    kept = sorted({5, stopped, 10, 15, 20})[-3:]
    assert names == sorted(f"step-{n:08d}.{end}" for n in kept for end in ("json", "npz"))


def test_resuming_with_another_seed_optimizer_or_shape_is_refused(tmp_path):
    run(callbacks=[Checkpoints(tmp_path)])
    again = [Checkpoints(tmp_path, resume=True)]
    with pytest.raises(ValueError, match=r"key: got .*expected that of the run to resume"):
        run(callbacks=again, key=jax.random.key(8))
    with pytest.raises(ValueError, match="checkpoint entry state"):
        run(callbacks=again, optimizer=optax.sgd(0.1, momentum=0.9))
    with pytest.raises(ValueError, match=r"checkpoint entry state\.params\.x"):
        run(params=start(shape=(6,)), callbacks=again)


@pytest.mark.parametrize(("every", "minutes", "saved"), [(1000, 1e-9, (1, 2, 3, 4)), (3, None, (3, 4))])
def test_minutes_between_checkpoints_count_beside_steps_and_the_end(every, minutes, saved, tmp_path):
    run(callbacks=[Checkpoints(tmp_path, every=every, minutes=minutes, keep=100)], steps=4)
    assert [path.stem for path in sorted(tmp_path.glob("*.json"))] == [f"step-{n:08d}" for n in saved]


def test_checkpoints_hold_what_they_were_told_of_the_run(tmp_path):
    run(callbacks=[Checkpoints(tmp_path, config={"why": "to see", "n": 3})], steps=2)
    assert load_checkpoint(tmp_path).meta["config"] == {"why": "to see", "n": 3}


def test_a_callback_s_own_arrays_are_saved_and_given_back(tmp_path):
    class Counts(Callback):
        def __init__(self):
            self.count = 0

        def after(self, fit):
            self.count += 1

        def arrays(self):
            return {"counts": np.array(self.count)}

        def restore(self, fit, arrays):
            self.count = int(arrays["counts"])

    first, second = Counts(), Counts()
    run(callbacks=[first, Checkpoints(tmp_path)], steps=4)
    run(callbacks=[second, Checkpoints(tmp_path, resume=True)], steps=10)
    assert (first.count, second.count) == (4, 10)


def test_resuming_before_the_first_checkpoint_starts_anew_saying_so(tmp_path):
    """A run killed early has a folder and no checkpoint: `resume` once refused it."""
    (tmp_path / ".step-00000005.npz.x.tmp").write_bytes(b"half")
    (tmp_path / "step-00000005.npz").write_bytes(b"its JSON was yet to come")
    with pytest.warns(UserWarning, match="no checkpoint yet, starting anew"):
        resumed = run(callbacks=[Checkpoints(tmp_path, resume=True)])
    np.testing.assert_array_equal(resumed.params["x"], run().params["x"])


def test_a_folder_that_cannot_be_written_to_costs_no_computing(tmp_path):
    (tmp_path / "file").write_text("")
    traced = []

    def loss(params, key):
        traced.append(True)
        return bowl(params, key)

    with pytest.raises(OSError, match="file"):
        run(loss, callbacks=[Checkpoints(tmp_path / "file" / "checkpoint")])
    assert not traced


# Signals


def test_signal_handlers_are_taken_over_for_the_fit_only_when_asked(tmp_path):
    before, seen = handlers(), []

    class Look(Callback):
        def after(self, fit):
            seen.append(handlers())

    run(steps=2, callbacks=[Progress(), Snapshots(1), Checkpoints(tmp_path), TimeLimit(9.0), Look()])
    assert seen == [before, before]
    run(steps=1, callbacks=[StopOnSignal(), Look()])
    assert not set(seen[2]) & set(before)
    assert handlers() == before


@pytest.mark.parametrize("where", ["begin", "after", "loss"])
def test_handlers_are_given_back_after_an_exception(where):
    class Wrong(Callback):
        def begin(self, fit):
            if where == "begin":
                raise RuntimeError("mine")

        def after(self, fit):
            if where == "after":
                raise RuntimeError("mine")

    before = handlers()
    params = {"x": -jnp.ones(2)} if where == "loss" else start()
    with pytest.raises(NonFiniteError if where == "loss" else RuntimeError):
        run(root, params, callbacks=[StopOnSignal(), Wrong()])
    assert handlers() == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_finishes_the_step_saves_and_says_so(tmp_path, number, capfd):
    def interrupt(step, params, optimizer):
        if step == 7:
            os.kill(os.getpid(), number)
        return params, optimizer

    before = signal.getsignal(number)
    result = run(callbacks=[Between(interrupt, 1), StopOnSignal(), Checkpoints(tmp_path)])
    assert result.stopped == number.name
    assert result.steps in (7, 8)
    assert (tmp_path / f"step-{result.steps:08d}.json").exists()
    assert signal.getsignal(number) is before
    assert number.name in capfd.readouterr().err
    assert run(callbacks=[Checkpoints(tmp_path, resume=True)]).steps == 30


def test_a_second_signal_acts_as_it_would_have_without_us():
    def twice(step, params, optimizer):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return params, optimizer

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    before = handlers()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(callbacks=[StopOnSignal(), Between(twice, 1)])
        assert handlers() == before
    finally:
        signal.signal(signal.SIGINT, usual)


# Clocks and changes


def test_a_run_ends_after_its_minutes():
    result = run(steps=10_000_000, callbacks=[TimeLimit(0.005)])
    assert result.stopped == "time"
    assert 0 < result.steps < 10_000_000


def test_what_is_settled_takes_no_more_steps(tmp_path):
    """Within 0.1 % of the loss of all steps; going on from its checkpoint takes one more at most."""
    above = lambda params, key: (1 + jnp.sum((params["x"] - 3) ** 2), {})  # noqa: E731
    whole = run(above, steps=600)
    watch = lambda resume: [Checkpoints(tmp_path, 1000, resume=resume), Settled()]  # noqa: E731
    result = run(above, steps=600, callbacks=watch(False))
    assert (result.stopped, whole.stopped) == ("settled", "finished")
    assert result.steps < 300
    assert result.final_loss <= 1.001 * whole.final_loss
    again = run(above, steps=600, callbacks=watch(True))
    assert again.stopped == "settled"
    assert again.steps <= result.steps + 1


def test_a_loss_that_varies_by_chance_is_not_taken_for_settled():
    """Falling by 2 % of itself over the run, under noise of 5 %."""
    rough = lambda params, key: (1 + 1e-3 * params["x"][0] + 0.05 * jax.random.normal(key), {})  # noqa: E731
    for seed in range(5):
        result = run(rough, steps=400, key=jax.random.key(seed), callbacks=[Settled()])
        assert result.steps > 380


def test_a_line_search_that_gains_nothing_ends_a_run():
    """Three losses equal to the bit."""
    result = run(lambda params, key: (jnp.sum(params["x"] ** 2), {}), optimizer=lbfgs(), callbacks=[Settled()])
    assert result.stopped == "settled"
    assert result.steps <= 6
    assert result.final_loss == 0


def test_a_start_that_may_overtake_goes_on():
    """One rests at 1, the other falls from 3, fast enough to get there or not; one that broke does not count."""

    def each(params, key):
        x = params["x"][0]
        return 1 + 2 * jnp.where(x > 0, x, x - x), {}

    def steps(other, rate):
        params = {"x": jnp.array([[0.0], [other]])}
        return run(each, params, starts=2, steps=100, optimizer=optax.sgd(rate), callbacks=[Settled()]).steps

    assert steps(1.0, 0.008) > 60
    assert steps(1.0, 0.002) == steps(jnp.nan, 0.008) == 20


def test_between_steps_the_host_may_exchange_parameters_and_moments():
    """Exchanging two entries with their moments, twice, is not exchanging them."""

    def swap(step, params, optimizer):
        return jax.tree.map(lambda leaf: leaf[::-1] if leaf.ndim else leaf, (params, optimizer))

    def even(params, key):
        return jnp.sum((params["x"] - 3) ** 2), {}

    params = {"x": jnp.linspace(-1, 1, 5)}
    swapped = run(even, params, steps=12, callbacks=[Between(swap, 6)])
    plain = run(even, params, steps=12)
    np.testing.assert_allclose(swapped.params["x"], plain.params["x"][::-1], rtol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: Snapshots(0), "every: got 0"),
        (lambda folder: Checkpoints(folder, every=0), "every: got 0"),
        (lambda folder: Checkpoints(folder, minutes=0.0), "minutes: got 0.0"),
        (lambda folder: Checkpoints(folder, keep=0), "keep: got 0"),
        (lambda folder: TimeLimit(0.0), "minutes: got 0.0"),
        (lambda folder: Between(lambda *a: a[1:], 0), "every: got 0"),
    ],
)
def test_impossible_callbacks_are_refused_when_made(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path)
