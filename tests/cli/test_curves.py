import json

from click.testing import CliRunner

from styleforge.cli.curves import curves


def test_curves_are_written_beside_the_run_or_where_asked(tmp_path):
    stats = {"Loss/G/loss": {"num": 1, "mean": 1.0, "std": 0.0}, "cur_nimg": 0}
    (tmp_path / "stats.jsonl").write_text(json.dumps(stats) + "\n")
    for arguments, target in (([], tmp_path / "curves.png"), (["--out", str(tmp_path / "b.svg")], tmp_path / "b.svg")):
        result = CliRunner().invoke(curves, [str(tmp_path), *arguments], catch_exceptions=False)
        assert result.output == f"Wrote {target}.\n" and target.stat().st_size > 1000


def test_a_run_is_needed():
    assert CliRunner().invoke(curves, []).exit_code == 2
