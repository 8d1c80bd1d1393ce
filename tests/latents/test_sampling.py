import json

import numpy as np
import pytest
import torch
from tiny_generators import CASES, tiny_generator

from styleforge import images
from styleforge.latents import sampling
from styleforge.latents.gaussian import mapping_sha256
from styleforge.latents.sampling import (
    default_batch,
    format_numbers,
    generate_images,
    generate_ws,
    load_projections,
    load_ws,
    mix_matrix,
    parse_label,
    parse_numbers,
    parse_seeds,
    seed_to_z,
    seeds_to_noise,
    synthesize,
)
from styleforge.networks import Generator, network_preset

SEEDS = [3, 0, 17, 3, 85]


@pytest.fixture(params=CASES)
def G(request):
    return tiny_generator(request.param)


def label_of(G):
    return torch.eye(G.c_dim)[1] if G.c_dim else None


def pictures_of(G, seeds, **arguments):
    arguments = {"c": label_of(G)} | arguments
    return torch.cat([images_uint8 for _, _, images_uint8 in generate_images(G, seeds, **arguments)])


def steps_apart(first, second):
    """Largest difference of two pictures in steps of 255."""
    return (first.int() - second.int()).abs().max().item()


# What is read


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", [7]), ("0-3,40", [0, 1, 2, 3, 40]), ("5,1-2,5", [5, 1, 2, 5]), (" 1 - 2 , 9 ", [1, 2, 9]), ("4-4", [4])],
)
def test_seeds_are_read_in_the_order_given(text, seeds):
    assert parse_seeds(text) == seeds
    assert parse_seeds("4294967295") == [sampling.MAX_SEED]
    assert parse_seeds(format_numbers(seeds)) == seeds


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "-1", "3-1", "1-2-3", "0x1", "1.5", "4294967296", "1;2"])
def test_what_is_no_seed_is_refused(refuses, text):
    with refuses("seeds", repr(text), "--seeds"):
        parse_seeds(text)


def test_numbers_beyond_the_largest_are_refused(refuses):
    assert parse_numbers("0-6", name="styles", largest=6) == list(range(7))
    with refuses("styles", "'5-7'", "from 0 to 6", "--styles"):
        parse_numbers("0,5-7", name="styles", largest=6)


def test_a_label_is_a_class_all_classes_or_its_numbers():
    assert parse_label("2", 3).tolist() == [0, 0, 1]
    assert parse_label("all", 3).equal(torch.eye(3))
    assert parse_label("0.5,0,-1", 3).tolist() == [0.5, 0, -1]
    assert parse_label("0.25", 1).tolist() == [0.25]
    assert parse_label(None, 0) is None


@pytest.mark.parametrize("text", [None, "3", "-1", "cat", "0.5", "1,2", "1,2,x", "nan,0,0", ""])
def test_a_label_that_does_not_fit_is_refused(refuses, text):
    with refuses("class", "from 0 to 2", "3 numbers", "conditional", "--class"):
        parse_label(text, 3)


def test_an_unconditional_network_takes_no_label(refuses):
    with refuses("'0'", "unconditional", "--class"):
        parse_label("0", 0)


# Latents


@pytest.mark.parametrize("seed", [0, 1, 85, 2**32 - 1])
def test_z_is_that_of_the_official_releases(seed):
    expected = np.random.RandomState(seed).randn(1, 512)
    z = seed_to_z(seed, 512)
    assert z.dtype == torch.float32
    assert np.array_equal(z.numpy(), expected.astype(np.float32))


def test_ws_are_those_of_the_mapping_network(G):
    z = torch.cat([seed_to_z(seed, G.z_dim) for seed in SEEDS])
    c = None if G.c_dim == 0 else label_of(G).expand(len(SEEDS), -1)
    expected = G.mapping(z, c, truncation_psi=0.6, truncation_cutoff=2)
    for batch in (1, 2, 100):
        ws = generate_ws(G, SEEDS, c=label_of(G), truncation_psi=0.6, truncation_cutoff=2, batch=batch)
        torch.testing.assert_close(ws, expected)


def test_each_seed_may_have_a_label_of_its_own():
    G = tiny_generator("conditional")
    c = torch.eye(3)[[2, 0, 1, 1, 0]]
    together = generate_ws(G, SEEDS, c=c, batch=2)
    alone = torch.cat([generate_ws(G, [seed], c=label) for seed, label in zip(SEEDS, c, strict=True)])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together[0], together[3])  # one seed, two classes


