import json

import numpy as np
import pytest
from tiny_generators import tiny_generator

from styleforge.analysis.factor_reader import ReaderConfig
from styleforge.analysis.phase import PhaseReport, following, phase_report
from styleforge.analysis.phase_reader import PARTS, PLANTED, PhaseReader, Poses
from styleforge.data.portraits import LOOSE
from styleforge.latents import generate_ws


def poses(share=1.0, noise=0.0, num=400, seed=0):
    """Parts that turn by a share of the head's yaw, and some degrees of their own."""
    draws = np.random.default_rng(seed)
    head = draws.uniform(-26, 26, num)
    yaw = np.stack([head] + [share * head + noise * draws.standard_normal(num) for _ in LOOSE], axis=1)
    return Poses(yaw, draws.uniform(0, 1, num))


def report(share, noise):
    drawn = {planted: {part: following(poses(planted, 1.5, seed=1), part) for part in LOOSE} for planted in PLANTED}
    mine = poses(share, noise)
    return PhaseReport(generated={part: following(mine, part) for part in LOOSE}, drawn=drawn, poses=mine)


def test_the_slope_is_numpys_fit():
    measured = poses(0.7, 3)
    for part in ("eyes", "mouth"):
        x, y = measured.yaw[:, 0], measured.yaw[:, PARTS.index(part)]
        (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
        one = following(measured, part)
        assert one.slope == pytest.approx(slope) and one.error == pytest.approx(covariance[0, 0] ** 0.5, rel=0.01)
        assert one.correlation == pytest.approx(np.corrcoef(x, y)[0, 1]) and one.num == 400
        assert one.spread == pytest.approx(y.std() / x.std()) and one.residual == pytest.approx(3, rel=0.1)


def test_teeth_count_where_they_show():
    measured = poses(1.0)
    hidden = measured.teeth < 0.2
    measured.yaw[hidden, PARTS.index("teeth")] = 99
    teeth = following(measured, "teeth")
    assert teeth.slope == pytest.approx(1) and teeth.num == int((~hidden).sum())


@pytest.mark.parametrize(
    ("share", "noise", "verdict"), [(1, 1.5, "follows"), (0.95, 2, "follows"), (0.5, 2, "lags"), (0, 2, "lags")]
)
def test_parts_that_are_stuck_are_told_from_those_that_follow(share, noise, verdict):
    assert {report(share, noise).verdict(part) for part in LOOSE} == {verdict}


def test_parts_that_turn_as_far_but_at_other_times_are_loose():
    assert {report(0.7, 11).verdict(part) for part in LOOSE} == {"loose"}


def test_too_few_readable_pictures_are_refused(refuses):
    with refuses("teeth", "--num"):
        following(Poses(np.zeros((5, 4)), np.zeros(5)), "teeth")
    with refuses("eyes"):
        following(Poses(np.zeros((5, 4)), np.ones(5)), "eyes")  # no head turns


def test_a_report_is_written(tmp_path):
    one = report(0.5, 2)
    files = one.write(tmp_path, {"num": 400})
    values = json.loads(files[0].read_text())
    assert values["summary"] == one.summary() and "(lags)" in values["summary"]
    assert values["generated"]["eyes"]["slope"] == one.generated["eyes"].slope
    assert list(values["drawn"]) == ["1", "0.75", "0.5", "0"]
    assert files[1].stat().st_size > 1000


def test_pictures_of_a_generator_are_read():
    reader = PhaseReader.train(ReaderConfig(size=(16, 16), num_portraits=60, num_held_out=80, epochs=1))
    reader.held_out = [(true, poses(share)) for share, (true, _) in zip(PLANTED, reader.held_out, strict=True)]
    G, calls = tiny_generator(), []
    ws = generate_ws(G, range(20))
    before = G.synthesis(ws, noise_mode="const")
    reader.network[-1].bias[len(PARTS)] += 1  # so that teeth show
    one = phase_report(G, ws, batch=8, reader=reader, progress=lambda *call: calls.append(call))
    assert calls == [(8, 20), (16, 20), (20, 20)] and one.poses.yaw.shape == (20, len(PARTS))
    assert (G.synthesis(ws, noise_mode="const") == before).all()


def test_a_network_without_colours_is_refused(refuses):
    G = tiny_generator("gray")
    with refuses("1-channel"):
        phase_report(G, generate_ws(G, range(3)))
