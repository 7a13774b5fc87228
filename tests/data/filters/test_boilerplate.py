"""Captions that say nothing, and ones that look like it and do not."""

import pytest

from diptych.data.candidates import CandidatePool
from diptych.data.filters.boilerplate import BoilerplateConfig
from tests.data.curation_pools import packed_pool
from tests.data.filters.judged import judged

SAID = {
    "file_name": [
        *("DSC_0001.JPG", "IMG_20190312_101112", "dscn 4021", "my holiday 3.jpeg", "IMG-2041", "P1010023"),
        *(
            "a3f5c9e1b2d4f6a8c0e2",
            "123e4567-e89b-12d3-a456-426614174000",
            "Screenshot 2021-03-04 at 10.11.12",
            "logo.svg",
        ),
    ],
    "url": ["http://x.y/z.jpg", "www.example.org", "example.com/a/b", "https://a.b/c https://d.e/f"],
    "stock_phrase": [
        "image",
        "Image.",
        "untitled",
        "Untitled 3",
        "  Stock  Photo ",
        "[image]",
        "picture (2)",
        "No title",
        "sans titre",
        "Bild 4",
        "图片12",
    ],
    "page_words": [
        *("Click here for more", "click on the image to enlarge", "Read more about it", "Add to basket", "Buy now!"),
        *("Download in high resolution", "Share this", "Back to top", "Next page", "Loading, please wait...", "Log in"),
        *("© 2011 A. Maker", "All rights reserved.", "Photo by admin", "Image courtesy of NASA", "Source: internet"),
        *("Photo: archive", "PHOTO: Jane Roe / Example Press", "Image: J. Roe", "Photo credits: the town's archive"),
        *("Fig. 3", "Image 3 of 12", "slide 4 / 9", "Posted by admin on 3.4.2011", "cliquez pour agrandir"),
        *("Photo credit: unknown", "Please wait while it loads", "loading more images", "View full size"),
    ],
    "no_letters": ["12345", "!!!", "2019-03-12", "- - -", "★"],
    "": [
        *("a red dog", "stock photo of a dog", "image of the sea", "see www.example.org for a dog", "p 51 mustang"),
        *("dad", "deadbeefdeadbeefdead", "the dog.", "photo 51 by Rosalind Franklin", "犬", "Vol. 2", "DSC"),
        *("click beetle", "a tap", "press release by hand", "read a book", "a shopping basket", "print of a cat"),
        *("download arrow", "next door", "back of a car", "the copyright symbol", "figure of a saint", "page boy"),
        *("image of 3 dogs", "picture frame 3", "zoom lens", "share of the cake", "log cabin", "item of clothing"),
        *("a photo of a dog by the sea", "source of the Nile", "subscribe button", "loading dock at night"),
        *("Press photo of a band", "Picture by the sea", "see full moon rise", "loading pictures onto a truck"),
        *("Photo: children playing in the snow", "Picture: a boat", "Photo: the old mill"),
    ],
}


def test_reasons(tmp_path) -> None:
    texts = [(reason, text) for reason, found in SAID.items() for text in found]
    pool = CandidatePool(packed_pool(tmp_path / "d", [[t] for _, t in texts], per_shard=20))
    said = judged(pool, BoilerplateConfig(), tmp_path / "s")
    assert list(zip(said, (t for _, t in texts), strict=True)) == texts


def test_what_the_pool_repeats(tmp_path) -> None:
    captions = ["A nice day", "a nice  DAY", "a dog", "a nice day", "a dog", "a cat"]
    pool = CandidatePool(packed_pool(tmp_path / "d", [[t] for t in captions], per_shard=4))
    many = "repeated_caption"
    assert judged(pool, BoilerplateConfig(max_count=2), tmp_path / "s") == [many, many, "", many, "", ""]
    assert judged(pool, BoilerplateConfig(max_count=3), tmp_path / "s") == [""] * 6
    assert judged(pool, BoilerplateConfig(max_count=0), tmp_path / "s") == [""] * 6
    left = [True, False, True, True, True, True]
    assert judged(pool, BoilerplateConfig(max_count=2), tmp_path / "s", left) == ["", "gone", "", "", "", ""]


@pytest.mark.parametrize("urls, expected", [("only", ["url", ""]), ("any", ["url", "url"]), ("keep", ["", ""])])
def test_addresses(urls, expected, tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [["https://a.b/c"], ["a dog from https://a.b/c"]]))
    assert judged(pool, BoilerplateConfig(urls=urls), tmp_path / "s") == expected


def test_words_of_ones_own(tmp_path) -> None:
    pool = CandidatePool(packed_pool(tmp_path / "d", [["Clip Art"], ["DSC_0001.JPG"], ["image"]]))
    config = BoilerplateConfig(phrases=("clip art",), file_names=False)
    assert judged(pool, config, tmp_path / "s") == ["stock_phrase", "", ""]


def test_one_caption_that_says_something_is_enough(tmp_path) -> None:
    captions = [
        ["untitled", "a red dog"],
        ["untitled", "IMG_2041.JPG"],
        ["theme", "Theme"],
        ["theme", "a cat"],
        ["dog"],
    ]
    pool = CandidatePool(packed_pool(tmp_path / "d", captions))
    stock, many = "stock_phrase", "repeated_caption"
    assert judged(pool, BoilerplateConfig(max_count=1), tmp_path / "s") == [stock, stock, many, many, ""]
    assert judged(pool, BoilerplateConfig(max_count=1, of="any"), tmp_path / "s") == ["", stock, many, "", ""]
    assert judged(pool, BoilerplateConfig(max_count=2, of="any"), tmp_path / "s") == ["", stock, "", "", ""]
