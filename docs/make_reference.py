"""Makes the page of all options from the YAML files of ``conf/`` and the constructors they name.

``make docs`` calls it as a hook of MkDocs (see mkdocs.yml), so the page is never out of date and
is not committed. By hand: ``python docs/make_reference.py > reference.md``.
"""

import inspect
import os
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from hydra.utils import get_object

from kd_lightning.base.ranges import FINITE
from kd_lightning.config.command_line import CONF
from kd_lightning.config.schema import PLAIN, arguments_of, trainer_arguments
from kd_lightning.config.values import split_range
from kd_lightning.list import CHOSEN_BY, groups, plural

ROOT = Path(__file__).parent.parent
PAGE = "reference.md"
# The groups that most people change come first; the others follow by name.
FIRST = ("method", "data", "model", "hardware", "callbacks", "logger")
# Files of these groups set keys of other groups: they are shown as they are.
PRESETS = ("experiment", "recipe", "sweep")
NEW_WORDS = 5  # that a docstring must add to a comment to be shown beside it
INTRODUCTION = """\
# Reference: every option

`make docs` makes this page from the YAML files of `conf/`, their comments, and the constructors
that these files name.

- **key**: what you type on the command line, followed by `=` and a value. A key with `@` chooses a
  file of a group: `model@method.teacher=resnet50`. For `<key>`, write the name of a student.
- **default**: the value in the file. `${seed}` is the value of another key, `null` is no value, and
  `???` must be given.
- **type**: what the constructor accepts.
- **meaning**: the comment in the file, and what the constructor's documentation adds to it.

`python -m kd_lightning.run --cfg job` shows the keys and values of a run.
"""


class Option(NamedTuple):
    """A key of a YAML file."""

    key: str
    default: str
    type: str
    meaning: str


class Header(NamedTuple):
    """The comment that opens a YAML file."""

    text: str
    commands: list[str]


def reference() -> str:
    """The page, in Markdown."""
    page = [INTRODUCTION, "## A run { #config }\n", *file_section(CONF / "config.yaml", "")]
    known = groups([CONF])
    order = [*FIRST, *(group for group in known if group not in FIRST)]
    for group in order:
        page += group_section(group)
    page += ["## Preparing images { #prepare }\n", *file_section(CONF / "prepare.yaml", "")]
    page += ["## Evaluating students { #evaluate }\n", *file_section(CONF / "evaluate.yaml", "")]
    return "\n".join(page)


def group_section(group: str) -> Iterator[str]:
    """A folder of ``conf/``: how its files are chosen, and each of them."""
    chosen_by = CHOSEN_BY.get(group, f"{group}=")
    prefix = chosen_by.partition("@")[2].rstrip("=") or group
    yield f"## {title_of(group)} {{ #{group} }}\n"
    yield f"Choose a file with `{chosen_by}<name>`.\n"
    for path in sorted((CONF / group).glob("*.yaml"), key=lambda path: (path.stem[0] != "_", path)):
        shared = "Shared keys: " if path.stem.startswith("_") else ""
        yield f"### {shared}`{path.stem}` {{ #{anchor(path)} }}\n"
        if group in PRESETS and path.stem != "_base":
            yield from preset_section(path)
        else:
            yield from file_section(path, f"{prefix}.")
    for folder in sorted(path for path in (CONF / group).iterdir() if path.is_dir()):
        yield f"### For `data={folder.name}` {{ #{anchor(folder)} }}\n"
        for path in sorted(folder.glob("*.yaml")):
            yield f"**`{folder.name}/{path.stem}`**\n"
            yield from preset_section(path)


def anchor(path: Path) -> str:
    """The place of a file or folder on the page: "method-kd"."""
    return f"{path.parent.name}-{path.stem.lstrip('_')}"


def title_of(group: str) -> str:
    return plural(group).replace("_", " ").capitalize()


def file_section(path: Path, prefix: str) -> Iterator[str]:
    """What a file says of itself, and its keys as a table.

    Args:
        prefix: that the file's keys have on the command line, such as "method.".
    """
    yield from header_section(path)
    bases = [f"[`{base.stem}`](#{anchor(base)})" for base in built_on(path)]
    if bases:
        yield f"It has the keys of {' and '.join(bases)} too.\n"
    options = list(options_of(path, prefix))
    if not options:
        return
    yield "| key | default | type | meaning |\n|---|---|---|---|"
    for option in options:
        kind = option.type if option.type.startswith("[") else code(option.type)
        cells = (code(option.key), code(option.default), kind, option.meaning)
        yield f"| {' | '.join(cells)} |"
    yield ""


