"""HTML pages that need no other file and no network: pictures are embedded."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

JPEG_QUALITY = 92  # no visible loss at a tenth of the PNG's size

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(title: str, style: str, body: str) -> str:
    """A whole page; `title` is plain text, `style` is CSS, `body` is HTML."""
    return PAGE.format(title=escape(title), style=style, body=body)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; the first column is the row's heading."""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"


def definition_list(facts: Mapping[str, object]) -> str:
    """Name and value of every fact that is known."""
    items = (
        f"<dt>{escape(name)}</dt><dd>{escape(str(fact))}</dd>"
        for name, fact in facts.items()
        if fact is not None
    )
    return f"<dl>{''.join(items)}</dl>"


def figure(image: Image.Image, caption: str, file_format: str = "JPEG") -> str:
    """An embedded picture with its caption."""
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, quality=JPEG_QUALITY, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    source = f"data:image/{file_format.lower()};base64,{data}"
    text = escape(caption)
    return f"<figure><img alt='{text}' src='{source}'><figcaption>{text}</figcaption></figure>"
