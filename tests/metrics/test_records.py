import json

from styleforge.metrics import Measurement
from styleforge.metrics.records import record, write


def measurement(**changes):
    values = {
        "metric": "pr1k3", "results": {"pr1k3_precision": 0.5, "pr1k3_recall": 0.25}, "num_generated": 1000,
        "num_real": 900, "seed": 3, "extractor": "vgg16", "extractor_checksum": "ab", "resize": "bilinear-224",
        "truncation_psi": 0.7, "transform": "", "lod": 0.0, "mirror": False, "seconds": 61.0,
    }  # fmt: skip
    return Measurement(**(values | changes))


def test_lines_have_the_fields_keys_and_how_the_number_came_about(tmp_path):
    for psi in (0.7, 1.0):
        (path,) = write([measurement(truncation_psi=psi)], tmp_path / "new", "network-snapshot-000100.safetensors")
    assert path == tmp_path / "new" / "metric-pr1k3.jsonl"
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["results"] == {"pr1k3_precision": 0.5, "pr1k3_recall": 0.25}
    assert (first["metric"], first["num_gpus"], first["snapshot_pkl"]) == (
        "pr1k3",
        1,
        "network-snapshot-000100.safetensors",
    )
    assert (first["total_time"], first["total_time_str"]) == (61.0, "1m 01s")
    assert first["timestamp"] > 1.7e9
    known = {"seed": 3, "num_generated": 1000, "num_real": 900, "extractor": "vgg16", "extractor_checksum": "ab"}
    assert first | known == first and first["resize"] == "bilinear-224"
    assert (first["truncation_psi"], second["truncation_psi"]) == (0.7, 1.0)


def test_who_writes_the_line_may_add_the_snapshot():
    assert record(measurement(), None)["snapshot_pkl"] is None
