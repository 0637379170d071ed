"""The page is well-formed, asks for nothing, escapes what it is given, and shows the figures of the diagnosis."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn import (
    Converter,
    Diagnosis,
    ExportError,
    InputError,
    OptionError,
    diagnose,
    export,
    html_report,
    load_network,
)
from sj_ann2snn.report.markup import visible
from sj_ann2snn.report.terms import TERMS
from sj_ann2snn.support.numbers import percent, quantity
from tests.helpers.diagnoses import HOSTILE, LONG, deepened, diagnosed, residual, two_outputs
from tests.helpers.networks import GradedMaker

ALLOWED = {
    *("html", "head", "meta", "title", "link", "style", "body", "header", "main", "nav", "section", "h1", "h2", "h3"),
    *("p", "b", "small", "span", "a", "dl", "div", "dt", "dd", "ul", "ol", "li", "pre", "code", "figure", "figcaption"),
    *("details", "summary", "table", "thead", "tbody", "tfoot", "tr", "th", "td"),
    *("svg", "path", "rect", "circle", "text"),
}
"""The elements of a page; none of them loads anything."""


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    return diagnosed(residual(), neuron=GradedMaker())


@pytest.fixture(scope="module")
def data(found: Diagnosis) -> dict[str, Any]:
    return json.loads(found.to_json(observed=True))  # type: ignore[no-any-return]


def parsed(page: str) -> ElementTree.Element:
    start = "<!DOCTYPE html>\n"
    assert page.startswith(start)
    return ElementTree.fromstring(page.removeprefix(start))


def text_of(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def section(page: ElementTree.Element, anchor: str) -> ElementTree.Element:
    element = page.find(f".//section[@id='{anchor}']")
    assert element is not None
    return element


def rows(element: ElementTree.Element) -> list[list[str]]:
    return [[text_of(cell) for cell in row] for row in element.iter("tr")]


# What it may not do ----------------------------------------------------------------------------------


def test_the_page_asks_for_nothing(found: Diagnosis) -> None:
    page = found.to_html()
    root = parsed(page)
    assert {element.tag for element in root.iter()} <= ALLOWED
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "style", "action", "background", "poster")
            if name == "href":
                assert value.startswith("#") or value == "data:,"
    style = root.find("head/style")
    assert style is not None
    assert style.text is not None
    assert not re.search(r"url\(|@import|@font-face|expression|</", style.text)
    assert "http:" not in page
    assert "https:" not in page


def test_the_policy_allows_the_style_of_the_page_and_nothing_else(found: Diagnosis) -> None:
    root = parsed(found.to_html())
    policy = root.find("head/meta[@http-equiv='Content-Security-Policy']")
    style = root.find("head/style")
    assert policy is not None
    assert style is not None
    allowed = dict(one.strip().split(" ", 1) for one in policy.attrib["content"].split(";"))
    assert allowed.pop("default-src") == "'none'"
    hashed = base64.b64encode(hashlib.sha256((style.text or "").encode()).digest()).decode()
    assert allowed == {
        "style-src": f"'sha256-{hashed}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_names_are_text(found: Diagnosis) -> None:
    page = found.to_html(title="</title><script>")
    root = parsed(page)
    assert HOSTILE in [layer.name for layer in found]
    assert "<script" not in page
    assert text_of(root.find("body/header/h1")) == "</title><script>"  # type: ignore[arg-type]
    names = [text_of(one) for one in root.iter() if one.get("class") == "name"]
    assert visible(HOSTILE) in names
    assert "\\u202e" in visible(HOSTILE)
    assert "\\x07" in visible(HOSTILE)


@pytest.mark.parametrize("name", ["\ud800", "\0", "{}%s{0}", "]]>", "<!--", "", " ", "名前", "🙂"])
def test_any_name(data: dict[str, Any], name: str) -> None:
    text = json.dumps(data).replace(json.dumps(HOSTILE)[1:-1], json.dumps(name)[1:-1])
    page = html_report(json.loads(text))
    parsed(page)
    page.encode("utf-8")


# What it shows ---------------------------------------------------------------------------------------


def test_the_page_is_made_of_plain_data(found: Diagnosis, data: dict[str, Any]) -> None:
    assert html_report(data) == html_report(found) == found.to_html()
    assert data["observed"]["network"] == "Written"
    assert "Diagnosis of Written" in found.to_html()
    assert "observed" not in found.to_dict()


def test_words_first(found: Diagnosis) -> None:
    header = parsed(found.to_html()).find("body/header")
    assert header is not None
    text = text_of(header)
    assert visible(found.verdict)[1:] in text
    assert f"{100 * (found.accuracy or 0):.1f} %" in text
    assert f"ANN {100 * (found.ann_accuracy or 0):.1f} %" in text
    assert percent(found.divergence) in text
    assert quantity(found.spikes) in text
    assert quantity(found.synops) in text


def test_advice_and_calls(found: Diagnosis) -> None:
    element = section(parsed(found.to_html()), "remedies")
    calls = [text_of(one) for one in element.iter("code")]
    assert calls == [one.call for one in found.advice]
    assert all(visible(one.text) in text_of(element) for one in found.advice)


def test_the_answer_over_time(found: Diagnosis) -> None:
    element = section(parsed(found.to_html()), "answer")
    assert rows(element)[1:] == [
        [str(steps), percent(value), f"{100 * found.accuracy_over_time[steps]:.1f} %"]
        for steps, value in found.divergence_over_time.items()
    ]
    pictures = [one.attrib["aria-label"] for one in element.iter("svg")]
    assert len(pictures) == 2
    assert pictures[0].startswith("accuracy: ")
    assert "the ANN has 100.0 %" in pictures[0]


def test_bars_have_the_lengths_of_the_terms(found: Diagnosis) -> None:
    element = section(parsed(found.to_html()), "causes")
    bars = [one for one in element.iter("svg") if one.get("class") == "bar"]
    assert len(bars) == len(found.layers)
    sums = [sum(getattr(layer, name) or 0.0 for name, _, _ in TERMS) for layer in found.worst]
    span = min(2.0, max(*sums, *(layer.error for layer in found)))
    for layer, bar in zip(found.worst, bars, strict=True):
        drawn = {one.attrib["class"]: float(one.attrib["width"].rstrip("%")) for one in bar.iter("rect")}
        for name, _, _ in TERMS:
            assert drawn.get(name, 0.0) == pytest.approx(100 * (getattr(layer, name) or 0.0) / span, abs=0.006)
        assert percent(layer.error) in bar.attrib["aria-label"]


def test_every_layer_has_its_pictures(found: Diagnosis) -> None:
    element = section(parsed(found.to_html()), "neurons")
    labels = [one.attrib["aria-label"] for one in element.iter("svg")]
    neurons = [layer for layer in found if layer.kind == "neuron"]
    assert sum("firing rate against" in one for one in labels) == len(found.layers)
    assert sum("how often which" in one for one in labels) == len(found.layers)
    assert sum("the spikes of" in one for one in labels) == len(neurons)


def test_spikes_in_the_raster(found: Diagnosis) -> None:
    assert found.observed is not None
    raster = found.observed.layers[HOSTILE].raster
    assert raster is not None
    element = section(parsed(found.to_html()), "neurons")
    drawn = next(
        one
        for one in element.iter("svg")
        if visible(HOSTILE) in one.attrib["aria-label"] and "spikes of" in one.attrib["aria-label"]
    )
    marks = sum(one.attrib["d"].count("M") for one in drawn.iter("path") if one.get("class", "").startswith("spikes"))
    assert marks == sum(map(len, raster.times))


def test_spikes_of_both_signs_and_several_sizes(data: dict[str, Any]) -> None:
    changed = copy.deepcopy(data)
    raster = changed["observed"]["layers"][HOSTILE]["raster"]
    raster["times"] = [[1, 2, 3]] * len(raster["times"])
    raster["values"] = [[1.0, 3.0, -2.0]] * len(raster["values"])
    element = section(parsed(html_report(changed)), "neurons")
    marks = {
        one.attrib["class"]: one.attrib["d"].count("M")
        for one in element.iter("path")
        if "spikes" in one.attrib["class"]
    }
    rows_drawn = len(raster["times"])
    assert marks["spikes negative s2"] == rows_drawn
    kinds = [name for name in marks if name.startswith("spikes positive")]
    assert {"spikes positive s1", "spikes positive s3"} <= set(kinds)


def test_costs(found: Diagnosis) -> None:
    element = section(parsed(found.to_html()), "costs")
    every = rows(element)
    place = next(index for index, row in enumerate(every) if "ANN MACs" in row)
    head, *layers, total = every[:place]
    assert head == ["layer", "spikes", "emissions", "synaptic operations", "share"]
    neurons = [layer for layer in found if layer.kind == "neuron"]
    assert [row[1] for row in layers] == [quantity(layer.spikes) for layer in neurons]
    assert [row[3] for row in layers] == [quantity(layer.synops) for layer in neurons]
    assert total[:4] == [
        "all",
        quantity(found.spikes),
        quantity(sum(one.emissions for one in neurons)),
        quantity(found.synops),
    ]
    assert found.costs is not None
    weighted = [one for one in found.costs if one.ann_macs or one.energy]
    assert [row[1] for row in every[place + 1 : -1]] == [quantity(one.ann_macs) for one in weighted]
    assert [row[5] for row in every[place + 1 : -1]] == [quantity(one.energy / 1000) for one in weighted]
    assert every[-1][:3] == ["all", quantity(found.costs.ann_macs), quantity(found.costs.accumulates)]
    assert found.costs.verdict in "".join(element.itertext())
    binary = section(parsed(diagnosed(residual()).to_html()), "costs")
    assert rows(binary)[0] == ["layer", "spikes", "synaptic operations", "share"]


def test_the_network_with_scales_and_rates(found: Diagnosis) -> None:
    element = section(parsed(found.to_html()), "network")
    assert found.observed is not None
    assert len(list(element.iter("circle"))) == len(found.observed.graph)
    shown = {row[-7]: row for row in rows(element) if len(row) >= 7}
    for layer in found:
        if layer.kind == "neuron":
            row = shown[visible(layer.name)]
            assert row[-3] == f"{layer.spikes / layer.neurons / found.T:.3g}"
            assert layer.scale is not None
            assert f"{layer.scale[0]:.3g}" in row[-5]


def test_how_it_was_made() -> None:
    torch.manual_seed(0)
    ann, x = residual(), torch.rand(30, 1, 8, 8)
    converter = Converter([x], mode="99.9%", progress=False)
    found = diagnose(ann, converter(ann), [x], 4, progress=False)
    element = section(parsed(found.to_html(conversion=converter.report)), "made")
    text = text_of(element)
    assert 'Converter(mode="99.9%", dataloader=calibration_loader)(ann)' in text
    assert torch.__version__ in text
    assert converter.report is not None
    assert [row[0] for row in rows(element)[1:]] == [visible(entry.name) for entry in converter.report]
    assert rows(section(parsed(found.to_html()), "made")) == []


# For readers without eyes or with a small screen -----------------------------------------------------


def test_pictures_say_what_they_show_and_tables_have_headings(found: Diagnosis) -> None:
    root = parsed(found.to_html())
    assert root.get("lang") == "en"
    for picture in root.iter("svg"):
        assert picture.get("aria-hidden") == "true" or (picture.get("role") == "img" and picture.get("aria-label"))
    for table in root.iter("table"):
        assert table.find("thead") is not None
        heads = [one for one in table.iter("th") if one.get("class") != "lines"]
        assert all(one.get("scope") in ("row", "col") for one in heads)
    ids = [one.attrib["id"] for one in root.iter() if "id" in one.attrib]
    assert len(ids) == len(set(ids))
    links = {one.attrib["href"].lstrip("#") for one in root.iter("a")}
    assert links <= set(ids)
    levels = [int(one.tag[1]) for one in root.iter() if re.fullmatch("h[1-6]", one.tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_large_network_stays_small_and_readable(data: dict[str, Any]) -> None:
    deep = deepened(data, 150)
    page = html_report(deep)
    assert len(page) < 3_000_000
    root = parsed(page)
    folded = {id(inner) for one in root.iter("details") for inner in one.iter()}
    shown = [one for one in root.iter("svg") if id(one) not in folded]
    assert len(shown) < 60
    assert all(name in page for name in deep["worst"])


# Networks of every kind ------------------------------------------------------------------------------


def test_no_labels() -> None:
    found = diagnosed(residual(), labels=False)
    root = parsed(found.to_html())
    assert "accuracy" not in text_of(root.find("body/header"))  # type: ignore[arg-type]
    assert len(list(section(root, "answer").iter("svg"))) == 1


def test_several_outputs() -> None:
    found = diagnosed(two_outputs())
    text = text_of(section(parsed(found.to_html()), "network"))
    assert "scores" in text
    assert "boxes" in text


def test_one_step_and_one_layer() -> None:
    ann = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU())
    parsed(diagnosed(ann, 1).to_html())


def test_a_network_from_a_file(tmp_path: Path) -> None:
    ann, x = residual(), torch.rand(20, 1, 8, 8)
    export(Converter([x], progress=False)(ann), tmp_path / "network.zip")
    loaded = load_network(tmp_path / "network.zip")
    found = diagnose(ann, loaded, [x], 8, progress=False)
    assert "Converter(" in text_of(section(parsed(found.to_html()), "made"))
    loaded.meta.pop("ann2snn_conversion")  # as of an older file
    old = diagnose(ann, loaded, [x], 8, progress=False)
    text = text_of(section(parsed(old.to_html()), "made"))
    assert old.notes[0] in text
    assert "Converter(" not in text


def test_terms_that_are_not_known(data: dict[str, Any]) -> None:
    changed = copy.deepcopy(data)
    for layer in changed["layers"]:
        layer["rounding"], layer["sqnr"], layer["scale"] = None, None, None
        for terms in layer["over_time"].values():
            terms["rounding"] = None
    assert "rounding ?" in html_report(changed)


def test_errors_of_any_size(data: dict[str, Any]) -> None:
    for size in (0.0, 1e-12, 1e6, None):
        changed = copy.deepcopy(data)
        changed["divergence"] = size
        changed["divergence_over_time"] = dict.fromkeys(changed["divergence_over_time"], size or 0.0)
        for layer in changed["layers"]:
            for terms in (layer, *layer["over_time"].values()):
                terms.update(dict.fromkeys(("error", "inherited", "clipping", "rounding", "unevenness"), size))
        root = parsed(html_report(changed))
        for one in root.iter("rect"):
            assert float(one.attrib["width"].rstrip("%")) <= 1000
        assert "nan" not in text_of(root).lower()


def test_without_what_was_observed(found: Diagnosis) -> None:
    root = parsed(html_report(found.to_dict()))
    assert root.find(".//section[@id='neurons']") is None
    assert root.find(".//section[@id='network']") is None
    assert section(root, "causes") is not None


# Wrong arguments -------------------------------------------------------------------------------------


def test_the_file_is_written_or_left_as_it_is(found: Diagnosis, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("before", encoding="utf-8")
    page = found.to_html(path)
    assert path.read_text(encoding="utf-8") == page
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(ExportError, match="nowhere.*cannot be written"):
        found.to_html(tmp_path / "nowhere" / "page.html")
    with pytest.raises(ExportError, match="cannot be written"):
        found.to_html(tmp_path)
    with pytest.raises(OptionError, match="path=3 is not allowed"):
        found.to_html(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, 3, "report.json", [], object()])
def test_what_is_no_diagnosis(given: Any) -> None:
    with pytest.raises(InputError, match="takes a Diagnosis, or what its to_dict"):
        html_report(given)


def test_data_with_something_missing_or_wrong(data: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot read what was given"):
        html_report({})
    for key in ("layers", "advice", "verdict", "worst", "divergence_over_time", "T", "spikes"):
        with pytest.raises(InputError, match=f"'{key}' is missing in it"):
            html_report({name: value for name, value in data.items() if name != key})
        with pytest.raises(InputError, match="cannot read what was given"):
            html_report({**data, key: object()})


def test_other_arguments(found: Diagnosis) -> None:
    with pytest.raises(OptionError, match="title=3 is not allowed"):
        found.to_html(title=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="conversion='max' is not allowed.*converter.report"):
        found.to_html(conversion="max")  # type: ignore[arg-type]


def test_long_names_are_shortened_in_headings(found: Diagnosis) -> None:
    titles = [text_of(one) for one in parsed(found.to_html()).iter("h3")]
    assert not any(LONG in title for title in titles)
    assert any("…" in title for title in titles)
