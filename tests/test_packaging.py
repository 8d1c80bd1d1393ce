import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_every_module_and_the_bundled_model(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("styleforge-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = {path for ending in ("py", "typed", "safetensors") for path in (ROOT / "styleforge").rglob(f"*.{ending}")}
    assert {str(path.relative_to(ROOT)) for path in tracked} <= held
