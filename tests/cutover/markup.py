"""A page as the standard library's parser reads it, so that a test asks for elements and not for strings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parts: list[Element | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        """Yield the element and all below it, in the order of the document."""
        yield self
        for part in self.parts:
            if isinstance(part, Element):
                yield from part

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Return the elements of a tag below it; `class_` names one of several classes."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [each for each in self if each.tag == tag and all(each.has(*pair) for pair in wanted.items())]

    def one(self, tag: str, **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found

    def has(self, name: str, value: str) -> bool:
        actual = self.attributes.get(name) or ""
        return value in actual.split() if name == "class" else actual == value

    @property
    def text(self) -> str:
        """What it says, blanks folded."""
        return " ".join(self.whole.split())

    @property
    def whole(self) -> str:
        return "".join(part if isinstance(part, str) else part.whole for part in self.parts)


class Reader(HTMLParser):
    """Builds the elements of a document; one that is closed wrongly or never fails the test."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attrs))
        self.open[-1].parts.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def read(source: str) -> Element:
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert [each.tag for each in reader.open] == ["document"]
    return reader.root
