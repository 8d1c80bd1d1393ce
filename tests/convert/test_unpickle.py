"""Hostile and broken files, read in a process of their own under an audit hook."""

import pickle
import random
from collections import OrderedDict

import numpy as np
import pytest
import torch

from styleforge.convert import pickle_files
from styleforge.convert.unpickle import Record

from . import hostile
from .official_files import as_module, dump, official_pickle, tf_network


def test_calls_are_refused_and_nothing_is_executed(read):
    for name, outcome in read(hostile.calls()).items():
        assert outcome.startswith("refused") and "got" in outcome and "expected" in outcome, (name, outcome)


def test_bombs_are_refused_in_time_and_memory(read):
    for name, outcome in read(hostile.bombs()).items():
        assert outcome.startswith("refused"), (name, outcome)


def test_values_without_end_inside_networks_are_never_looked_into(read, tmp_path, golden):
    tower: list = [1, 1]
    for _ in range(60):
        tower = [tower, tower]  # 2^60 numbers for whoever does not see that they are the same
    file, other = golden("stylegan2_orig_orig_16"), golden("tf_stylegan2_skip_resnet_32")
    state = {name: torch.tensor(array) for name, array in golden("rosinality_32").state("G").items()}
    corpus = {}

    def save(name, value):
        torch.save(value, tmp_path / "x")
        corpus[name] = (tmp_path / "x").read_bytes()

    save("mean of w", {"g_ema": state, "latent_avg": tower})
    save("tensor", {"g_ema": state | {"to_rgb1.bias": tower}})
    save("plain tensor", state | {"to_rgb1.bias": tower})
    save("arguments", {"G_ema": file.state("G"), "init_kwargs": {"G_ema": {"conv_clamp": tower}}})
    for key, attributes in (
        ("G", {"synthesis.b4.conv1": {"conv_clamp": tower}}),
        ("G", {"mapping.fc0": {"bias_gain": tower}}),
        ("G", {"synthesis.b4.conv1": {"activation": tower}}),
        ("G", {"": {"_init_kwargs": {"mapping_kwargs": {"lr_multiplier": tower}}}}),
        ("G", {"": {"_non_persistent_buffers_set": tower}}),
        ("D", {"": {"_init_kwargs": {"epilogue_kwargs": {"mbstd_group_size": tower}}}}),
    ):
        module = as_module(file.state(key), "Network", attributes)
        corpus[f"{key} {attributes.keys()}{len(corpus)}"] = official_pickle(tmp_path / "x", {key: module}).read_bytes()
    meta = other.meta
    for version, kwargs in ((tower, {}), (4, {"conv_clamp": tower}), (4, {"mapping_lrmul": tower}),
                            (4, {"resample_kernel": tower}), (4, {"nonlinearity": tower})):  # fmt: skip
        network = tf_network(other.state("G"), meta["G_order"], "Gs", "G_main", kwargs, version)
        corpus[f"tensorflow {len(corpus)}"] = dump(network, tmp_path / "x").read_bytes()
    network = tf_network(other.state("G"), meta["G_order"], "Gs", "G_main", {}, 4)
    network.variables[0] = ("lod", tower)
    corpus["lod"] = dump(network, tmp_path / "x").read_bytes()
    outcomes = read(corpus)
    assert sum(outcome == "read" for outcome in outcomes.values()) <= 1, outcomes  # an unused set of names


def test_source_code_inside_networks_stays_text(read, good):
    assert read({"official": good["official"].read_bytes()}) == {"official": "read"}


def test_some_cut_off_files_are_refused(read, good):
    for path in good.values():
        data = path.read_bytes()
        corpus = hostile.truncations(data, len(data) // 60)
        break
    assert all(outcome.startswith("refused") for outcome in read(corpus).values())


def test_some_mutated_files_are_read_or_refused(read, good):
    rng = random.Random(0)
    corpus = {}
    for kind, path in good.items():
        found = hostile.mutations(path.read_bytes(), 100, rng.randrange)
        corpus |= {f"{kind} {name}": data for name, data in found.items()}
    outcomes = read(corpus)
    assert any(outcome.startswith("refused") for outcome in outcomes.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["official", "rosinality"])
def test_files_cut_off_at_every_hundredth_byte_are_refused(kind, read, good):
    corpus = hostile.truncations(good[kind].read_bytes(), 100)
    assert all(outcome.startswith("refused") for outcome in read(corpus).values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["official", "rosinality"])
def test_two_thousand_mutated_files_are_read_or_refused(kind, read, good):
    read(hostile.mutations(good[kind].read_bytes(), 2000, random.Random(1).randrange))


VALUES = {
    "tensors": OrderedDict(a=torch.arange(6).reshape(2, 3).t(), b=torch.zeros(0), c=torch.tensor(2.5).half()),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "numbers": [1, -(2**40), 2.5, True, None, "text", b"bytes", bytearray(b"more")],
    "containers": ({"a", "b"}, frozenset(["c"]), (1, (2, [3])), {1: {b"k": 2}}),
    "arrays": [np.arange(6).reshape(2, 3), np.float32(2.5), np.asfortranarray(np.ones((2, 3)))],
}


def same(a, b):
    if isinstance(a, torch.Tensor | np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("name", VALUES)
def test_tensors_arrays_and_containers_come_back(name, tmp_path):
    path, value = tmp_path / "x", VALUES[name]
    for protocol in range(2, 6):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        assert same(value, pickle_files.read(path)), protocol
    for new in (True, False):
        torch.save(value, path, _use_new_zipfile_serialization=new)
        assert same(value, pickle_files.read(path))


def test_arrays_with_the_highest_byte_first_keep_their_values(tmp_path):
    (tmp_path / "x").write_bytes(pickle.dumps(np.arange(5, dtype=">f4")))
    assert pickle_files.read(tmp_path / "x").tolist() == [0, 1, 2, 3, 4]


def test_objects_become_records(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)), tmp_path / "x")
    record = pickle_files.read(tmp_path / "x")
    assert isinstance(record, Record) and record.cls == "torch.nn.modules.container.Sequential"
    assert record.state["_modules"]["0"].state["_parameters"]["weight"].shape == (3, 2)
