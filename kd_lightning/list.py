"""Prints the available methods, models, data sets and so on, and describes them.

    python -m kd_lightning.list                  the kinds of choices
    python -m kd_lightning.list methods
    python -m kd_lightning.list models/digits    the nets of a data set

A kind is a folder of ``conf/``; its name may be in the plural. The description
is the first comment of the YAML file.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.base.words import cut
from kd_lightning.config.command_line import CONF, report_errors
from kd_lightning.config.options import command_parser

# Nothing is composed and no large package is imported, so the command is fast.

# What to type before the name of a choice, if it is not <kind>=.
CHOSEN_BY = {
    "model": "model@method.students.<key>=",
    "augmentation": "augmentation@data.augmentation=",
    "mixing": "mixing@data.mixing=",
    "confidence": "confidence@method.confidence=",
    "guidance": "guidance@method.guidance=",
    "feature_loss": "feature_loss@method.feature_loss=",
    "similarity": "similarity@method.guidance.similarity=",
    "soft_loss": "soft_loss@method.soft_loss=",
    "sampler": "sampler@sweep.search.sampler=",
    "pruner": "pruner@sweep.search.pruner=",
}
NO_PLURAL = ("callbacks", "data", "guidance", "hardware", "mixing")


def plural(group: str) -> str:
    if group in NO_PLURAL:
        return group
    if group.endswith("y"):
        return f"{group[:-1]}ies"
    return f"{group}es" if group.endswith("s") else f"{group}s"


def header(path: Path) -> str:
    """The description of a YAML file: its first comment line, except Hydra's ``@package``."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        comment = line.lstrip("#").strip()
        if comment and not comment.startswith("@package"):
            return comment
    return ""


def files(group: str, roots: Sequence[Path]) -> dict[str, Path]:
    """Name -> file of each choice in a group. Files whose name starts with "_" are only bases of
    others and are left out. If two folders have the same name, the first folder wins, as in Hydra.
    """
    found: dict[str, Path] = {}
    for root in roots:
        for path in sorted((root / group).glob("[!_]*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def groups(roots: Sequence[Path]) -> list[str]:
    """The folders that contain choices."""
    names = {path.name for root in roots for path in root.iterdir() if path.is_dir()}
    return [name for name in sorted(names) if files(name, roots)]


def group_of(kind: str, roots: Sequence[Path]) -> str:
    """The folder of a kind, whose name may be in the plural.

    Raises:
        UserError: there is no such kind.
    """
    word, slash, subfolder = kind.partition("/")
    available = groups(roots)
    for group in available:
        if word in (group, plural(group)) and files(f"{group}{slash}{subfolder}", roots):
            return f"{group}{slash}{subfolder}"
    raise UserError(
        f"unknown kind '{kind}': expected one of {', '.join(map(plural, available))} "
        "(python -m kd_lightning.list <kind>)"
    )


def kinds(roots: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for group in groups(roots):
        names = list(files(group, roots))
        yield plural(group), f"{CHOSEN_BY.get(group, f'{group}=')}{'|'.join(names)}"


def lines(rows: Sequence[tuple[str, str]], width: int | None) -> Iterator[str]:
    """Names and descriptions in two columns.

    Args:
        width: cut longer lines to this width; None: do not cut.
    """
    longest = max((len(name) for name, _ in rows), default=0)
    for name, description in rows:
        line = f"{name:<{longest}}  {description}".rstrip()
        yield line if width is None else cut(line, width)


def folders(config_dir: Path | None) -> list[Path]:
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir must be a folder of YAML files, got {config_dir}")
    return [CONF] if config_dir is None else [CONF, config_dir]


def main() -> None:
    parser = command_parser("list", __doc__)
    parser.add_argument("kind", nargs="?", help="methods, models, data, …; without it, all kinds")
    parser.add_argument("--config-dir", type=Path, help="a folder of your own YAML")
    arguments = parser.parse_args()
    with report_errors():
        roots = folders(arguments.config_dir)
        if arguments.kind is None:
            rows = list(kinds(roots))
        else:
            choices = files(group_of(arguments.kind, roots), roots)
            rows = [(name, header(path)) for name, path in choices.items()]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    try:
        print("\n".join(lines(rows, width)), flush=True)
    except BrokenPipeError:  # a reader such as head has ended; hide Python's own message
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
