import os
import subprocess
import sys
import types

import click
import pytest

from styleforge import __version__
from styleforge.cli import main as main_module
from styleforge.cli.main import VERBS, cli, main

HEAVY = ["torch", "numpy", "PIL", "rich", "safetensors", "lmdb"]


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("summary", "--list")`` is what the console script does: (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["styleforge", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return exit_info.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def verb(monkeypatch):
    """``verb(error)`` adds a verb ``fail`` that raises it."""

    def add(error):
        @click.command()
        def fail():
            """Raise what the test wants."""
            raise error

        module = types.ModuleType("failing_verb")
        module.fail = fail
        monkeypatch.setitem(sys.modules, "failing_verb", module)
        monkeypatch.setitem(cli.verbs, "fail", ("failing_verb:fail", "Raise what the test wants."))

    monkeypatch.delenv("STYLEFORGE_DEBUG", raising=False)
    return add


def imported_after(code):
    """Which of the heavy modules a fresh interpreter has imported after some lines of code."""
    report = f"\nimport sys; print('imported:', *[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return result.stdout.rsplit("imported:", 1)[1].split()


def test_help_lists_every_verb_and_exits_0(run):
    for option in ("--help", "-h"):
        code, out, err = run(option)
        assert (code, err) == (0, "")
        for name, (_, text) in VERBS.items():
            assert name in out and text.split()[0] in out


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['styleforge', '--help']\nfrom styleforge.cli.main import main\n"
    assert imported_after(code + "try: main()\nexcept SystemExit as exit: assert exit.code == 0") == []


def test_the_help_of_every_verb_imports_no_torch():
    code = f"from styleforge.cli.main import cli\nfor verb in {list(VERBS)!r}: assert cli.get_command(None, verb)"
    assert "torch" not in imported_after(code)


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"styleforge, version {__version__}\n", "")


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_a_command_that_explains_itself(name, run):
    command = cli.get_command(None, name)
    assert isinstance(command, click.Command) and command.help
    code, out, _ = run(name, "--help")
    assert code == 0 and f"{name} " in out.splitlines()[0]


def test_without_a_verb_it_shows_the_help(run):
    code, out, err = run()
    assert code == 2 and "Commands:" in out + err


def test_an_unknown_verb_is_a_usage_error(run):
    code, out, err = run("sumary")
    assert (code, out) == (2, "")
    assert "No such command 'sumary'" in err and "Traceback" not in err


def test_an_unknown_verb_brings_the_nearest_one_to_mind(run):
    assert "Did you mean 'summary'?" in run("sumary")[2]


def test_an_unknown_option_is_a_usage_error(run):
    code, out, err = run("summary", "--resolutoin=64")
    assert (code, out) == (2, "")
    assert "--resolutoin" in err and "--resolution" in err


@pytest.mark.parametrize(
    "error",
    [ValueError("got 3 apples, expected 4; buy one"), FileNotFoundError(2, "No such file or directory", "x.zip")],
    ids=["ValueError", "OSError"],
)
def test_what_a_user_can_mend_is_one_sentence_and_exit_code_1(error, run, verb):
    verb(error)
    code, out, err = run("fail")
    assert (code, out) == (1, "")
    assert err == f"Error: {error}\n"


def test_debugging_shows_the_traceback(monkeypatch, run, verb):
    verb(ValueError("got 3 apples, expected 4"))
    monkeypatch.setenv("STYLEFORGE_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["styleforge", "fail"])
    with pytest.raises(ValueError, match="3 apples"):
        main()


def test_a_bug_is_not_dressed_up_as_a_users_mistake(monkeypatch, verb):
    verb(KeyError("a bug"))
    monkeypatch.setattr(sys, "argv", ["styleforge", "fail"])
    with pytest.raises(KeyError):
        main()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()], ids=["Ctrl-C", "Abort"])
def test_an_interruption_exits_quietly_with_130(error, run, verb):
    verb(error)
    code, _, err = run("fail")
    assert code == 130 and err.strip() == ""


def test_an_exit_code_of_a_command_is_passed_on(run, verb):
    verb(click.exceptions.Exit(3))
    assert run("fail")[0] == 3


def test_a_reader_that_leaves_early_gets_no_traceback():
    arguments = [sys.executable, "-m", main_module.__name__, "--help"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() != 0


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(monkeypatch, before, after):
    monkeypatch.setattr("sys.argv", ["styleforge", "--version"])
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is put back
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    with pytest.raises(SystemExit):
        main()
    assert os.environ["OMP_WAIT_POLICY"] == after
