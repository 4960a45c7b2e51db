"""Rendering of self-contained HTML pages: templates with inline CSS and JavaScript, and arrays packed into text.

A page extends ``base.html.j2`` and fills its blocks: ``title``, ``heading`` (above and with the h1), ``contents``
(links to the sections, optional), ``body``, ``style`` (CSS) and ``script`` (JavaScript, after ``page.js``).
"""

import base64
import pathlib
import zlib
from typing import Any

import cv2
import jinja2
import markupsafe
import numpy as np

_FOLDER = pathlib.Path(__file__).parent
# The typed arrays of JavaScript.
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def render(template: str, **values: Any) -> str:
    """Return the page of a template of this folder, with all text escaped.

    In a template, ``inline(name)`` inserts a CSS or JavaScript file of this folder, and
    ``<script type="application/json" id="data">{{ data | tojson }}</script>`` hands values to JavaScript.

    Bytes of file names that are not UTF-8, which Python holds as lone surrogates, become question marks.

    Raises:
        jinja2.UndefinedError: if the template uses a value that is not given.
        ValueError: if a number for JavaScript is not finite.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["inline"] = inline
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    text = environment.get_template(template).render(**values)
    return text.encode("utf-8", "replace").decode()


def inline(name: str) -> markupsafe.Markup:
    """Return the text of a CSS or JavaScript file of this folder, which a template inserts without escapes."""
    return markupsafe.Markup((_FOLDER / name).read_text(encoding="utf-8"))


def packed(array: np.ndarray) -> str:
    """Return an array as text, ``dtype:shape:base64 of its deflated bytes``; ``unpack`` of page.js reads it.

    >>> packed(np.zeros((2, 3), np.uint8)).rpartition(":")[0]
    'uint8:2,3'

    Raises:
        ValueError: if JavaScript has no typed array of this dtype.
    """
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        raise ValueError(f"the array is {array.dtype.name}: convert it to one of {', '.join(_DTYPES)}")
    content = zlib.compress(array.astype(array.dtype.newbyteorder("<")).tobytes(), 9)
    return f"{array.dtype.name}:{','.join(map(str, array.shape))}:{base64.b64encode(content).decode()}"


def picture_url(picture: np.ndarray, kind: str, *, quality: int | None = None) -> str:
    """Return a picture as a ``data:`` address.

    Args:
        picture: uint8 (h, w, 3) RGB or (h, w, 4) RGBA.
        kind: ``"png"``, ``"jpeg"`` or ``"webp"``.
        quality: from 0 to 100, for JPEG and WebP.
    """
    colours = cv2.COLOR_RGBA2BGRA if picture.shape[-1] == 4 else cv2.COLOR_RGB2BGR
    option = {"jpeg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}.get(kind)
    options = [] if option is None or quality is None else [option, quality]
    _, content = cv2.imencode(f".{kind}", cv2.cvtColor(np.ascontiguousarray(picture), colours), options)
    return data_url(content.tobytes(), kind)


def data_url(content: bytes, kind: str) -> str:
    """Return the bytes of a picture file as a ``data:`` address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
