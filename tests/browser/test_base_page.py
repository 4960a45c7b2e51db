"""The base of every page: it is whole, accessible in both themes, and JavaScript reads what Python packs."""

import jinja2
import numpy as np
import pytest

from motion_jax.inspection.pages import page as pages

TEMPLATE = """{% extends "base.html.j2" %}
{% block title %}Base{% endblock %}
{% block heading %}<p class="above">above</p><h1>Heading</h1><p class="lead">{{ text }}</p>{% endblock %}
{% block contents %}<a href="#one">One</a>{% endblock %}
{% block body %}<section id="one" aria-labelledby="h"><h2 id="h">One</h2>
<p>Text with <a href="#main">a link</a>, <code>code</code>, <b class="right">right</b>,
<b class="wrong">wrong</b>.</p>
<p class="note">Note</p><button type="button" aria-pressed="true">Pressed</button>
<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>
<thead><tr><th>Name<th class="number">Value</thead>
<tbody><tr><th scope="row">a<td class="number">1</tbody></table></div></section>{% endblock %}
{% block script %}<script type="application/json" id="data">{{ data | tojson }}</script>{% endblock %}
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    loader = jinja2.ChoiceLoader([jinja2.DictLoader({"x.j2": TEMPLATE}), jinja2.FileSystemLoader(pages._FOLDER)])
    monkeypatch.setattr(jinja2, "FileSystemLoader", lambda folder: loader)

    def write(**values):
        path = tmp_path / "base.html"
        path.write_text(pages.render("x.j2", **{"text": "Lead", "data": {}, **values}))
        return path

    return write


def test_text_is_escaped_and_missing_values_are_errors(base):
    text = base(text="<script>alert(1)</script>", data={"a": "</script>"}).read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert text.count("</script>") == 2
    with pytest.raises(jinja2.UndefinedError):
        pages.render("x.j2", data={})


def test_names_that_are_not_utf8_and_numbers_that_are_not_finite(base):
    assert "caf?.avi" in base(text="caf\udce9.avi").read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        base(data={"loss": float("nan")})


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"the array is bool: convert it to one of uint8"):
        pages.packed(np.zeros(3, bool))


@pytest.mark.long
def test_javascript_reads_packed_arrays(base, open_page, rng):
    arrays = [
        rng.integers(0, 200, (2, 3, 4)).astype(name)
        for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
    ]
    arrays += [np.float32(1.5), rng.standard_normal((0, 2)), rng.standard_normal((5, 2)).astype(">f4")[::2]]
    page = open_page(base(data=[pages.packed(array) for array in arrays]))
    code = """async () => Promise.all(JSON.parse(document.getElementById("data").textContent).map(async (text) => {
        const {dtype, shape, data} = await unpack(text); return {dtype, shape, data: Array.from(data)}; }))"""
    for read, array in zip(page.evaluate(code), arrays, strict=True):
        assert read == {"dtype": array.dtype.name, "shape": list(array.shape), "data": array.ravel().tolist()}


@pytest.mark.long
def test_the_button_switches_the_theme(base, open_page):
    page = open_page(base(), dark=True)
    colour = "getComputedStyle(document.body).backgroundColor"
    dark, named = page.evaluate(colour), page.evaluate("rgb('--paper')")
    assert dark == f"rgb({', '.join(map(str, named))})"
    page.evaluate("onTheme(() => { window.seen = true; })")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("window.seen")
    assert page.evaluate(colour) != dark


@pytest.mark.long
def test_the_base_is_accessible_and_fits_a_phone(base, violations, screenshots):
    assert violations(base()) == []
    assert len(screenshots(base())) == 4