def preset_section(path: Path) -> Iterator[str]:
    """What a file says of itself, and the file as it is."""
    yield from header_section(path)
    body = path.read_text().splitlines()[len(list(comment_block(path))) :]
    if body:
        yield "\n".join(["```yaml", *body, "```", ""])


def header_section(path: Path) -> Iterator[str]:
    header = header_of(path)
    yield f"{header.text}\n"
    if header.commands:
        yield "\n".join(["```bash", *header.commands, "```", ""])


def code(text: str) -> str:
    """``text`` as code that may stand in a table."""
    return f"<code>{escape(text).replace('|', '&#124;')}</code>" if text else ""


def prose(text: str) -> str:
    """A comment as Markdown that may stand in a table."""
    text = escape(text.replace("``", "`"), quote=False)
    text = text.replace("|", "&#124;").replace("{", "&#123;")  # a cell's end, its attributes
    return re.sub(r"(?<![`\w])(\*|_)", r"\\\1", text)


def header_of(path: Path) -> Header:
    text, commands = "", []
    for line in comment_block(path):
        words = prose(line.strip())
        if line.startswith("   "):
            commands.append(line.strip())
        elif words and not words.startswith("@package"):
            goes_on = words[0].islower()  # the sentence of the line above
            text += f"{' ' if goes_on else '<br>'}{words}" if text else words
    return Header(text, commands)


def comment_block(path: Path) -> Iterator[str]:
    """The lines of the comment that opens a file, without their #."""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            return
        yield line[1:]


def options_of(path: Path, prefix: str) -> Iterator[Option]:
    """Every key of a file, in its order."""
    file = YamlFile(path, prefix)
    for key, value in file.root.value:
        if key.value == "defaults":
            yield from file.choices(value)
        elif key.value != "hydra":
            yield from file.options(key, value, prefix, file.target)


class YamlFile:
    """A YAML file and the places of its keys: comments stand beside keys."""

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        self.prefix = prefix
        self.text = path.read_text()
        self.lines = self.text.splitlines()
        self.root = yaml.compose(self.text) or yaml.MappingNode("", [])
        self.header_lines = len(list(comment_block(path)))
        self.target = target_of(path)

    def options(
        self, key: yaml.Node, value: yaml.Node, prefix: str, target: str | None
    ) -> Iterator[Option]:
        """An option, or those below it where the value is keys and values itself."""
        name, full, comment = key.value, f"{prefix}{key.value}", self.comment(key, value)
        if name.startswith("_"):  # Hydra's own
            return
        below = children(value)
        if not below:
            kind, meaning = explained(full, target, comment)
            yield Option(full, self.shown(value), kind, meaning)
            return
        if comment:
            yield Option(full, "", "", comment)
        inner = inner_target(value)
        for child_key, child in below:
            yield from self.options(child_key, child, f"{full}.", inner)

    def choices(self, defaults: yaml.Node) -> Iterator[Option]:
        """The choices of other files that a file makes: "model@method.teacher" and the like."""
        for item in defaults.value:
            if isinstance(item, yaml.ScalarNode):  # itself, or a file that it builds on
                continue
            ((key, value),) = item.value
            group, _, package = key.value.split()[-1].lstrip("/").partition("@")
            if group.startswith("hydra"):
                continue
            full = f"{group}@{self.prefix}{package}" if package else group
            yield Option(full, self.shown(value), f"[{group}](#{group})", self.comment(key, value))

    def shown(self, value: yaml.Node) -> str:
        """A value as it stands in the file, on one line."""
        text = self.text[value.start_mark.index : value.end_mark.index].strip()
        if "\n" not in text:
            return text
        plain = yaml.safe_load(yaml.serialize(value))
        return yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip()

    def comment(self, key: yaml.Node, value: yaml.Node) -> str:
        """The comment above a key and the one behind its value."""
        first = key.start_mark.line
        above = []
        indent = " " * key.start_mark.column + "#"
        for number in range(first - 1, self.header_lines - 1, -1):
            if not self.lines[number].startswith(indent):
                break
            above.insert(0, self.lines[number].strip().lstrip("# "))
        end = value.end_mark if value.end_mark.line == first else key.end_mark
        behind = re.match(r"[:\s]*#\s*(.*)", self.lines[end.line][end.column :])
        return prose(" ".join([*above, behind.group(1) if behind else ""]).strip())


def children(value: yaml.Node) -> Sequence[tuple[yaml.Node, yaml.Node]]:
    """The keys and values below a value: of a mapping, or of a list of things to be built."""
    if isinstance(value, yaml.MappingNode):
        return value.value
    if isinstance(value, yaml.SequenceNode) and value.value and inner_target(value.value[0]):
        return [(numbered(item, i), item) for i, item in enumerate(value.value)]
    return []