def test_no_seeds_make_no_ws():
    G = tiny_generator()
    assert generate_ws(G, []).shape == (0, G.num_ws, G.w_dim)
    assert list(generate_images(G, [])) == []


# Pictures


def test_the_same_seed_gives_the_same_pictures_for_any_batch_size(G):
    for noise_mode in ("const", "none", "random"):
        reference = pictures_of(G, SEEDS, noise_mode=noise_mode, batch=100)
        assert reference.shape == (len(SEEDS), G.img_channels, *G.config.size)
        assert reference.dtype == torch.uint8
        assert torch.equal(reference, pictures_of(G, SEEDS, noise_mode=noise_mode, batch=100))
        assert steps_apart(reference[0], reference[3]) <= 1  # seed 3, twice
        assert steps_apart(reference[0], reference[1]) > 8
        for batch in (1, 2, None):
            assert steps_apart(reference, pictures_of(G, SEEDS, noise_mode=noise_mode, batch=batch)) <= 1


def test_pictures_are_those_of_the_generator(G):
    z = torch.cat([seed_to_z(seed, G.z_dim) for seed in SEEDS])
    c = None if G.c_dim == 0 else label_of(G).expand(len(SEEDS), -1)
    expected = images.to_uint8(G(z, c, truncation_psi=0.5, noise_mode="const"))
    assert steps_apart(pictures_of(G, SEEDS, truncation_psi=0.5), expected) <= 1


def test_batches_come_with_their_seeds_and_ws():
    G = tiny_generator()
    batches = list(generate_images(G, SEEDS, batch=2))
    assert [seeds for seeds, _, _ in batches] == [[3, 0], [17, 3], [85]]
    assert torch.equal(torch.cat([ws for _, ws, _ in batches]), generate_ws(G, SEEDS, batch=2))


def test_truncation_to_zero_gives_equal_pictures(G):
    pictures = pictures_of(G, SEEDS, truncation_psi=0)
    assert steps_apart(pictures, pictures[:1]) == 0


def test_a_cutoff_of_zero_truncates_nothing():
    G = tiny_generator()
    assert torch.equal(pictures_of(G, SEEDS, truncation_psi=0, truncation_cutoff=0), pictures_of(G, SEEDS))


def test_random_noise_follows_from_the_seed_alone_and_not_from_z():
    G = tiny_generator()
    state = torch.random.get_rng_state()
    first = seeds_to_noise(G, [5, 6])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [tuple(noise.shape) for noise in first] == [
        (2, 1, *noise_input.const.shape) for noise_input in G.synthesis.noise_inputs()
    ]
    for noise, alone in zip(first, seeds_to_noise(G, [6]), strict=True):
        assert torch.equal(noise[1:], alone)
        assert not torch.equal(noise[0], noise[1])
    values = torch.cat([noise[0].flatten() for noise in first])
    assert abs(values.mean()) < 0.2 and abs(values.std() - 1) < 0.1
    z = seed_to_z(5, len(values))[0]
    assert abs((values * z).mean()) < 0.2


def test_noise_of_a_lower_level_of_detail_is_the_same():
    G = tiny_generator("config-a")
    low, full = seeds_to_noise(G, [5], lod=1), seeds_to_noise(G, [5])
    assert 0 < len(low) < len(full)
    assert all(map(torch.equal, low, full))


def test_a_progressive_network_shows_a_level_of_detail():
    G = tiny_generator("config-a")
    for noise_mode in ("const", "random"):
        pictures = pictures_of(G, SEEDS, lod=1, noise_mode=noise_mode)
        assert torch.equal(pictures[..., ::2, ::2], pictures[..., 1::2, 1::2])  # repeated pixels


def test_what_the_network_cannot_do_is_refused(refuses):
    G = tiny_generator()
    with refuses("lod", "progressive"):
        pictures_of(G, [0], lod=1)
    with refuses("noise_mode", "'loud'"):
        pictures_of(G, [0], noise_mode="loud")
    with refuses("c:", "conditional"):
        pictures_of(tiny_generator("conditional"), [0], c=None)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: 1 bytes")])
def test_running_out_of_memory_names_the_flag(monkeypatch, error):
    G = tiny_generator()

    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(G.synthesis, "forward", fail)
    with pytest.raises(MemoryError, match=r"8 pictures at a time.*--batch"):
        pictures_of(G, [0], batch=8)


