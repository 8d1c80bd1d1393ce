import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from tiny_generators import save_tiny, tiny_generator

from styleforge import checkpoint, images
from styleforge.cli import main as main_module
from styleforge.cli.generate import generate
from styleforge.cli.mix import mix
from styleforge.cli.project import project
from styleforge.cli.video import video
from styleforge.latents import GaussianLatents, find_directions, generate_images, load_projections
from styleforge.networks import Discriminator, DiscriminatorConfig

QUICK = ["--num-steps=6", "--distance=random-vgg"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("STYLEFORGE_WEIGHTS", raising=False)


@pytest.fixture
def network(tmp_path):
    return save_tiny(tmp_path)


@pytest.fixture
def faces(tmp_path):
    """A folder of two pictures of the network's."""
    (pictures,) = (part for *_, part in generate_images(tiny_generator(), range(2)))
    for name, picture in zip(("a", "b"), pictures, strict=True):
        images.save(picture, tmp_path / "faces" / f"{name}.png")
    return tmp_path / "faces"


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def made(command, *arguments):
    result = run(command, *arguments)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_every_target_gets_a_folder_and_all_a_table(tmp_path, network, faces):
    out = tmp_path / "out"
    text = made(project, "--network", network, "--target", faces, *QUICK, "--outdir", out)
    assert "Wrote 2 of 2 projections and grid.png" in text
    assert "random-vgg stands in for LPIPS" in text
    assert {path.name for path in out.iterdir()} == {"a", "b", "results.json", "grid.png"}
    assert {path.name for path in (out / "a").iterdir()} == {
        "target.png",
        "projection.png",
        "projection.npz",
        "losses.jsonl",
    }
    assert np.array_equal(pixels(out / "b/target.png"), pixels(faces / "b.png"))
    results = json.loads((out / "results.json").read_text())
    assert (results["network"], results["space"], results["distance"]) == (network, "w", "random-vgg")
    assert results["config"]["num_steps"] == 6 and results["config"]["optimize_noise"]
    assert [row["name"] for row in results["targets"]] == ["a", "b"]
    assert set(results["targets"][0]) == {"name", "target", "distance", "psnr", "ssim"}
    assert len((out / "a/losses.jsonl").read_text().splitlines()) == 6
    grid = pixels(out / "grid.png")
    assert grid.shape == (32, 32, 3)
    assert np.array_equal(grid[16:, :16], pixels(out / "a/projection.png"))


def test_options_reach_the_search(tmp_path, network, faces):
    made(
        project, "--network", network, faces / "a.png", *QUICK, "--space=w+", "--prior=gaussian", "--prior-weight=0.01",
        "--no-whiten", "--optimize-noise", "--restarts=1", "--plateau=0.1", "--seed=3", "--batch=2",
        "--outdir", tmp_path / "out",
    )  # fmt: skip
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert (results["space"], results["prior"], results["seed"], results["batch"]) == ("w+", "gaussian", 3, 2)
    config = results["config"]
    assert (config["learning_rate"], config["optimize_noise"], config["prior_weight"]) == (0.05, True, 0.01)
    assert (config["restarts"], config["plateau"], config["whiten"]) == (1, 0.1, False)
    assert "energy" in results["targets"][0]


def test_the_search_can_be_watched(tmp_path, network, faces):
    out = tmp_path / "out"
    made(project, "--network", network, "--target", faces / "a.png", *QUICK, "--save-video=gif", "--outdir", out)
    with Image.open(out / "a/projection.gif") as animation:
        assert animation.size == (32, 16)
        assert animation.n_frames > 1


def test_pictures_of_any_size_are_cut_if_asked(tmp_path, network):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "wide.jpg")
    result = run(project, "--network", network, "--target", tmp_path / "wide.jpg", *QUICK)
    assert "expected the proportions of the network's 16x16" in str(result.exception)
    made(
        project, "--network", network, "--target", tmp_path / "wide.jpg", *QUICK, "--align=center-crop", "--outdir",
        tmp_path / "out",
    )  # fmt: skip
    assert pixels(tmp_path / "out/wide/target.png").shape == (16, 16, 3)


def test_a_checkpoint_with_a_discriminator_lends_its_features(tmp_path, faces):
    D = Discriminator(DiscriminatorConfig(resolution=16, channel_max=4, channel_base=64))
    checkpoint.save(tmp_path / "both.safetensors", G_ema=tiny_generator(), D=D)
    command = [project, "--network", tmp_path / "both.safetensors", "--target", faces / "a.png", "--num-steps=2"]
    made(*command, "--outdir", tmp_path / "out")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["distance"] == "pixel+discriminator"


