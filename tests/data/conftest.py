"""The shared photos."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shared_zip():
    """The 512 shared animal photos."""
    folder = Path(os.environ.get("STYLEFORGE_SHARED", ROOT.parent / "shared"))
    path = folder / "data" / "animals_64_tiny.zip"
    if not path.is_file():
        pytest.skip("shared photos are not here; set STYLEFORGE_SHARED to the folder that holds data/")
    return path
