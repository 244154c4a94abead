"""The names of what is logged: those in a run's CSV, and those in the tables of the pages."""

import re
from pathlib import Path

from helpers import PAGES

TABLES = [
    PAGES["docs/tracking.md"].split("\n## Metrics\n")[1],
    PAGES["docs/methods.md"].split("\n## Metrics of the methods\n")[1],
]


def names_in_csv(directory: Path) -> set[str]:
    (path,) = directory.glob("csv/*/metrics.csv")
    return set(path.read_text().splitlines()[0].split(",")) - {"step"}


def documented(method: str, *, val: bool, scaled: bool = False) -> set[str]:
    """The names that the tables have for a method, one for each alternative."""
    text = "\n".join(table.split("\n## ")[0] for table in TABLES)
    names = set()
    for row in re.findall(r"^\| `.*$", text, re.M):
        name, _, when, methods = re.split(r"(?<!\\) \| ", row.strip("| "))
        said = re.findall(r"`(\w+)`", methods)
        applies = method not in said if methods.startswith("all") else method in said
        conditions = {"val part": val, "temperature_scaling": scaled}
        conditions |= {"evaluation.adversarial": False, "method.target=self": False}
        conditions |= {"method.temperature_range": False, "method.estimator=relax": False}
        if applies and all(holds or words not in when for words, holds in conditions.items()):
            *above, alternatives = name.strip("`").split("/")
            names |= {"/".join([*above, last]) for last in alternatives.split("\\|")}
    return names


def generalised(names: set[str], students: list[str]) -> set[str]:
    """``names`` with what varies in them as the tables write it."""
    one = "|".join(students)
    nets = rf"{one}|teacher|ensemble|vote|uniform_soup|greedy_soup|(?:{one})_labels_only"
    names = {re.sub(rf"^(train|val|lr|last)/(?:{one})(?=/|$)", r"\1/<student>", n) for n in names}
    names = {re.sub(rf"(?<=agreement/)(?:{one})_(?:{one})$", "<student>_<student>", n)
             for n in names}  # fmt: skip
    names = {re.sub(rf"(?<=agreement/teacher_)(?:{one})$", "<student>", n) for n in names}
    names = {re.sub(rf"^(train/(?:areas|policy)/\w+_|lr/policy_)(?:{one})$", r"\1<student>", n)
             for n in names}  # fmt: skip
    return {re.sub(rf"^(test|scaled)/(?:{nets})/", r"\1/<net>/", name) for name in names}
