import json

import pytest
from PIL import Image

from styleforge.training.curves import plot_curves, read_metrics
from styleforge.training.stats import read_stats


def make_run(folder, ticks=3, **metrics):
    folder.mkdir()
    with (folder / "stats.jsonl").open("w") as file:
        for tick in range(ticks):
            stats = {
                "Loss/scores/real": {"num": 4, "mean": 1.0 + tick, "std": 0.1},
                "Loss/scores/fake": {"num": 4, "mean": -1.0 - tick, "std": 0.1},
                "Loss/r1_penalty": {"num": 4, "mean": 0.1 * tick, "std": 0.1},
            }
            file.write(json.dumps({**stats, "cur_nimg": tick * 4000, "timestamp": 0}) + "\n")
    for name, values in metrics.items():
        lines = [
            {"results": {name: value}, "metric": name, "snapshot_pkl": f"network-snapshot-{kimg:06d}.safetensors"}
            for kimg, value in values
        ]
        (folder / f"metric-{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_every_tick_is_read_and_a_line_that_was_cut_off_is_not(tmp_path):
    run = make_run(tmp_path / "run")
    with (run / "stats.jsonl").open("a") as file:
        file.write('{"Loss/G/loss": {"num"')
    assert [line["cur_nimg"] for line in read_stats(run)] == [0, 4000, 8000]


def test_a_metric_is_a_curve_over_kimg_and_the_last_measurement_counts(tmp_path):
    run = make_run(tmp_path / "run", fid5k=[(8, 30.0), (4, 50.0), (4, 40.0)])
    assert read_metrics(run) == {"fid5k": [(4.0, 40.0), (8.0, 30.0)]}


def test_panels_without_numbers_are_left_out(tmp_path):
    run = make_run(tmp_path / "run")
    plot_curves([run], tmp_path / "two.png")
    plot_curves([make_run(tmp_path / "more", fid5k=[(4, 1.0)])], tmp_path / "three.png")
    assert Image.open(tmp_path / "two.png").width < Image.open(tmp_path / "three.png").width


def test_runs_are_drawn_together(tmp_path):
    runs = [make_run(tmp_path / f"run{i}", ticks=2 + i) for i in range(2)]
    plot_curves(runs, tmp_path / "both.png")
    assert Image.open(tmp_path / "both.png").format == "PNG"


def test_what_is_no_run_is_refused(tmp_path, refuses):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="expected a run directory"):
        plot_curves([tmp_path / "empty"], tmp_path / "a.png")
    (tmp_path / "empty" / "stats.jsonl").touch()
    with refuses("stats.jsonl", "first tick"):
        plot_curves([tmp_path / "empty"], tmp_path / "a.png")
    with refuses("5 runs", "1 to 4"):
        plot_curves(["a"] * 5, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