def test_other_errors_stay_what_they_are(monkeypatch):
    G = tiny_generator()
    monkeypatch.setattr(G.synthesis, "forward", lambda *arguments, **named: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        pictures_of(G, [0])


@pytest.mark.parametrize(
    ("preset", "resolution", "expected"),
    [("config-f", 1024, 4), ("config-e", 1024, 8), ("config-f", 256, 16), ("config-e", 64, 32), ("config-e", 8, 32)],
)
def test_the_default_batch_falls_with_the_size_of_the_features(preset, resolution, expected):
    with torch.device("meta"):
        G = Generator(network_preset(preset, resolution)[0])
    assert default_batch(G) == expected


# Mixing


def test_mixing_takes_some_layers_from_the_column():
    rows, cols = torch.randn(2, 6, 4), torch.randn(3, 6, 4)
    mixed = mix_matrix(rows, cols, [0, 4])
    assert mixed.shape == (2, 3, 6, 4)
    for i in range(2):
        for j in range(3):
            assert torch.equal(mixed[i, j, [0, 4]], cols[j, [0, 4]])
            assert torch.equal(mixed[i, j, [1, 2, 3, 5]], rows[i, [1, 2, 3, 5]])


def test_mixing_all_layers_gives_the_column_and_none_the_row(G):
    ws = generate_ws(G, [1, 2, 3], c=label_of(G))
    (pictures,) = synthesize(G, ws, batch=8)
    for layers, kept in ((range(G.num_ws), pictures[1:]), ([], pictures[:1].expand(2, -1, -1, -1))):
        (mixed,) = synthesize(G, mix_matrix(ws[:1], ws[1:], layers)[0], batch=8)
        assert steps_apart(mixed, kept) <= 1


# Files


@pytest.mark.parametrize("key", ["w", "ws"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_ws_come_back_from_a_file(tmp_path, key, dtype):
    G = tiny_generator()
    ws = np.random.randn(2, G.num_ws, G.w_dim).astype(dtype)
    np.savez(tmp_path / "x.npz", **{key: ws, "seeds": [1, 2]})
    np.savez_compressed(tmp_path / "one.npz", **{key: ws[0]})
    loaded = load_ws(tmp_path / "x.npz", G)
    assert loaded.dtype == torch.float32
    assert np.array_equal(loaded.numpy(), ws.astype(np.float32))
    assert torch.equal(load_ws(tmp_path / "one.npz", G), loaded[:1])


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((1, 14, 8), np.float32), "[1, 14, 8]"),
        (np.zeros((1, 6, 512), np.float32), "[1, 6, 512]"),
        (np.zeros((0, 6, 8), np.float32), "[0, 6, 8]"),
        (np.zeros(8, np.float32), "[8]"),
        (np.zeros((1, 6, 8), np.int64), "int64"),
        (np.full((1, 6, 8), np.nan), "not finite"),
    ],
)
def test_ws_of_another_network_are_refused(tmp_path, refuses, array, part):
    G = tiny_generator()
    assert (G.num_ws, G.w_dim) == (6, 8)
    np.savez(tmp_path / "x.npz", w=array)
    with refuses("x.npz", part):
        load_ws(tmp_path / "x.npz", G)


