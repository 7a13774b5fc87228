"""Links to licences by their SPDX names."""

import pytest

from diptych.data.collect.licences import is_creative_commons, spdx


@pytest.mark.parametrize(
    "link, name",
    [
        ("https://creativecommons.org/licenses/by-sa/4.0/", "CC-BY-SA-4.0"),
        ("http://www.creativecommons.org/licenses/by/2.0", "CC-BY-2.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/3.0/deed.de", "CC-BY-NC-ND-3.0"),
        ("https://creativecommons.org/licenses/by/3.0/us/", "CC-BY-3.0-US"),
        ("https://creativecommons.org/licenses/by/3.0/fr/", "https://creativecommons.org/licenses/by/3.0/fr/"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("/terms.html", "/terms.html"),
        ("https://example.org/creativecommons.org/licenses/by/4.0/", None),
    ],
)
def test_spdx(link: str, name: str | None) -> None:
    assert spdx(link) == (name or link)
    assert is_creative_commons(link) == ("://creativecommons" in link or "www.creative" in link)
