import itertools

import numpy as np
import pytest
import torch

from styleforge.convert.state import (
    arrange,
    as_clamp,
    as_number,
    as_positive,
    as_taps,
    as_tensors,
    block_sides,
    count_layers,
    infer_channels,
)


def test_tensors_arrays_and_numbers_all_become_float32_tensors():
    state = as_tensors({"a": torch.ones(2).bfloat16(), "b": np.ones((2, 3)), "c": np.float64(0.5), "d": 2})
    assert [(t.dtype, tuple(t.shape)) for t in state.values()] == [(torch.float32, s) for s in ((2,), (2, 3), (), ())]
    assert state["c"] == 0.5 and state["d"] == 2


def test_arrays_that_cannot_be_written_make_no_noise(recwarn):
    array = np.ones(3)
    array.flags.writeable = False
    as_tensors({"a": array})
    assert not recwarn.list


@pytest.mark.parametrize("value", ["text", None, object()])
def test_what_is_no_number_is_refused(refuses, value):
    with refuses("weight", type(value).__name__):
        as_tensors({"weight": value})


def test_channels_tell_base_and_maximum():
    checked = 0
    for base, maximum, num in itertools.product([64, 100, 777, 4096, 16384, 32768], [1, 7, 32, 512], [2, 4, 6, 9]):
        channels = [min(base // (4 << i), maximum) for i in range(num)]
        if min(channels) == 0:
            continue
        found_base, found_maximum = infer_channels(channels, "network")
        assert [min(found_base // (4 << i), found_maximum) for i in range(num)] == channels
        checked += 1
    assert checked > 50
    assert infer_channels([512, 512, 512, 512, 512, 256, 128, 64, 32], "network") == (32768, 512)


@pytest.mark.parametrize("channels", [[8, 16], [16, 16, 9, 3], [16, 4, 4], [10, 5, 3]])
def test_channels_that_follow_no_rule_are_refused(refuses, channels):
    with refuses("network", ", ".join(map(str, channels)), "channel_base / r", "no config"):
        infer_channels(channels, "network")


def test_layers_are_counted_up_to_the_last_even_with_a_gap():
    state = dict.fromkeys(["fc0.weight", "fc1.bias", "fc10.weight", "fcx.weight", "other.fc20.weight"], torch.zeros(1))
    assert count_layers(state, "fc") == 11
    assert count_layers({}, "fc") == 0


@pytest.mark.parametrize("names", [[], ["b4.x"], ["b4.x", "b16.x"], ["b8.x", "b16.x"], ["b4.x", "b8.x", "b12.x"]])
def test_blocks_with_a_gap_are_refused(refuses, names):
    with refuses("network", "4×4, 8×8", "gap"):
        block_sides(dict.fromkeys(names, torch.zeros(1)), r"b(\d+)\.", "network")


def test_everything_finds_its_place_and_nothing_is_left_over(refuses):
    want = {"weight": torch.Size([2, 3]), "bias": torch.Size([2])}
    sources = {"weight": ("w", lambda x: x.t()), "bias": ("b", lambda x: x)}
    w, b = torch.randn(3, 2), torch.randn(2)
    for state, parts in [
        ({"w": w}, ["without 'b'", "complete"]),
        ({"w": w, "b": b, "c": b}, ["'c'", "does not have"]),
        ({"w": w, "b": b, "c" * 9999: b}, ["ccc…'", "does not have"]),
        ({"w": w.t(), "b": b}, ["[2, 3]", "'w'", "[2, 3]"]),
        ({"w": w[None], "b": b}, ["[1, 3, 2]", "'w'"]),
        ({"w": torch.tensor(1.0), "b": b}, ["[]", "'w'"]),
    ]:
        with refuses("layer", *parts):
            arrange(want, state, sources, "layer")
    found = arrange(want, {"w": w, "b": b}, sources, "layer")
    assert torch.equal(found["weight"], w.t()) and torch.equal(found["bias"], b)


def test_what_lies_under_several_names_is_turned_once():
    array, half = np.ones(3, np.float32), torch.ones(2).half()
    state = as_tensors({"a": array, "b": array, "c": half, "d": half})
    assert state["a"] is state["b"] and state["c"] is state["d"]


def test_names_are_text(refuses):
    with refuses("int"):
        as_tensors({3: torch.ones(1)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**200, "1", True, [1], torch.ones(1), np.ones(2)])
def test_only_numbers_of_a_network_are_numbers(refuses, value):
    with refuses("gain"):
        as_number(value, "gain")


def test_numbers_of_numpy_are_numbers():
    for value in (2, 2.0, np.float32(2), np.int64(2), np.array(2.0)):
        assert as_number(value, "gain") == 2
    assert as_taps(np.array([1, 3]), "taps") == as_taps((1, 3.0), "taps") == [1, 3]


@pytest.mark.parametrize("value", [0, -1.0])
def test_gains_and_clamps_are_above_0(refuses, value):
    with refuses("above 0"):
        as_positive(value, "gain")
    with refuses("above 0"):
        as_clamp(value)
