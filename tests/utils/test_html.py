"""Pages: plain text is escaped, pictures are embedded."""

import base64
import io

from PIL import Image

from utils.html import definition_list, figure, page, table


def test_plain_text_is_escaped() -> None:
    assert "<title>a &lt; b</title>" in page("a < b", "", "<p>c</p>") and "<p>c</p>" in page(
        "", "", "<p>c</p>"
    )
    assert "<th>x &amp; y</th><td>&lt;1&gt;</td>" in table(["", "n"], [["x & y", "<1>"]])
    assert definition_list({"a": "<b>", "unknown": None}) == "<dl><dt>a</dt><dd>&lt;b&gt;</dd></dl>"


def test_a_figure_holds_its_picture() -> None:
    picture = Image.new("RGB", (5, 3), (10, 200, 30))
    text = figure(picture, "it's <green>", "PNG")
    data = text.partition("base64,")[2].partition("'")[0]
    with Image.open(io.BytesIO(base64.b64decode(data))) as read:
        assert read.size == (5, 3) and read.getpixel((4, 2)) == (10, 200, 30)
    assert "<figcaption>it&#x27;s &lt;green&gt;</figcaption>" in text
