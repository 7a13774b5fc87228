"""What is read back out of RESULTS.md, and the page that is written from it."""

import pytest
from benchmarks.figures import Comparison, Series
from benchmarks.record import Result
from benchmarks.recorded import NotMeasured, last_row, median, newest, value

from benchmarks import billion_pairs


def results(path, scale=1.0):
    """A RESULTS.md of made-up rates."""
    cpu = "CPU s per 1,000"

    def low(what, side, number):
        return Comparison(
            what, (Series(side, (number * scale, number * scale * 3, number * scale * 2), cpu, lower=True),)
        )

    collect = Result("collect_rates", [low("long side at 256: CPU s per 1,000", "diptych, 256", 1.0)])
    collect.comparisons.append(low("pack what was fetched: CPU s per 1,000", "diptych, 256", 0.5))
    filters = Result("filter_rates")
    for what in ("blurry, dark, light, low information", "near duplicates (hashes of 64 bits)"):
        filters.comparisons.append(
            Comparison(what, (Series("diptych", (900.0, 1000.0, 1100.0), "records/s/core"),), ())
        )
    memory = Result("curation_memory")
    memory.body = (
        "| curation | records | peak MB | bytes a record more | seconds | CPU s per 1,000 records |\n"
        "|--|--|--|--|--|--|\n"
        + "".join(
            f"| {name} | {n} | {peak} | {more} | 10.0 | 0.200 |\n"
            for name in ("words", "exact", "balance", "settle")
            for n, peak, more in (("10,000", "500", ""), ("1,000,000", "618.8", "120"))
        )
    )
    path.write_text("# Results\n" + "".join("\n" + r.markdown() for r in (collect, filters, memory)))
    return path


def test_the_newest_run_counts(tmp_path):
    path = results(tmp_path / "RESULTS.md")
    old = path.read_text()
    results(path, 2.0)
    path.write_text(old + path.read_text().removeprefix("# Results\n"))
    assert median("collect_rates", "long side at 256: CPU s per 1,000", "diptych, 256", path) == 4.0
    assert last_row("curation_memory", "exact", path)["bytes a record more"] == "120"
    assert newest("filter_rates", path)[0].endswith("UTC")
    assert value("1,129 MB") == 1129


def test_what_was_not_measured_is_named_with_what_to_run(tmp_path, monkeypatch, capsys):
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n")
    with pytest.raises(NotMeasured, match="make bench-collect_rates"):
        median("collect_rates", "x", "y", path)
    results(path)
    with pytest.raises(NotMeasured, match="'x' of y"):
        median("collect_rates", "x", "y", path)
    with pytest.raises(NotMeasured, match="'x'"):
        last_row("curation_memory", "x", path)
    monkeypatch.setattr("sys.argv", ["billion_pairs", "--results", str(tmp_path / "none.md")])
    with pytest.raises(SystemExit):
        billion_pairs.main()
    assert "it holds none" in capsys.readouterr().err


def test_the_page_is_written_between_its_marks(tmp_path, monkeypatch, capsys):
    path, page = results(tmp_path / "RESULTS.md"), tmp_path / "page.md"
    begin, end = billion_pairs.MARKS
    page.write_text(f"before\n\n{begin}\n\nold\n\n{end}\n\nafter\n")
    monkeypatch.setattr("sys.argv", ["billion_pairs", "--results", str(path), "--write", str(page)])
    billion_pairs.main()
    said = page.read_text()
    assert said.startswith(f"before\n\n{begin}\n\n1 billion pairs from 2 billion links")
    assert said.endswith(f"{end}\n\nafter\n")
    assert "old" not in said
    # 2 s (the median) per 1,000 of two billion links
    assert f"{2 * 2e9 / 1000 / 3600:,.0f}" in said
    assert "72 GB" in said  # 120 bytes of 600 million
    billion_pairs.main()
    assert page.read_text() == said


def test_the_page_of_the_docs_has_the_marks():
    page = (billion_pairs.RESULTS.parents[1] / "docs/explanation/a-billion-pairs.md").read_text()
    assert all(page.count(mark) == 1 for mark in billion_pairs.MARKS)
