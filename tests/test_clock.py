import pytest

from styleforge.clock import format_time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (612, "10m 12s"),
        (3599.9, "1h 00m 00s"),
        (3661, "1h 01m 01s"),
        (86399, "23h 59m 59s"),
        (90061, "1d 01h 01m"),
        (8_640_000, "100d 00h 00m"),
    ],
)
def test_times_are_written_as_the_field_does(seconds, text):
    assert format_time(seconds) == text
