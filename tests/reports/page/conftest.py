"""Pages of a run and of a sweep, and a real browser that looks at them."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from made_runs import write_job, write_run

from kd_lightning import reports
from kd_lightning.reports.page import write_page

# It starts no service that would use the network, and does not ask whether it is the first start.
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with every file that a page reads."""
    return write_run(tmp_path_factory.mktemp("page") / "run", names=NASTY)


NASTY = ("<script>alert(1)</script>", 'a "quoted" & b', "owl")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two numeric axes and two seeds, with time series."""
    folder = tmp_path_factory.mktemp("page")
    series = torch.randn(90, 2, 50, generator=torch.Generator().manual_seed(0))
    written = [write_run(folder / str(seed), seed=seed, samples=series) for seed in (0, 1)]
    for temperature, weight, seed in itertools.product((1, 4), (0, 0.5), (0, 1)):
        axes = {"method.temperature": temperature, "method.weight": weight, "seed": seed}
        write_job(folder / "a sweep", written[seed], axes)
    return folder / "a sweep"


@pytest.fixture(scope="session")
def pages(run: Path, sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> the page's file."""
    folder = tmp_path_factory.mktemp("pages")
    pairs = [["method.temperature=1", "method.temperature=4"]]
    made = {"run": reports.build([run]), "sweep": reports.build([sweep], pairs=pairs)}
    places = {"run": run, "sweep": sweep}
    return {
        name: write_page(report, [places[name]], folder / f"{name}.html")
        for name, report in made.items()
    }


@pytest.fixture(scope="session")
def browser():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield browser
        browser.close()
