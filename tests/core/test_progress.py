from diptych.core import progress


def test_track_yields_everything_and_reports_without_a_terminal(capsys):
    assert list(progress.track(range(3), "work", every_s=0.0)) == [0, 1, 2]
    assert "work: 3 of 3" in capsys.readouterr().err


def test_say_reaches_standard_error(capsys):
    progress.say("[not markup]")
    assert "[not markup]" in capsys.readouterr().err
