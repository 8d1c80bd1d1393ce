import tarfile
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from tiny_generators import CASES, save_tiny, tiny_generator

from styleforge import images
from styleforge.cli import main as main_module
from styleforge.cli.generate import generate
from styleforge.latents import GaussianLatents, find_directions, generate_ws

LABELS = {"conditional": ["--class=1"], "labels-as-matrix": ["--class=1"]}
MODES = {"gray": "L", "rgba": "RGBA"}


def run(*arguments):
    return CliRunner().invoke(generate, [str(argument) for argument in arguments])


def made(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def network(tmp_path):
    return save_tiny(tmp_path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where fits of the latent space are kept during the test."""
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/gaussian"


@pytest.fixture
def conditional(tmp_path):
    return save_tiny(tmp_path, "conditional")


@pytest.mark.parametrize("kind", CASES)
def test_every_kind_of_network_makes_its_pictures(tmp_path, kind):
    out = tmp_path / "out"
    text = made(
        "--network",
        save_tiny(tmp_path, kind),
        "--seeds=0-2,40",
        "--trunc=0.7",
        f"--outdir={out}",
        *LABELS.get(kind, []),
    )
    assert text == f"Wrote 4 pictures, grid.png, latents.npz to {out}.\n"
    names = {"seed0000.png", "seed0001.png", "seed0002.png", "seed0040.png"}
    assert set(contents(out)) == names | {"grid.png", "latents.npz"}

    G = tiny_generator(kind)
    z = torch.from_numpy(np.random.RandomState(40).randn(1, G.z_dim)).float()
    c = torch.eye(G.c_dim)[1:2] if G.c_dim else None
    (expected,) = images.to_uint8(G(z, c, truncation_psi=0.7, noise_mode="const"))
    with Image.open(out / "seed0040.png") as picture:
        assert picture.mode == MODES.get(kind, "RGB")
        height, width = G.config.size
        assert picture.size == (width, height)
    assert np.abs(pixels(out / "seed0040.png") - np.asarray(images.to_pil(expected)).astype(int)).max() <= 1
    rows = pixels(out / "grid.png")
    assert np.array_equal(rows[:height, :width], pixels(out / "seed0000.png"))
    assert np.array_equal(rows[-height:, -width:], pixels(out / "seed0040.png"))


def test_the_same_command_gives_the_same_files(tmp_path, network):
    for noise_mode in ("const", "random", "none"):
        command = ["--network", network, "--seeds=0-4", f"--noise-mode={noise_mode}"]
        made(*command, "--outdir", tmp_path / noise_mode / "a")
        made(*command, "--outdir", tmp_path / noise_mode / "b")
        assert contents(tmp_path / noise_mode / "a") == contents(tmp_path / noise_mode / "b")
    assert len({pixels(tmp_path / mode / "a" / "seed0003.png").tobytes() for mode in ("const", "random", "none")}) == 3


def test_batches_do_not_change_the_pictures(tmp_path, network):
    command = ["--network", network, "--seeds=0-4", "--noise-mode=random"]
    for batch in (1, 3, 8):
        made(*command, f"--batch={batch}", "--outdir", tmp_path / f"{batch}")
    reference = pixels(tmp_path / "8" / "grid.png")
    for batch in (1, 3):
        assert np.abs(pixels(tmp_path / f"{batch}" / "grid.png") - reference).max() <= 1


def test_truncation_to_zero_makes_equal_pictures(tmp_path, network):
    for flag in ("--trunc=0", "--truncation-psi=0"):
        made("--network", network, "--seeds=0-1", flag, f"--outdir={tmp_path}")
        assert (tmp_path / "seed0000.png").read_bytes() == (tmp_path / "seed0001.png").read_bytes()
    made("--network", network, "--seeds=0-1", "--trunc=0", "--trunc-cutoff=0", f"--outdir={tmp_path}")
    assert (tmp_path / "seed0000.png").read_bytes() != (tmp_path / "seed0001.png").read_bytes()


def test_latents_keep_what_made_the_pictures(tmp_path, conditional):
    made("--network", conditional, "--seeds=7,3", "--class=0.5,0,0.5", "--trunc=0.6", f"--outdir={tmp_path}")
    G = tiny_generator("conditional")
    with np.load(tmp_path / "latents.npz") as latents:
        assert latents["seeds"].tolist() == [7, 3]
        assert latents["c"].tolist() == [[0.5, 0, 0.5]] * 2
        z, c, ws = (torch.from_numpy(latents[key]) for key in ("z", "c", "ws"))
    assert np.array_equal(z[1:].numpy(), np.random.RandomState(3).randn(1, 8).astype(np.float32))
    torch.testing.assert_close(ws, G.mapping(z, c, truncation_psi=0.6))


def test_compression_follows_truncation(tmp_path, network, cache):
    made("--network", network, "--seeds=0-4", "--trunc=0.9", "--compress=0.5", f"--outdir={tmp_path}")
    G = tiny_generator()
    ws = generate_ws(G, range(5), truncation_psi=0.9)
    expected = GaussianLatents.fit(G).compress(ws, 0.5)
    assert not torch.allclose(expected, ws, atol=0.01)
    with np.load(tmp_path / "latents.npz") as latents:
        torch.testing.assert_close(torch.from_numpy(latents["ws"]), expected)
    pictures = images.to_uint8(G.synthesis(expected, noise_mode="const")).permute(0, 2, 3, 1).numpy()
    for seed in range(5):
        assert np.abs(pixels(tmp_path / f"seed{seed:04d}.png") - pictures[seed]).max() <= 1
    assert len(list(cache.iterdir())) == 1


@pytest.mark.usefixtures("cache")
def test_latents_from_a_file_can_be_compressed(tmp_path, conditional):
    command = ["--network", conditional, "--class=1", "--seeds=0-2"]
    made(*command, "--outdir", tmp_path / "plain")
    made(*command, "--compress=0.5", "--outdir", tmp_path / "compressed")
    again = ["--network", conditional, "--projected-w", tmp_path / "plain/latents.npz", f"--outdir={tmp_path}"]
    made(*again, "--compress=0.5")
    for seed in range(3):
        compressed = pixels(tmp_path / f"compressed/seed{seed:04d}.png")
        assert np.abs(pixels(tmp_path / f"proj{seed:02d}.png") - compressed).max() <= 1
    assert np.abs(pixels(tmp_path / "plain/seed0000.png") - pixels(tmp_path / "compressed/seed0000.png")).max() > 8


@pytest.mark.usefixtures("cache")
def test_the_bundled_network_can_be_compressed(tmp_path):
    made("--network=demo", "--seeds=0-3", "--compress=inf", "--outdir", tmp_path / "inf")
    made("--network=demo", "--seeds=0-3", "--outdir", tmp_path / "plain")
    assert contents(tmp_path / "inf") == contents(tmp_path / "plain")
    made("--network=demo", "--seeds=0-3", "--compress=1.5", "--outdir", tmp_path / "out")
    assert pixels(tmp_path / "out/grid.png").shape == (128, 128, 3)
    assert 0 < np.abs(pixels(tmp_path / "out/grid.png") - pixels(tmp_path / "plain/grid.png")).mean() < 16


@pytest.mark.parametrize("flag", ["--projected", "--projected-w", "--projected_w"])
def test_latents_give_the_same_pictures_again(tmp_path, network, flag):
    made("--network", network, "--seeds=0-4", "--trunc=0.7", "--outdir", tmp_path / "first")
    text = made("--network", network, flag, tmp_path / "first/latents.npz", "--batch=2", "--outdir", tmp_path / "again")
    assert "Wrote 5 pictures" in text
    for seed in range(5):
        first, again = pixels(tmp_path / f"first/seed{seed:04d}.png"), pixels(tmp_path / f"again/proj{seed:02d}.png")
        assert np.abs(first - again).max() <= 1


def test_the_file_of_latents_stays_as_it_is(tmp_path, network):
    made("--network", network, "--seeds=0-1", f"--outdir={tmp_path}")
    before = (tmp_path / "latents.npz").read_bytes()
    made("--network", network, "--projected-w", tmp_path / "latents.npz", f"--outdir={tmp_path}")
    assert (tmp_path / "latents.npz").read_bytes() == before


def test_a_projection_makes_one_picture_and_no_grid(tmp_path, network):
    G = tiny_generator()
    ws = torch.randn(1, G.num_ws, G.w_dim)
    np.savez(tmp_path / "projected_w.npz", w=ws.numpy())
    out = tmp_path / "out"
    text = made("--network", network, "--projected-w", tmp_path / "projected_w.npz", f"--outdir={out}")
    assert "Wrote 1 picture to" in text
    assert set(contents(out)) == {"proj00.png"}
    expected = images.to_uint8(G.synthesis(ws, noise_mode="const"))[0].permute(1, 2, 0).numpy()
    assert np.abs(pixels(out / "proj00.png") - expected).max() <= 1


def test_all_classes_of_every_seed(tmp_path, conditional):
    made("--network", conditional, "--seeds=4-5", "--class=all", "--padding=2", "--outdir", tmp_path / "all")
    names = [f"seed{seed:04d}-class{k:02d}.png" for seed in (4, 5) for k in range(3)]
    assert set(contents(tmp_path / "all")) == {*names, "grid.png", "latents.npz"}
    sheet = pixels(tmp_path / "all/grid.png")
    assert sheet.shape == (2 * 18 - 2, 3 * 18 - 2, 3)  # a row for each seed
    assert (sheet[16:18] == 255).all()
    for k in range(3):
        made("--network", conditional, "--seeds=4-5", f"--class={k}", "--outdir", tmp_path / f"{k}")
        for seed in (4, 5):
            single = pixels(tmp_path / f"{k}/seed{seed:04d}.png")
            assert np.abs(single - pixels(tmp_path / f"all/seed{seed:04d}-class{k:02d}.png")).max() <= 1


@pytest.mark.parametrize(("image_format", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_the_format_is_that_of_the_single_pictures(tmp_path, image_format, kind):
    network = save_tiny(tmp_path, "rgba")
    made("--network", network, "--seeds=0-1", f"--format={image_format}", "--outdir", tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {
        f"seed0000.{image_format}",
        f"seed0001.{image_format}",
        "grid.png",
        "latents.npz",
    }
    with Image.open(tmp_path / "out" / f"seed0000.{image_format}") as picture:
        assert picture.format == kind


def test_grid_and_npz_can_be_left_out_and_asked_for(tmp_path, network):
    made("--network", network, "--seeds=0-2", "--no-grid", "--no-npz", "--outdir", tmp_path / "without")
    assert all(name.startswith("seed") for name in contents(tmp_path / "without"))
    made("--network", network, "--seeds=3", "--grid", "--outdir", tmp_path / "with")
    assert "grid.png" in contents(tmp_path / "with")
    made("--network", network, "--seeds=0-2", "--columns=1", "--outdir", tmp_path / "columns")
    assert pixels(tmp_path / "columns/grid.png").shape == (48, 16, 3)


def test_a_progressive_network_shows_a_level_of_detail(tmp_path):
    made("--network", save_tiny(tmp_path, "config-a"), "--seeds=0", "--lod=1", "--outdir", tmp_path / "out")
    picture = pixels(tmp_path / "out/seed0000.png")
    assert np.array_equal(picture[::2, ::2], picture[1::2, 1::2])


def test_existing_files_are_replaced_and_others_stay(tmp_path, network):
    (tmp_path / "seed0000.png").write_bytes(b"old")
    (tmp_path / "mine.txt").write_text("mine")
    made("--network", network, "--seeds=0", f"--outdir={tmp_path}")
    assert pixels(tmp_path / "seed0000.png").shape == (16, 16, 3)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_run_directory_stands_for_its_last_snapshot(tmp_path, network):
    run_dir = tmp_path / "00000-run"
    run_dir.mkdir()
    (tmp_path / "square.safetensors").replace(run_dir / "network-snapshot-000100.safetensors")
    made("--network", run_dir, "--seeds=0", "--outdir", tmp_path / "out")


def test_help_has_groups_and_examples():
    text = run("--help").output
    for part in ("Model:", "Style:", "Output:", "Examples:", "--trunc", "--compress", "--projected-w", "--class"):
        assert part in text


def call_main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["styleforge", "generate", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main_module.main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.usefixtures("cache")
def test_errors_are_one_sentence_and_leave_no_file(tmp_path, network, conditional, monkeypatch, capsys):
    np.savez(tmp_path / "other.npz", w=np.zeros((1, 14, 512)))
    np.savez(tmp_path / "z.npz", z=np.zeros((1, 8)))
    (tmp_path / "text.npz").write_text("text")
    out = tmp_path / "out"
    plain, with_labels = ["--network", network, "--seeds=0"], ["--network", conditional, "--seeds=0"]
    for arguments, part in (
        (["--network", "nothing.safetensors", "--seeds=0"], "nothing.safetensors: there is no such file"),
        ([*plain, "--class=0"], "expected none, since this network is unconditional"),
        (with_labels, "got none, expected a class from 0 to 2"),
        ([*with_labels, "--class=3"], "got '3', expected a class from 0 to 2"),
        ([*with_labels, "--class=1,0"], "got '1,0', expected a class from 0 to 2 or 3 numbers"),
        ([*plain, "--lod=1"], "lod: got 1.0, expected 0"),
        ([*plain, "--compress=nan"], "tau: got nan, expected a number above 0"),
        ([*plain, "--device=abacus"], "device: got 'abacus'"),
        (["--network", network, "--projected-w", tmp_path / "other.npz"], "shape [1, 14, 512], expected"),
        (["--network", network, "--projected-w", tmp_path / "z.npz"], "keys z, expected w or ws"),
        (["--network", network, "--projected-w", tmp_path / "text.npz"], "no npz archive"),
        (["--network", network, "--projected-w", tmp_path / "none.npz"], "there is no such file"),
    ):
        code, text = call_main(monkeypatch, capsys, *arguments, "--outdir", out)
        assert code == 1
        assert text.startswith("Error: ") and text.count("\n") == 1
        assert part in text
        assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--seeds=3-1"], "seeds: got '3-1' in '3-1', expected numbers"),
        (["--seeds=cat"], "seeds: got 'cat'"),
        ([], "expected one of --seeds and --projected"),
        (["--seeds=1", "--projected-w=x.npz"], "expected one of --seeds and --projected"),
        (["--projected-w=x.npz", "--trunc=0.5"], "expected neither --class nor --trunc"),
        (["--projected-w=x.npz", "--class=1"], "expected neither --class nor --trunc"),
        (["--seeds=1", "--noise-mode=loud"], "'loud' is not one of"),
        (["--seeds=1", "--compress=0"], "0.0 is not in the range x>0"),
        (["--seeds=1", "--compress=-1"], "-1.0 is not in the range x>0"),
    ],
)
def test_flags_that_do_not_fit_are_a_usage_error(network, arguments, part):
    result = run("--network", network, *arguments)
    assert result.exit_code == 2
    assert part in " ".join(result.output.split())


def test_a_failure_leaves_whole_files_alone(tmp_path, network, monkeypatch, capsys):
    (tmp_path / "seed0000.png").write_bytes(b"old")

    def fail(image, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    code, text = call_main(monkeypatch, capsys, "--network", network, "--seeds=0", f"--outdir={tmp_path}")
    assert code == 1
    assert "seed0000.png: could not be written (No space left on device)" in text
    assert (tmp_path / "seed0000.png").read_bytes() == b"old"
    assert set(contents(tmp_path)) == {"seed0000.png", "square.safetensors"}


# Zips and shards


def test_shards_hold_the_files_of_the_plain_folder(tmp_path, conditional):
    command = ["--network", conditional, "--seeds=3-7,1", "--class=all", "--trunc=0.7", "--batch=4"]
    made(*command, "--outdir", tmp_path / "plain")
    text = made(*command, "--dest", tmp_path / "shards", "--shard-size=7")
    assert text == f"Wrote 18 pictures in 3 shards to {tmp_path / 'shards'}.\n"
    plain = [f"seed{seed:04d}-class{k:02d}.png" for seed in (3, 4, 5, 6, 7, 1) for k in range(3)]
    found = []
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(member).read() for member in tar if member.name.endswith(".png")]
    assert found == [(tmp_path / "plain" / name).read_bytes() for name in plain]
    (tmp_path / "shards/shard-000001.tar").unlink()
    text = made(*command, "--dest", tmp_path / "shards", "--shard-size=7")
    assert text == f"Wrote 18 pictures in 3 shards, 2 of which were there, to {tmp_path / 'shards'}.\n"
    text = made(*command, "--dest", tmp_path / "shards", "--shard-size=7")
    assert text == f"Nothing to do: {tmp_path / 'shards'} is complete, with 18 pictures.\n"


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_a_zip_holds_the_pictures_of_the_plain_folder(tmp_path, network, image_format):
    command = ["--network", network, "--seeds=0-5", "--batch=4", f"--format={image_format}"]
    made(*command, "--outdir", tmp_path / "plain")
    assert made(*command, "--dest", tmp_path / "x.zip") == f"Wrote 6 pictures to {tmp_path / 'x.zip'}.\n"
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        for seed in range(6):
            with archive.open(f"00000/img{seed:08d}.{image_format}") as file:
                assert np.array_equal(pixels(file), pixels(tmp_path / f"plain/seed{seed:04d}.{image_format}"))


@pytest.mark.usefixtures("cache")
def test_what_moves_the_latents_is_part_of_the_settings(tmp_path, network, monkeypatch, capsys):
    find_directions(tiny_generator(), num=2, num_samples=1000).save(tmp_path / "d.safetensors")
    command = ["--network", network, "--seeds=0-5", "--compress=0.5", "--direction", tmp_path / "d.safetensors"]
    made(*command, "--strength=3", "--outdir", tmp_path / "plain")
    made(*command, "--strength=3", "--dest", tmp_path / "shards")
    with tarfile.open(tmp_path / "shards/shard-000000.tar") as tar:
        assert tar.extractfile("00000005.png").read() == (tmp_path / "plain/seed0005.png").read_bytes()
    code, text = call_main(monkeypatch, capsys, *command, "--strength=4", "--dest", tmp_path / "shards")
    assert (code, "strength 3.0, got 4.0" in text, text.count("\n")) == (1, True, 1)
    result = run(*command, "--strength=1:3", "--dest", tmp_path / "other")
    assert result.exit_code == 2 and "expected one number here" in result.output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--seeds=0", "--shard-size=3"], "expected --dest DIR"),
        (["--seeds=0", "--dest=x.zip", "--shard-size=3"], "got one zip, expected a folder"),
        (["--seeds=0", "--dest=x", "--grid"], "--grid does not go with --dest"),
        (["--seeds=0", "--dest=x", "--outdir=out"], "--outdir does not go with --dest"),
        (["--projected=x.npz", "--dest=x"], "--projected does not go with --dest"),
        (["--seeds=0", "--dest=x", "--no-npz"], "--npz does not go with --dest"),
        (["--seeds=0", "--dest="], "--dest: got no name"),
    ],
)
def test_what_does_not_go_with_a_dest_is_a_usage_error(network, arguments, part):
    result = run("--network", network, *arguments)
    assert result.exit_code == 2
    assert part in " ".join(result.output.split())
