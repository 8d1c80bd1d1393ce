import json

import pytest
from click.testing import CliRunner

from styleforge.cli.summary import summarize, summary
from styleforge.networks import GeneratorConfig, network_preset, preset_names


def run(*arguments):
    result = CliRunner().invoke(summary, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_config_f_at_1024_has_the_papers_numbers():
    out = run("--cfg=config-f", "--resolution=1024")
    for part in ("30,370,060", "29,012,513", "[N, 18, 512]", "[N, 32, 1024, 1024]", "[N, 1]", "synthesis.b1024"):
        assert part in out


@pytest.mark.parametrize("name", ["config-a", "config-d", "config-e", "config-e-gresnet-dskip"])
def test_rows_add_up_to_the_networks(name):
    G, D = network_preset(name, (96, 64), c_dim=3)
    rows = summarize(G, D)
    import torch

    from styleforge.networks import Discriminator, Generator

    with torch.device("meta"):
        networks = {"G": Generator(G), "D": Discriminator(D)}
    for key, network in networks.items():
        assert sum(row.parameters for row in rows[key]) == sum(p.numel() for p in network.parameters())
        assert all(network.get_submodule(row.name) for row in rows[key])
    assert [row.name for row in rows["G"]] == ["mapping", *(f"synthesis.b{6 << i}x{4 << i}" for i in range(5))]
    assert [row.output for row in rows["G"][1:]] == [(c, 6 << i, 4 << i) for i, c in enumerate(G.channels)]
    assert rows["G"][0].output == (G.num_ws, 512) and rows["D"][-1].output == (1,)
    assert [row.size for row in rows["D"]] == [row.size for row in rows["G"][:0:-1]]


def test_json_holds_configs_blocks_and_totals():
    out = json.loads(run("--cfg=config-e", "--resolution=512x384", "--channels=4", "--c-dim=10", "--json"))
    assert out["cfg"] == "config-e"
    G, D = network_preset("config-e", (384, 512), img_channels=4, c_dim=10)
    assert out["G"]["config"] == G.to_dict() and out["D"]["config"] == D.to_dict()
    assert GeneratorConfig.from_dict(out["G"]["config"]) == G
    for network in (out["G"], out["D"]):
        assert network["parameters"] == sum(block["parameters"] for block in network["blocks"])


def test_widths_can_be_changed():
    out = json.loads(run("--resolution=64", "--cbase=1024", "--cmax=32", "--json"))
    assert [block["channels"] for block in out["G"]["blocks"][1:]] == [32, 32, 32, 32, 16]
    assert [block["channels"] for block in out["D"]["blocks"]] == [16, 32, 32, 32, 32]


def test_the_list_holds_every_preset():
    out = run("--list")
    assert all(f" {name} " in out for name in preset_names())


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--cfg=config-q"], ["'config-q'", "config-a"]),
        (["--resolution=100"], ["100×100", "96×96"]),
        (["--channels=17"], ["img_channels", "17"]),
        (["--cbase=8"], ["channel_base", "8", "1024 or more"]),
    ],
)
def test_bad_values_are_refused(arguments, parts, refuses):
    with refuses(*parts):
        run(*arguments)


@pytest.mark.parametrize("text", ["abc", "0", "64x", "64x0", "-64", "6.4"])
def test_what_is_no_resolution_is_a_usage_error(text):
    result = CliRunner().invoke(summary, [f"--resolution={text}"])
    assert result.exit_code == 2 and "--resolution" in result.output and "512x384" in result.output


@pytest.mark.parametrize("argument", ["--cbase=0", "--cmax=-1"])
def test_a_width_below_1_is_a_usage_error(argument):
    result = CliRunner().invoke(summary, [argument])
    assert result.exit_code == 2 and argument.partition("=")[0] in result.output
