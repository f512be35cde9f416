"""A report as tests read it: its text, its tags, and the checks that hold for every page."""

import re
from html.parser import HTMLParser

from gridsight.core.run import RunFolder
from gridsight.reporting.contents import load
from gridsight.reporting.page import render


class Page(HTMLParser):
    """Tags with their attributes, and the text without them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page(run: RunFolder) -> Page:
    """The page, after the checks that hold for every page: nothing runs, nothing is loaded, no id is missing."""
    html = render(load(run))
    found = Page(html)
    ids = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    for tag, attributes in found.tags:
        assert tag not in ("script", "iframe", "object", "embed", "link", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            if value is not None:
                assert value.startswith("data:image/png;base64,") or value.removeprefix("#") in ids, (tag, value)
        for used in re.findall(r"url\(#([^)]*)\)", " ".join(str(value) for value in attributes.values())):
            assert used in ids
    assert "http://" not in html and "https://" not in html and "@import" not in html
    assert len([1 for tag, _ in found.tags if tag == "svg"]) == html.count("</svg>")
    return found
