"""A real browser opens the pages: they work, use no network, and fit a phone."""

import io

import numpy as np
import pytest
from PIL import Image

SECTIONS = {
    "run": ["results", "front", "training", "reliability", "confidence", "confusion", "examples",
            "command"],
    "sweep": ["results", "front", "heatmaps", "training", "runs", "values", "commands"],
}  # fmt: skip


class Opened:
    """A page in the browser, with all that it asked for and complained about."""

    def __init__(self, browser, path, width, scheme):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.evaluate(
            "document.querySelectorAll('details:first-of-type').forEach((d) => (d.open = true))"
        )


@pytest.fixture
def opened(browser, pages):
    made = []

    def open_page(name, width=1280, scheme="light"):
        made.append(Opened(browser, pages[name], width, scheme))
        return made[-1]

    yield open_page
    for each in made:
        each.page.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
@pytest.mark.parametrize("name", list(SECTIONS))
def test_every_section_is_drawn_without_error_network_or_overflow(name, width, scheme, opened):
    each = opened(name, width, scheme)
    assert each.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in each.requests)
    names = each.page.eval_on_selector_all("main > section", "all => all.map((s) => s.id)")
    assert names == SECTIONS[name]
    assert each.page.evaluate("document.documentElement.scrollWidth") == width
    for section in names:
        picture = Image.open(io.BytesIO(each.page.locator(f"#{section}").screenshot()))
        assert np.asarray(picture.convert("L")).std() > 3, section


def heads(page):
    return page.locator("#results table.sortable thead button")


def cells(page, number):
    path = f"#results table.sortable tbody tr > :nth-child({number})"
    return page.eval_on_selector_all(path, "all => all.map((cell) => cell.textContent.trim())")


def test_a_click_on_a_head_sorts_by_its_numbers(opened):
    page = opened("run").page
    before = [float(cell.replace(",", "")) for cell in cells(page, 6)]
    button = heads(page).filter(has_text="parameters")
    button.click()
    assert [float(cell.replace(",", "")) for cell in cells(page, 6)] == sorted(before, reverse=True)
    assert button.locator("xpath=..").get_attribute("aria-sort") == "descending"
    button.click()
    assert [float(cell.replace(",", "")) for cell in cells(page, 6)] == sorted(before)


def test_empty_cells_are_last_in_both_directions(opened):
    page = opened("run").page
    button = heads(page).filter(has_text="last")
    for _ in range(2):
        button.click()
        assert cells(page, 3)[2:] == ["", ""]


def test_the_keyboard_sorts_names(opened):
    page = opened("run").page
    heads(page).first.focus()
    page.keyboard.press("Enter")
    assert cells(page, 1) == sorted(cells(page, 1))


def test_a_name_in_a_legend_hides_its_marks(opened):
    page = opened("run").page
    figure = page.locator("#front figure").first
    figure.locator(".legend button").filter(has_text="teacher").click()
    hidden = figure.locator("svg .hidden")
    assert hidden.count() == 2  # its point and its interval
    assert set(hidden.evaluate_all("all => all.map((m) => m.dataset.key)")) == {"teacher"}
    figure.locator(".legend button").filter(has_text="teacher").click()
    assert hidden.count() == 0


def test_a_button_copies_the_command(opened):
    page = opened("run").page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("button.copy").click()
    page.locator("button.copy").filter(has_text="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "python -m kd_lightning.run method=kd method.temperature=4 'title=a b'"


def test_paper_shows_what_is_folded(opened):
    page = opened("sweep").page
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = false))")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