def numbered(item: yaml.Node, number: int) -> yaml.Node:
    return yaml.ScalarNode("", str(number), item.start_mark, item.start_mark)


def inner_target(value: yaml.Node) -> str | None:
    """The ``_target_`` of a mapping."""
    pairs = value.value if isinstance(value, yaml.MappingNode) else []
    return next((v.value for k, v in pairs if k.value == "_target_"), None)


def target_of(path: Path) -> str | None:
    """The ``_target_`` of a file: its own, that of a file it builds on, or that of one that builds
    on it.
    """
    own = own_target(path)
    if own is None and path.stem.startswith("_"):
        users = (other for other in sorted(path.parent.glob("*.yaml")) if path in built_on(other))
        own = next(filter(None, map(own_target, users)), None)
    return own


def own_target(path: Path) -> str | None:
    found = inner_target(yaml.compose(path.read_text()))
    for base in built_on(path):
        found = found or own_target(base)
    return found


def built_on(path: Path) -> list[Path]:
    """The files whose keys a file has too: "_base", "/model/fcn@_here_"."""
    bases = []
    for item in (yaml.safe_load(path.read_text()) or {}).get("defaults", []):
        if isinstance(item, str):
            place = CONF / item.lstrip("/").removesuffix("@_here_")
            if not item.startswith("/"):
                place = path.parent / item
            bases.append(place.with_suffix(".yaml"))
    return [base for base in bases if base.is_file()]


def explained(key: str, target: str | None, comment: str) -> tuple[str, str]:
    """The type of a key, and its meaning: the comment, and what a docstring adds to it."""
    name = key.rpartition(".")[2]
    if key in PLAIN:
        return shown_type(PLAIN[key]), comment
    if target is None:
        is_trainer = re.fullmatch(r"(teacher\.)?trainer\.\w+", key)
        return shown_type(trainer_arguments()[name].type) if is_trainer else "", comment
    built = get_object(target)
    known = arguments_of(built).known
    kind = shown_type(known[name].type) if name in known else ""
    if not comment:
        return kind, described(built, with_bases=True).get(name, "")
    argument = described(built).get(name, "")
    new = set(re.findall(r"\w+", argument.lower())) - set(re.findall(r"\w+", comment.lower()))
    return kind, f"{comment}<br>{argument}" if len(new) >= NEW_WORDS else comment


def described(built: Any, *, with_bases: bool = False) -> dict[str, str]:
    """What the Args section of a class or a function says: argument -> text."""
    found: dict[str, str] = {}
    for part in built.__mro__ if with_bases and inspect.isclass(built) else [built]:
        if not part.__module__.startswith("kd_lightning."):
            continue
        section = re.search(r"^Args:\n((?:[ \n].*\n?)+)", inspect.getdoc(part) or "", re.M)
        for names, text in re.findall(
            r"^    (\w[\w, ]*): (.*(?:\n     +.*)*)", section.group(1) if section else "", re.M
        ):
            for name in names.split(", "):
                found.setdefault(name, prose(" ".join(text.split())))
    return found


def shown_type(kind: Any) -> str:
    """An annotation in the words of YAML: "int >= 1 | null"."""
    kind, span = split_range(kind)
    if span != FINITE:
        return f"{shown_type(kind)} {span.words()}"
    if kind is inspect.Parameter.empty or kind is Any:
        return ""
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(map(shown_type, get_args(kind)))
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if kind is NoneType:
        return "null"
    if get_origin(kind) is not None and any(
        split_range(one)[1] != FINITE for one in get_args(kind)
    ):
        return f"{kind.__origin__.__name__}[{', '.join(map(shown_type, get_args(kind)))}]"
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", inspect.formatannotation(kind))


def on_files(files: Any, config: Any) -> Any:
    """MkDocs calls this when it has found the pages: the reference is one more."""
    from mkdocs.structure.files import File as Page

    files.append(Page.generated(config, PAGE, content=reference()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """MkDocs calls this for each page: links to files of the repository get an address.

    Where mkdocs.yml has a ``repo_url`` they lead there, otherwise to the files of this checkout.
    """
    here = os.path.relpath(ROOT, (Path(config.site_dir) / page.url).parent)
    base = f"{config.repo_url.rstrip('/')}/blob/main" if config.repo_url else here

    def link(match: re.Match) -> str:
        text, place = match.groups()
        return f'<a href="{base}/{place}">{text.replace("`", "")}</a>'

    return re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", link, markdown)


if __name__ == "__main__":
    print(reference())
