import json

from PIL import Image

from styleforge.metrics import Measurement, sweep


def measured(psi):
    shared = {
        "num_generated": 10, "num_real": 10, "seed": 0, "extractor": "x", "extractor_checksum": "", "resize": "none",
        "truncation_psi": psi, "transform": "", "lod": 0.0, "mirror": False, "seconds": 0.0,
    }  # fmt: skip
    return [
        Measurement(metric="fid1k", results={"fid1k": 10 - psi}, **shared),
        Measurement(metric="pr1k3@x", results={"pr1k3_precision@x": 1 - psi, "pr1k3_recall@x": psi}, **shared),
    ]


def test_a_sweep_is_a_table_and_a_plot(tmp_path):
    points = [(psi, measured(psi)) for psi in (0.5, 0.75, 1.0)]
    table, picture = sweep.write(points, "trunc", tmp_path)
    lines = json.loads(table.read_text())
    assert [line["trunc"] for line in lines] == [0.5, 0.75, 1.0]
    assert lines[1]["metrics"][1]["results"] == {"pr1k3_precision@x": 0.25, "pr1k3_recall@x": 0.75}
    image = Image.open(picture)
    assert picture.name == "sweep-trunc.png" and image.width > 1.5 * image.height / 2  # three metrics, and P over R