# What other commands make of projections


@pytest.fixture
def projections(tmp_path, network, faces):
    made(project, "--network", network, "--target", faces, *QUICK, "--outdir", tmp_path / "found")
    return [tmp_path / "found" / name for name in ("a", "b")]


def test_generate_makes_the_projected_pictures_again(tmp_path, network, projections):
    archives = ",".join(str(folder / "projection.npz") for folder in projections)
    made(generate, "--network", network, "--projected", archives, "--outdir", tmp_path / "again")
    for i, folder in enumerate(projections):
        again = pixels(tmp_path / f"again/proj{i:02d}.png")
        assert np.abs(again - pixels(folder / "projection.png")).max() <= 1
    made(generate, "--network", network, "--projected", archives, "--noise-mode=none", "--outdir", tmp_path / "none")
    assert np.abs(pixels(tmp_path / "none/proj00.png") - pixels(projections[0] / "projection.png")).max() > 1


def test_mix_takes_projections_for_rows_and_columns(tmp_path, network, projections):
    archives = ",".join(str(folder / "projection.npz") for folder in projections)
    made(mix, "--network", network, "--projected", archives, "--styles=0-1", "--outdir", tmp_path / "both")
    names = {f"proj0{i}-proj0{j}.png" for i in range(2) for j in range(2)}
    assert {path.name for path in (tmp_path / "both").iterdir()} == names | {"grid.png"}
    for i, folder in enumerate(projections):
        itself = pixels(tmp_path / f"both/proj0{i}-proj0{i}.png")
        assert np.abs(itself - pixels(folder / "projection.png")).max() <= 1

    made(mix, "--network", network, "--projected", archives, "--cols=5", "--styles=0-1", "--outdir", tmp_path / "seeds")
    G = tiny_generator()
    ws, noise = load_projections(archives, G)
    col_ws = G.mapping(torch.from_numpy(np.random.RandomState(5).randn(1, 8)).float())
    mixed = torch.cat([col_ws[:, :2], ws[1:, 2:]], dim=1)
    expected = images.to_uint8(G.synthesis(mixed, noise_mode="const", noise=[maps[1:] for maps in noise]))
    found = pixels(tmp_path / "seeds/proj01-5.png")
    assert np.abs(found - expected[0].permute(1, 2, 0).numpy()).max() <= 1


def test_video_morphs_between_projections(tmp_path, network, projections):
    archives = ",".join(str(folder / "projection.npz") for folder in projections)
    path = tmp_path / "morph.webp"
    made(video, "--network", network, "--projected", archives, "--w-frames=3", "--output", path)
    with Image.open(path) as animation:
        assert animation.n_frames == 6
        for i, folder in enumerate(projections):
            animation.seek(3 * i)
            frame = np.asarray(animation.convert("RGB")).astype(int)  # WebP loses a little
            own, other = (np.abs(frame - pixels(f / "projection.png")).mean() for f in (folder, projections[1 - i]))
            assert own < 0.7 * other


# Refusals


