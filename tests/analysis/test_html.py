from html.parser import HTMLParser

from PIL import Image

from styleforge.analysis.html import Section, write_page


class Reader(HTMLParser):
    """Collects tags and texts, and fails on tags that are not closed in order."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert not reader.open
    return reader


def test_a_page_holds_everything_and_asks_for_nothing(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(picture)
    sections = [
        Section(name="one", title="One", question="Why?", summary="So.", pictures=[picture], numbers={"x": [1, 2]}),
        Section(name="two", title="Two", question="What?", absent="Nothing."),
    ]
    path = write_page(tmp_path / "page.html", "Title", {"network": "demo"}, sections)
    picture.unlink()
    reader = read(path)
    for text in ("Title", "demo", "One", "Why?", "So.", "Two", "Nothing."):
        assert text in reader.texts
    (image,) = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert image.startswith("data:image/png;base64,")
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert links == ["#one", "#two"]
    assert not [tag for tag, _ in reader.tags if tag in ("script", "link", "iframe")]


def test_texts_cannot_become_markup(tmp_path):
    hostile = '<script>alert("x")</script> & "quotes"'
    section = Section(name="a", title=hostile, question=hostile, summary=hostile, numbers={"x": hostile})
    reader = read(write_page(tmp_path / "page.html", hostile, {hostile: hostile}, [section]))
    assert not [tag for tag, _ in reader.tags if tag == "script"]
    assert hostile in reader.texts
