"""Training from files and from arrays: the same bits, callbacks, Ctrl-C, going on, refusals."""

import csv
import os
import signal
import threading

import numpy as np
import pytest

from rails_wgpu import DeviceError, History, Searcher, devices, train

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
ORACLE = os.path.join(ROOT, "tests", "oracle")
CSV, GIN = os.path.join(ORACLE, "tiny.csv"), os.path.join(ORACLE, "tiny_hstu_mol", "config.gin")
ITEMS = os.path.join(ROOT, "assets", "demo.items.txt")


def histories():
    def numbers(text):
        return np.array(text.split(","), dtype=np.int64)

    with open(CSV, newline="") as file:
        return [
            History(numbers(row["sequence_item_ids"]), numbers(row["sequence_timestamps"]), user_id=int(row["user_id"]))
            for row in csv.DictReader(file)
        ]


def items():
    with open(ITEMS) as file:
        return [int(line.split()[0]) for line in file if line.strip()]


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three epochs without a break."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(CSV, folder, config=GIN, item_ids=ITEMS, epochs=3)


def test_arrays_and_files_train_the_same_model_in_any_number_of_threads(whole, tmp_path):
    folder, result = whole
    assert result.ending == "all epochs done" and len(result.epochs) == 3 and result.test is None
    assert result.epochs[2]["loss"] < result.epochs[0]["loss"]
    assert result.best["split"] == "test" and result.best["users"] == 96 and result.best["all_users"]
    assert result.best["hr@10"] == max(epoch["hr@10"] for epoch in result.epochs)
    again = train(histories(), tmp_path / "run", config=GIN, item_ids=items(), epochs=3, threads=1)
    assert content(tmp_path / "run" / "last.safetensors") == content(folder / "last.safetensors")
    assert content(again.model) == content(result.model)
    searcher = Searcher.from_checkpoint(result.model, device="cpu")
    assert searcher.encode(histories()[:2]).shape == (2, searcher.dim)
    # A CSV whose values are those of the dictionaries.
    with open(folder / "metrics.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    for line, epoch in zip(lines, result.epochs):
        assert float(line["loss"]) == epoch["loss"] and float(line["ndcg@10"]) == epoch["ndcg@10"]


def test_a_device_trains_by_name(whole, tmp_path):
    folder, result = whole
    named = train(CSV, tmp_path / "run", config=GIN, item_ids=ITEMS, epochs=3, device="cpu")
    assert content(named.model) == content(result.model)
    with pytest.raises(DeviceError, match="abacus"):
        train(CSV, tmp_path / "other", config=GIN, epochs=1, device="abacus")
    if any(device.backend == "vulkan" for device in devices()):
        on_gpu = train(CSV, tmp_path / "gpu", config=GIN, item_ids=ITEMS, max_steps=2, device="vulkan")
        on_cpu = train(CSV, tmp_path / "cpu", config=GIN, item_ids=ITEMS, max_steps=2, device="cpu")
        assert content(on_gpu.model) != content(on_cpu.model)
        np.testing.assert_allclose(on_gpu.epochs[0]["loss"], on_cpu.epochs[0]["loss"], rtol=1e-5)


def test_a_callback_sees_each_epoch_and_may_stop(whole, tmp_path):
    folder, result = whole
    seen = []

    def stop_after_the_first(metrics):
        seen.append((metrics["epoch"], metrics["is_best"], threading.current_thread() is threading.main_thread()))
        return False

    run = tmp_path / "run"
    stopped = train(CSV, run, config=GIN, item_ids=ITEMS, epochs=3, callback=stop_after_the_first)
    assert seen == [(1.0, True, True)] and stopped.ending == "stopped"

    def fail(metrics):
        raise KeyError(metrics["step"])

    with pytest.raises(KeyError):
        train(None, run, resume=True, callback=fail)
    went_on = train(None, run, resume=True, callback=lambda metrics: seen.append(metrics["epoch"]))
    assert seen[1:] == [3.0] and went_on.ending == "all epochs done"
    assert content(run / "last.safetensors") == content(folder / "last.safetensors")
    assert [epoch["loss"] for epoch in went_on.epochs] == [epoch["loss"] for epoch in result.epochs]
    with pytest.raises(ValueError, match="`train.seed`: expected 42, with which the run began"):
        train(None, run, resume=True, seed=5)
    with pytest.raises(ValueError, match="resume: expected neither preset"):
        train(CSV, run, resume=True, validation=True)


@pytest.mark.skipif(os.name != "posix", reason="there are no such signals here")
def test_ctrl_c_saves_and_raises(tmp_path):
    run, done = tmp_path / "run", []

    def press_soon(metrics):
        done.append(metrics["step"])
        if len(done) == 1:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        train(CSV, run, config=GIN, item_ids=ITEMS, epochs=1000, callback=press_soon)
    went_on = train(None, run, resume=True, max_steps=done[-1] + 100)
    assert went_on.ending == "the largest number of steps reached"
    assert [epoch["step"] for epoch in went_on.epochs[: len(done)]] == done


def test_the_validation_split_chooses(tmp_path):
    result = train(histories(), tmp_path / "run", config=GIN, epochs=2, validation=True, metric="mrr", dropout={"uid": 0.0})
    assert result.best["split"] == "validation" and result.test["split"] == "test"
    assert result.best["mrr"] == max(epoch["mrr"] for epoch in result.epochs)


def test_what_cannot_be_trained_is_refused(tmp_path):
    run = tmp_path / "run"
    users = histories()
    for words, call in [
        ("a preset or a config, found neither", lambda: train(CSV, run)),
        ("preset: expected", lambda: train(CSV, run, preset="ml-1m/sasrek")),
        ("unknown field `batchsize`, expected", lambda: train(CSV, run, config=GIN, batchsize=3)),
        ("hyper-parameters: .*invalid type", lambda: train(CSV, run, config=GIN, epochs="three")),
        ("unknown field `dims`", lambda: train(CSV, run, config=GIN, model={"dims": 3})),
        ("metric: expected hr@N, ndcg@N, mrr", lambda: train(CSV, run, config=GIN, metric="auc")),
        ("user_id: expected another one for each history", lambda: train([users[0], users[0]], run, config=GIN)),
        ("users with at least 3 events", lambda: train([users[0]._replace(item_ids=[1, 2], timestamps=[1, 2])], run, config=GIN)),
        ("expected 2 timestamps, found 1", lambda: train([users[0]._replace(item_ids=[1, 2], timestamps=[1])], run, config=GIN)),
        ("item_ids of histories: expected 1 to", lambda: train([users[0]._replace(item_ids=[0, 2])], run, config=GIN)),
        ("the folder of a training run", lambda: train(None, run, resume=True)),
        ("is not finite; lower the learning rate", lambda: train(CSV, tmp_path / "wild", config=GIN, epochs=9, learning_rate=1e20)),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    assert not run.exists()
    with pytest.raises(FileNotFoundError):
        train("nowhere.csv", run, config=GIN)
    with pytest.raises(TypeError, match="item_ids: expected a path"):
        train(CSV, run, config=GIN, item_ids=[1, 2])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="run folder: expected a new folder or an empty one"):
        train(CSV, tmp_path / "mine", config=GIN)
