import json

import pytest
from PIL import Image
from tiny_generators import tiny_generator

from styleforge.metrics.comparison import Row, images_per_sec, write


def test_speed_counts_pictures(monkeypatch):
    G, now = tiny_generator(), iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))  # a second between any two looks at the clock
    assert images_per_sec(G, batch=3, seconds=3.5) == pytest.approx(3 * 3 / 5)


def test_rows_become_a_table_and_bars(tmp_path):
    rows = [
        Row(name=name, measurements=[], images_per_sec=speed, parameters=10**6) for name, speed in (("a", 2), ("b", 3))
    ]
    table, picture = write(rows, tmp_path)
    assert [row["images_per_sec"] for row in json.loads(table.read_text())] == [2, 3]
    assert Image.open(picture).width > 100
    assert rows[0].numbers == {"images/s": 2, "parameters (M)": 1.0}
