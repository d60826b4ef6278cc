"""The language reference that ships inside CPython, as running text: needs no download."""

from __future__ import annotations

from datamodules.text.text import TextDataModule


class PyDocs(TextDataModule):
    """`data=pydocs`: the topics that `help("for")` and its like print, one after the other in the order of their names.

    A topic often repeats paragraphs of others (of Python 3.11's 464,970 characters a fifth); a paragraph that stood
    before is left out, so that the stretches share as little as those of any book. The text differs a little from one
    version of Python to the next, and so does its vocabulary.

    Source: `pydoc_data.topics` of the running Python; © Python Software Foundation.
    """

    @property
    def title(self) -> str:
        return "the language reference"

    def read_text(self) -> str:
        from pydoc_data.topics import topics

        seen: set[str] = set()
        paragraphs = []
        for name in sorted(topics):
            for paragraph in topics[name].split("\n\n"):
                words = " ".join(paragraph.split())
                if words and words not in seen:
                    seen.add(words)
                    paragraphs.append(paragraph.strip("\n"))
        return "\n\n".join(paragraphs) + "\n"
