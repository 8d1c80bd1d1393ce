import json

import pytest
from click.testing import CliRunner

from styleforge.analysis import speed
from styleforge.cli.bench import bench

SMALL = ("--preset", "config-f", "--resolution", "8", "--cbase", "32", "--cmax", "4", "--batch", "4", "--device", "cpu",
         "--repeats", "1", "--workers", "0")  # fmt: skip


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch):
    monkeypatch.setattr(speed, "_PEAK_SIZE", 4)
    monkeypatch.setattr(speed, "_PEAK_CHANNELS", 8)
    monkeypatch.setattr(speed, "_SEC_ON_END", 0.1)


def test_json_is_one_object_with_the_works_at_its_top():
    result = CliRunner().invoke(bench, [*SMALL, "--json"], catch_exceptions=False)
    values = json.loads(result.stdout)
    for work in ("inference", "g_step", "d_step", "r1", "path_length"):
        assert {"seconds", "gflop", "share_of_peak"} <= set(values[work])
    assert {"train_img_per_sec", "peak_conv_gflops", "device", "dtype"} <= set(values)


def test_the_table_names_every_work_and_rate():
    result = CliRunner().invoke(bench, SMALL, catch_exceptions=False)
    for text in ("path length", "share of peak", "training", "plain convolution", "checkpoint", "start-up"):
        assert text in result.output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--dtype", "float8"], "--dtype"),
        (["--dtype", "float16", "--device", "cpu"], "got float16 on cpu, expected float32 or bfloat16"),
        (["--batch", "0"], "--batch"),
        (["--cbase", "0"], "--cbase"),
        (["--cmax", "-3"], "--cmax"),
        (["--resolution", "many"], "--resolution"),
    ],
)
def test_what_it_cannot_time_is_a_usage_error(arguments, part):
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 2
    assert part in result.output