def test_what_is_no_archive_of_ws_is_refused(tmp_path, refuses):
    G = tiny_generator()
    np.savez(tmp_path / "whole.npz", w=np.zeros((1, 6, 8)))
    data = (tmp_path / "whole.npz").read_bytes()
    damaged = bytearray(data)
    damaged[len(data) // 3] ^= 255
    files = {"text": b"no archive", "empty": b"", "cut": data[:-30], "damaged": bytes(damaged)}
    for name, content in files.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with refuses(f"{name}.npz"):
            load_ws(tmp_path / f"{name}.npz", G)
    np.save(tmp_path / "x.npy", np.zeros((1, 6, 8)))
    with refuses("x.npy", "no npz archive"):
        load_ws(tmp_path / "x.npy", G)
    np.savez(tmp_path / "objects.npz", w=np.array([{}]))
    with refuses("objects.npz"):  # and no pickle is read
        load_ws(tmp_path / "objects.npz", G)
    np.savez(tmp_path / "other.npz", z=np.zeros(3), seeds=[1])
    with refuses("keys z, seeds"):
        load_ws(tmp_path / "other.npz", G)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_ws(tmp_path / "missing.npz", G)


def test_ws_of_another_mapping_network_are_refused(tmp_path, refuses):
    G, other = tiny_generator(), tiny_generator()
    next(other.mapping.parameters()).mul_(2)
    ws = np.zeros((1, 6, 8), np.float32)
    np.savez(tmp_path / "generated.npz", ws=ws, mapping_sha256=mapping_sha256(G))
    np.savez(tmp_path / "projected.npz", w=ws, settings=json.dumps({"mapping_sha256": mapping_sha256(G)}))
    for name in ("generated.npz", "projected.npz"):
        assert load_ws(tmp_path / name, G).shape == (1, 6, 8)
        with refuses(name, "another mapping network", "use the network that the file was made with"):
            load_ws(tmp_path / name, other)
    G.w_avg.add_(1)  # a running mean, not a weight
    assert load_ws(tmp_path / "projected.npz", G).shape == (1, 6, 8)


@pytest.mark.parametrize("settings", ["{}", "[]", "no JSON", "3"])
def test_ws_pass_if_their_file_does_not_say_what_made_it(tmp_path, settings):
    np.savez(tmp_path / "x.npz", w=np.zeros((1, 6, 8)), settings=settings)
    assert load_ws(tmp_path / "x.npz", tiny_generator()).shape == (1, 6, 8)


# Projections


def save_projection(path, G, *, num=1, noise=True):
    """An archive as `styleforge project` writes it, and its contents."""
    ws = torch.randn(num, G.num_ws, G.w_dim)
    maps = [torch.randn(num, 1, *noise_input.const.shape) for noise_input in G.synthesis.noise_inputs()]
    arrays = {f"noise{k}": one.numpy() for k, one in enumerate(maps)} if noise else {}
    np.savez(path, w=ws.numpy(), settings=np.array("{}"), **arrays)
    return ws, maps


def test_projections_come_with_their_noise_maps(tmp_path):
    G = tiny_generator()
    first, second = (save_projection(tmp_path / f"{name}.npz", G, num=num) for name, num in (("a", 2), ("b", 1)))
    ws, noise = load_projections(f"{tmp_path}/a.npz, {tmp_path}/b.npz", G)
    assert torch.equal(ws, torch.cat([first[0], second[0]]))
    for maps, one, other in zip(noise, first[1], second[1], strict=True):
        assert torch.equal(maps, torch.cat([one, other]))


def test_projections_without_noise_maps_have_the_networks_own(tmp_path):
    G = tiny_generator()
    _, maps = save_projection(tmp_path / "a.npz", G)
    save_projection(tmp_path / "b.npz", G, noise=False)
    assert load_projections(f"{tmp_path}/b.npz", G)[1] is None
    _, noise = load_projections(f"{tmp_path}/b.npz,{tmp_path}/a.npz", G)
    for found, noise_input, one in zip(noise, G.synthesis.noise_inputs(), maps, strict=True):
        assert torch.equal(found[0, 0], noise_input.const)
        assert torch.equal(found[1:], one)


def test_noise_maps_take_the_place_of_the_networks_own(G):
    ws = generate_ws(G, SEEDS, c=label_of(G))
    maps = [torch.randn(5, 1, *noise_input.const.shape) for noise_input in G.synthesis.noise_inputs()]
    found = torch.cat(list(synthesize(G, ws, noise=maps, batch=2)))
    assert steps_apart(found, images.to_uint8(G.synthesis(ws, noise=maps, noise_mode="const"))) <= 1
    one = [image[:1] for image in maps]
    shared = torch.cat(list(synthesize(G, ws, noise=one, batch=2)))
    for i in range(5):
        expected = images.to_uint8(G.synthesis(ws[i : i + 1], noise=one, noise_mode="const"))
        assert steps_apart(shared[i : i + 1], expected) <= 1
    for noise_mode in ("none", "random"):
        with_maps, without = (
            torch.cat(list(synthesize(G, ws, noise_mode=noise_mode, noise=noise))) for noise in (maps, None)
        )
        assert torch.equal(with_maps, without)


@pytest.mark.parametrize("damage", ["missing", "size", "nan", "whole numbers"])
def test_noise_maps_of_another_network_are_refused(tmp_path, refuses, damage):
    G = tiny_generator()
    ws, maps = save_projection(tmp_path / "a.npz", G)
    arrays = {f"noise{k}": one.numpy() for k, one in enumerate(maps)}
    if damage == "missing":
        del arrays["noise0"]
    elif damage == "size":
        arrays["noise0"] = arrays["noise0"][:, :, :2]
    elif damage == "nan":
        arrays["noise0"][0, 0, 0, 0] = np.nan
    else:
        arrays["noise0"] = arrays["noise0"].astype(int)
    np.savez(tmp_path / "a.npz", w=ws.numpy(), **arrays)
    with refuses("a.npz: got noise maps", "use the network that the file was made with"):
        load_projections(str(tmp_path / "a.npz"), G)
