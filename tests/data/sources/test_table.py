"""Tables as people write them: other encodings, other marks, missing quotes."""

import json
from pathlib import Path

import pytest

from diptych.core.errors import DataError
from diptych.core.record import Record
from diptych.data.judge import Limits, judge
from diptych.data.sources.source import Reject, open_source
from diptych.data.sources.table import TableConfig
from tests.data.pictures import png


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(png(i))


def read(tmp_path: Path, content: str | bytes, name: str = "t.csv", **options: object) -> list[Record | Reject]:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(TableConfig(path=str(tmp_path / name), **options).build().records())


def words(items: list[Record | Reject]) -> list[tuple[str, ...] | str]:
    return [i.reason if isinstance(i, Reject) else i.segments[1].texts for i in items]


def test_plain(tmp_path: Path) -> None:
    got = read(tmp_path, 'Image_Path, Caption,n\n0.png,"a, ""b""",3\n1.png,c,4\n')
    assert words(got) == [('a, "b"',), ("c",)]
    first = got[0]
    assert isinstance(first, Record)
    assert (first.key, first.segments[0].data, first.meta) == ("000000001", png(0), {"n": "3", "image": "0.png"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_mark_themselves(tmp_path: Path, encoding: str) -> None:
    assert words(read(tmp_path, "image,caption\n0.png,café 日本\n".encode(encoding))) == [("café 日本",)]


def test_another_encoding_is_rejected_by_row_until_named(tmp_path: Path) -> None:
    data = "image,caption\n0.png,plain\n1.png,café\n".encode("cp1252")
    got = read(tmp_path, data)
    assert isinstance(got[1], Record)
    verdict = judge(got[1], Limits())
    assert isinstance(verdict, Reject)
    assert verdict.reason == "bad_text"
    assert "encoding" in verdict.message
    assert words(read(tmp_path, data, encoding="cp1252")) == [("plain",), ("café",)]
    with pytest.raises(DataError, match="one that Python knows"):
        read(tmp_path, data, encoding="klingon")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_marks_are_found(tmp_path: Path, mark: str) -> None:
    assert words(read(tmp_path, f"image{mark}caption\n0.png{mark}words\n")) == [("words",)]


def test_an_unclosed_quote_costs_its_own_row_only(tmp_path: Path) -> None:
    rows = ['0.png,"never closed', "1.png,fine", '2.png,"two\nlines"', "3.png,fine too", '4.png,"open at the end']
    got = read(tmp_path, "image,caption\n" + "\n".join(rows) + "\n")
    assert words(got) == ["bad_row", ("fine",), ("two\nlines",), ("fine too",), "bad_row"]
    assert isinstance(got[0], Reject)
    assert got[0].where.endswith("t.csv line 2")
    assert [i.key for i in got] == [f"{n:09d}" for n in range(1, 6)]


def test_an_unclosed_quote_in_a_long_table(tmp_path: Path) -> None:
    rows = [f"{n % 6}.png,caption {n}" for n in range(1000)]
    rows[100] = '1.png,"open'
    got = read(tmp_path, "image,caption\n" + "\n".join(rows) + "\n")
    assert len(got) == 1000
    assert [n for n, i in enumerate(got) if isinstance(i, Reject)] == [100]


def test_rows_of_the_wrong_length(tmp_path: Path) -> None:
    got = read(tmp_path, 'image,caption\n0.png,a,b\n1.png\n\n2.png,ok\n3.png,5" pipe\n')
    assert words(got) == ["bad_row", "bad_row", ("ok",), ('5" pipe',)]
    assert isinstance(got[0], Reject)
    assert "2 fields; got 3" in got[0].message


def test_bare_quotes_in_tab_separated_text(tmp_path: Path) -> None:
    assert words(read(tmp_path, 'image\tcaption\n0.png\t"odd" quote\n1.png\t"open\n', "t.tsv")) == [
        ('"odd" quote',),
        ('"open',),
    ]


def test_huge_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = "w" * 300_000
    assert words(read(tmp_path, f"image,caption\n0.png,{big}\n")) == [(big,)]
    monkeypatch.setattr("diptych.data.sources.table.MAX_LINE", 1000)
    assert words(read(tmp_path, f"image,caption\n0.png,{big}\n1.png,ok\n")) == ["bad_row", ("ok",)]
    assert words(
        read(tmp_path, f'{{"image": "0.png", "caption": "{big}"}}\n{{"image": "1.png", "caption": "ok"}}\n', "t.jsonl")
    ) == [
        "bad_row",
        ("ok",),
    ]


def test_links_and_lost_files_are_named(tmp_path: Path) -> None:
    lines = [
        "image,caption",
        "http://x.y/a.jpg,a",
        "s3://b/c.png,b",
        "gone.png,c",
        ",d",
        str(tmp_path / "0.png") + ",e",
    ]
    assert words(read(tmp_path, "\n".join(lines))) == ["is_url", "is_url", "file_not_found", "no_image", ("e",)]


def test_columns_are_asked_for_where_they_cannot_be_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column of images; got the columns a, b. Name it with image_column"):
        read(tmp_path, "a,b\n0.png,x\n")
    with pytest.raises(DataError, match="column of captions; got the columns image, b"):
        read(tmp_path, "image,b\n0.png,x\n")
    with pytest.raises(DataError, match="got links in 'url'"):
        read(tmp_path, "url,caption\nhttp://a,x\n")
    with pytest.raises(DataError, match="Did you mean 'picture_of'"):
        read(tmp_path, "picture_of,b\n0.png,x\n", image_column="pictureof")
    with pytest.raises(DataError, match="'a' twice"):
        read(tmp_path, "a,a\n1,2\n")
    with pytest.raises(DataError, match="it is empty"):
        read(tmp_path, "")
    assert words(read(tmp_path, "a,b,c\n0.png,x,y\n", image_column="a", caption_column="b, c")) == [("x", "y")]


def test_neighbouring_rows_of_one_image_are_one_record(tmp_path: Path) -> None:
    text = "image,caption\n0.png,a\n0.png,b\n1.png,c\n0.png,d\n"
    assert words(read(tmp_path, text)) == [("a", "b"), ("c",), ("d",)]
    assert len(read(tmp_path, text, merge_rows=False)) == 4


def test_lists_of_captions(tmp_path: Path) -> None:
    assert words(read(tmp_path, 'image,captions\n0.png,"[""a"", ""b""]"\n1.png,[not json]\n')) == [
        ("a", "b"),
        ("[not json]",),
    ]


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        "not json",
        json.dumps({"image": "0.png", "caption": ["a", "b"], "n": 3, "deep": {"x": 1}}),
        "[1]",
        "",
        '{"image": "1.png"}',
    ]
    got = read(tmp_path, "\n".join(lines), "t.jsonl")
    assert words(got[:3]) == ["bad_json", ("a", "b"), "bad_json"]
    assert isinstance(got[1], Record)
    assert got[1].meta == {"n": 3, "image": "0.png"}
    assert len(got) == 4
    with pytest.raises(DataError, match="it holds none"):
        read(tmp_path, "nothing\nhere\n", "t.jsonl")


def test_a_folder_with_its_metadata(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a\n")
    assert words(list(open_source(tmp_path).records())) == [("a",)]


def test_another_root(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "t.csv").write_text("image,caption\n0.png,a\n")
    assert words(list(open_source(tmp_path / "sub" / "t.csv", image_root=str(tmp_path)).records())) == [("a",)]


def test_a_column_that_is_no_unicode_costs_its_row_not_the_pack(tmp_path: Path) -> None:
    data = "image,caption,note\n0.png,plain,x\n1.png,also plain,café\n".encode("latin-1")
    verdicts = [judge(r, Limits()) for r in read(tmp_path, data) if isinstance(r, Record)]
    assert [getattr(v, "reason", "kept") for v in verdicts] == ["kept", "bad_text"]


def test_the_first_row_of_json_may_lack_a_column(tmp_path: Path) -> None:
    lines = ['{"image": "0.png"}', "no json", '{"image": "1.png", "caption": "b"}']
    assert words(read(tmp_path, "\n".join(lines), "t.jsonl")) == [(), "bad_json", ("b",)]
    many = [*['{"image": "0.png"}'] * 20, '{"image": "1.png", "caption": "b"}']
    with pytest.raises(DataError, match="column of captions"):
        read(tmp_path, "\n".join(many), "t.jsonl")


def test_a_named_utf_8_may_carry_its_mark(tmp_path: Path) -> None:
    data = "image;caption\n0.png;a\n".encode("utf-8-sig")
    assert words(read(tmp_path, data, encoding="utf-8")) == [("a",)]


def test_a_colon_in_a_name_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "scan12:30.png").write_bytes(png(9))
    got = words(read(tmp_path, "image,caption\nscan12:30.png,a\ndata:image/png;base64;x,b\n"))
    assert got == [("a",), "is_url"]


def test_flickr30k(tmp_path: Path) -> None:
    (tmp_path / "flickr30k_images").mkdir()
    for i in range(2):
        (tmp_path / f"{i}.png").rename(tmp_path / "flickr30k_images" / f"{i}.png")
    rows = [
        "image_name| comment_number| comment",
        "0.png| 0| Two, young | men .",
        "0.png| 0| Two men .",
        "1.png| 0| X .",
    ]
    rows += ["1.png| 1   A dog runs"]  # as in its row 19,999
    (tmp_path / "results.csv").write_text("\n".join(rows).replace("young | men", "young men"))
    assert words(list(open_source(tmp_path / "results.csv").records())) == [
        ("Two, young men .", "Two men ."),
        ("X .",),
        "bad_row",
    ]


def test_flickr8k(tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "Images" / "0.png")
    (tmp_path / "captions.txt").write_text('image,caption\n0.png,"A child , in pink ."\n0.png,A girl .\n')
    assert words(list(open_source(tmp_path / "captions.txt").records())) == [("A child , in pink .", "A girl .")]


def test_a_missing_folder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the first 2 \('a.png' ...\) in .* image_root=DIR"):
        read(tmp_path, "image,caption\na.png,a\nb.png,b\n")


def test_a_column_beside_is_meta(tmp_path: Path) -> None:
    (record,) = read(tmp_path, "image,caption,label,group\n0.png,a,mug,north\n")
    assert (record.meta["label"], record.meta["group"]) == ("mug", "north")


def test_a_class_is_a_caption_and_stays_a_label(tmp_path: Path) -> None:
    (record,) = read(tmp_path, "image,label\n0.png,mug\n")
    assert (record.segments[1].texts, record.meta["label"]) == (("mug",), "mug")
    (record,) = read(tmp_path, "image,caption\n0.png,mug\n")
    assert "caption" not in record.meta
