import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from styleforge.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]


def test_demo_goes_from_nothing_to_pictures(tmp_path):
    options = ["--outdir", str(tmp_path), "--resolution=16", "--num=40", "--minutes=0.02"]
    result = CliRunner().invoke(cli, ["demo", *options])
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "reals-and-fakes.png") as sheet:
        assert sheet.size == (2 * 8 * 16, 4 * 16)
    with Image.open(tmp_path / "walk.gif") as walk:
        assert walk.n_frames == 8 * 15
    (run_dir,) = tmp_path.glob("00000-*")
    assert f"styleforge train --resume {run_dir}" in result.output


@pytest.mark.slow
def test_make_demo_does_what_the_readme_says(tmp_path):
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    subprocess.run(["make", "demo"], cwd=tmp_path / "clone", check=True, env=environment, timeout=900)
    assert (tmp_path / "clone" / "demo" / "walk.gif").exists()
