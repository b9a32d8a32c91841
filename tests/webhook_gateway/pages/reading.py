"""A page as a browser reads it: elements with their attributes, and the text between them."""

from __future__ import annotations

from html.parser import HTMLParser


class Read(HTMLParser):
    """``elements``: tags with their attributes; ``title``, ``text``: what a person sees, spaces as one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._said: list[str] = []
        self.title = ""
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self._said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "title" and not self.title:
            self.title = data
        self._said.append(data)

    def of(self, tag: str, attribute: str) -> list[str]:
        """The values of the attribute, of those elements that have it."""
        return [attributes[attribute] for name, attributes in self.elements if name == tag and attribute in attributes]

    @property
    def buttons(self) -> list[str]:
        """Where what changes something is sent, but for signing out."""
        forms = (
            attributes for tag, attributes in self.elements if tag == "form" and attributes.get("method") == "post"
        )
        return [attributes["action"] for attributes in forms if attributes["action"] != "/logout"]
