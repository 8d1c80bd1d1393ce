import io
import sys

import torch

from styleforge.training import console as module
from styleforge.training.console import Console, memory_gb


def test_memory_of_this_process_is_measured():
    cpu, gpu = memory_gb(torch.device("cpu"))
    assert 0.05 < cpu < 100
    assert gpu == 0


def test_memory_is_not_measured_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_gb(torch.device("cpu")) == (0, 0)


def test_lines_are_printed_and_logged(tmp_path, capsys):
    for lines in (["one", "two"], ["three"]):
        console = Console(tmp_path / "log.txt")
        for line in lines:
            console.say(line)
        console.close()
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\nthree\n"


def test_a_quiet_console_logs_and_prints_nothing(tmp_path, capsys):
    console = Console(tmp_path / "log.txt", quiet=True)
    console.say("one")
    console.progress(1, 2, 3.0, "")
    console.close()
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "log.txt").read_text() == "one\n"


def test_other_ranks_neither_print_nor_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module.dist, "rank", lambda: 1)
    console = Console(tmp_path / "log.txt")
    console.say("one")
    console.close()
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "log.txt").exists()


def test_a_file_gets_no_live_line(capsys):
    console = Console()
    console.progress(500, 1000, 25.0, "")
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """An error stream that says that it is a terminal."""

    def isatty(self):
        return True


def use_terminal(monkeypatch):
    """Puts a terminal in the error stream's place; no fixture, since pytest has streams of its own for those."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_terminal_gets_a_live_line_that_gives_way_to_others(capsys, monkeypatch):
    terminal = use_terminal(monkeypatch)
    console = Console()
    console.progress(500, 2000, 25.0, "lod 1.50")
    console.say("tick")
    console.close()
    assert capsys.readouterr().out == "tick\n"
    _, line, blank, _ = terminal.getvalue().split("\r")
    for part in ("0.5/2 kimg", "25.0 img/s", "1m 00s left", "lod 1.50", "█████░"):
        assert part in line
    assert blank == " " * len(line)


def test_the_live_line_is_written_at_most_four_times_a_second(monkeypatch):
    terminal = use_terminal(monkeypatch)
    console = Console()
    for step in range(100):
        monkeypatch.setattr(module.time, "perf_counter", lambda step=step: 100 + step / 100)
        console.progress(step, 100, 1.0, "")
    assert terminal.getvalue().count("\r") == 4


def test_a_shorter_live_line_covers_the_longer_one(monkeypatch):
    terminal = use_terminal(monkeypatch)
    console = Console()
    for text in ("a long text", "short"):
        console.live_time = 0
        console.progress(1, 2, 1.0, text)
    first, second = terminal.getvalue().split("\r")[1:]
    assert len(second) == len(first)
