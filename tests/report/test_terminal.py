from types import SimpleNamespace

from rich.console import Console

from diptych.report.terminal import estimates_table


def test_the_table_shows_interval_chance_and_skill():
    console = Console(record=True, width=120)
    skilled = SimpleNamespace(value=0.41, low=0.39, high=0.43, chance=0.0005, n=1850, above_chance=True)
    ranks = SimpleNamespace(value=2.0, low=1.0, high=3.0, chance=None, n=10, above_chance=False)
    estimates_table({"t2i_recall_at_1": skilled, "median_rank": ranks}, console)
    text = console.export_text()
    assert "41.0%" in text
    assert "39.0% .. 43.0%" in text
    assert "0.05%" in text
    assert "^" in text
