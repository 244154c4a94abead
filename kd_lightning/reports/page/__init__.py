"""Makes the HTML page of a report: one file, without anything from the network.

``records.py`` reads the files of the runs, ``sections.py`` chooses what is shown, and the modules
for charts and tables turn numbers into ``blocks.py``, which ``templates/`` turns into HTML.

    write_page(report, ["outputs/sweeps/…"], "report.html")
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import write_text
from kd_lightning.reports.assemble import Report
from kd_lightning.reports.page.cells import breakable, sort_value
from kd_lightning.reports.page.origin import facts_of
from kd_lightning.reports.page.records import records_of
from kd_lightning.reports.page.sections import sections_of, title_of

TEMPLATES = Path(__file__).parent / "templates"


def write_page(report: Report, directories: Sequence[Path | str], path: Path | str) -> Path:
    """Writes the page of a report.

    Args:
        directories: those that the report was built from. The page shows their runs' files.
        path: of the HTML file.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    text = page_text(report, [Path(directory) for directory in directories])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"cannot write the page to {path}: {error.strerror}; name another file (--html)"
        ) from error
    return path


def page_text(report: Report, directories: Sequence[Path]) -> str:
    """The HTML of the page. All texts from records are escaped by the templates."""
    records = records_of(report.source.results, directories, report.source.data_sets)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sort_value": sort_value, "breakable": breakable}
    script = (TEMPLATES / "script.js").read_text("utf-8")
    return environment.get_template("page.html").render(
        title=title_of(report, records),
        facts=facts_of(records, directories),
        sections=sections_of(report, records),
        style=Markup((TEMPLATES / "style.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
