"""Where the package's YAML files are."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# inside the package if it is installed from a wheel, beside it in a source tree
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