def call_main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["styleforge", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main_module.main()
    return end.value.code, capsys.readouterr().err


def test_errors_are_one_sentence_and_leave_no_file(tmp_path, network, faces, monkeypatch, capsys):
    (tmp_path / "text.png").write_text("no picture")
    out = tmp_path / "out"
    first = ["project", "--network", network, "--outdir", out]
    for arguments, part in (
        ([*first, "--target", tmp_path / "text.png"], "text.png: got a broken picture"),
        ([*first, "--target", tmp_path / "none.png"], "no such file or folder"),
        ([*first, "--target", faces, "--distance=pixel+discriminator"], "without a discriminator"),
        ([*first, "--target", faces, "--num-steps=0"], "num_steps: got 0, expected 1 or more (--num-steps)"),
        ([*first, "--target", faces, "--distance=lpips", "--offline"], "expected"),
        ([*first, "--target", faces, "--class=1"], "unconditional"),
        ([*first, "--target", faces, "--save-video=mp4"], None),
    ):
        if part is None:
            monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
            part = 'pip install "styleforge[video]"'
        code, text = call_main(monkeypatch, capsys, *arguments)
        assert code == 1
        assert text.startswith("Error: ") and text.count("\n") == 1
        assert part in text
        assert not out.exists()


def test_projections_of_another_network_are_refused(tmp_path, projections, monkeypatch, capsys):
    other = save_tiny(tmp_path, "non-square")
    archive = projections[0] / "projection.npz"
    for verb in (["generate"], ["mix"], ["video", "--output", tmp_path / "x.gif"]):
        code, text = call_main(monkeypatch, capsys, *verb, "--network", other, "--projected", f"{archive},{archive}")
        assert code == 1 and text.count("\n") == 1
        assert "projection.npz: got" in text and "use the network that the file was made with" in text


def test_a_network_that_is_still_growing_is_refused(tmp_path, faces, monkeypatch, capsys):
    path = tmp_path / "growing.safetensors"
    checkpoint.save(path, G_ema=tiny_generator("config-a"), info={"lod": 1.5})
    for command in (["project"], ["attribute", "--real", faces], ["evaluate-inversion", "--real", faces]):
        images_flag = ["--target", faces] if command == ["project"] else []
        arguments = [*command, "--network", path, *images_flag, "--outdir", tmp_path / "out"]
        code, text = call_main(monkeypatch, capsys, *arguments)
        assert code == 1 and text.count("\n") == 1
        assert "got a network that has grown to level of detail 1.5, expected one of full size" in text
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "arguments", "part"),
    [
        (project, ["x.png", "--prior-weight=1"], "expected --prior gaussian with it"),
        (project, ["x.png", "--restart-above=0.1"], "expected --restarts with it"),
        (project, [], "expected pictures to project, such as --target face.png"),
        (mix, [], "expected one of --rows and --projected"),
        (mix, ["--rows=1", "--projected=x.npz"], "expected one of --rows and --projected"),
        (mix, ["--rows=1"], "expected --cols with --rows"),
        (mix, ["--projected=x.npz", "--trunc=0.5"], "expected neither --class nor --trunc without --cols"),
    ],
)
def test_flags_that_do_not_fit_are_a_usage_error(network, command, arguments, part):
    result = run(command, "--network", network, *arguments)
    assert result.exit_code == 2
    assert part in " ".join(result.output.split())


def test_what_is_finished_stays_when_the_command_is_interrupted(tmp_path, network, faces, monkeypatch):
    from styleforge.inversion import search

    calls = []

    def stop(self, *arguments):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return original(self, *arguments)

    original = search.Search.run
    monkeypatch.setattr(search.Search, "run", stop)
    result = run(project, "--network", network, faces, *QUICK, "--batch=1", "--outdir", tmp_path / "out")
    assert result.exit_code != 0
    assert "Wrote 1 of 2 projections" in result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", "results.json", "grid.png"}


def test_the_prior_is_fitted_once(tmp_path, network, faces, monkeypatch):
    command = [project, "--network", network, faces / "a.png", *QUICK, "--prior=gaussian", "--outdir", tmp_path / "out"]
    made(*command)
    monkeypatch.setattr(GaussianLatents, "fit", None)
    made(*command)


def test_help_has_groups_and_examples():
    text = run(project, "--help").output
    for part in ("Model:", "Pictures:", "Search:", "Distance:", "Output:", "Examples:", "--prior", "--space"):
        assert part in text


def test_what_was_found_moves_along_a_direction(tmp_path, network, faces):
    G = tiny_generator()
    find_directions(G, num=2, num_samples=500).save(tmp_path / "d.safetensors")
    out = tmp_path / "out"
    arguments = ["--network", network, faces / "a.png", *QUICK, "--outdir", out]
    made(project, *arguments, "--direction", f"{tmp_path / 'd.safetensors'}:1", "--strength=-2:2:2")
    strip = pixels(out / "a" / "edited.png")
    assert strip.shape == (16, 48, 3)
    np.testing.assert_array_equal(strip[:, 16:32], pixels(out / "a" / "projection.png"))
    arguments = ["--projected", out / "a" / "projection.npz", "--outdir", tmp_path / "moved", "--strength=2"]
    made(generate, "--network", network, *arguments, "--direction", f"{tmp_path / 'd.safetensors'}:1")
    (picture,) = [path for path in (tmp_path / "moved").glob("*.png") if path.name != "grid.png"]
    np.testing.assert_array_equal(strip[:, 32:], pixels(picture))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["--strength=1:2"], "--direction FILE"), (["--direction=gone.safetensors"], "there is no such file")],
)
def test_a_direction_that_is_not_there_is_said_before_any_work(tmp_path, network, faces, arguments, part):
    result = run(project, "--network", network, faces / "a.png", *QUICK, "--outdir", tmp_path / "out", *arguments)
    assert result.exit_code != 0 and part in f"{result.output}{result.exception}"
    assert not (tmp_path / "out").exists()
