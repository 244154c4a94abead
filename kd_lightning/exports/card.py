"""The model card: a ``README.md`` with metadata as on the Hugging Face hub, made from the student's
description and from the record of its run alone.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from kd_lightning.base.proportions import wilson_interval
from kd_lightning.base.tables import Table, markdown
from kd_lightning.exports.graph import Graph
from kd_lightning.exports.snippets import snippets
from kd_lightning.records.sample_counts import sample_counts

LISTED_CLASSES = 50
TASKS = {"image": "image-classification", "series": "time-series-classification"}
Info = Mapping[str, Any]


def model_card(
    info: Info,
    record: Info | None,
    graph: Graph,
    table: Table,
    files: Mapping[str, Sequence[str]],
) -> str:
    """The text of the card.

    Args:
        info: the description of the student (``student.json``).
        record: the content of the run's ``metrics.json``; None: the run is not there.
        graph: what was exported.
        table: of the exported files.
        files: format -> names of its files.
    """
    versions = [f"{name} {v}" for name, v in info.get("versions", {}).items() if v]
    sections = {
        "Results": results(info, record),
        "Input and output": input_and_output(info, graph),
        "Use": snippets(info, graph, files),
        "Classes": classes(info),
        "Training": training(info),
        "Limits": limits(files),
        "Versions": ", ".join(versions),
    }
    texts = [f"## {title}\n\n{text.strip()}\n" for title, text in sections.items() if text]
    texts.insert(1, markdown(table))
    head = f"---\n{front_matter(info, files)}\n---\n\n# {name_of(info)}\n\n{summary(info)}\n"
    return "\n".join([head, *texts])


def name_of(info: Info) -> str:
    return f"{info.get('title', 'student')} ({info.get('run', 'kd_lightning')})"


def front_matter(info: Info, files: Mapping[str, Sequence[str]]) -> str:
    """The metadata as YAML, without the lines of dashes around it."""
    task = TASKS[info["input"]["kind"]]
    tags = ["knowledge-distillation", "kd_lightning", task]
    tags += ["timm"] if "timm" in info["architecture"] else []
    tags += [name for name in ("onnx", "openvino") if name in files]
    tested = info.get("metrics", {}).get("test", {})
    named = [(key, tested[key]) for key in ("accuracy", "nll", "ece") if key in tested]
    data = info.get("data", {}).get("name", "unknown")
    return ModelCardData(
        library_name="kd_lightning",
        pipeline_tag=task if task == "image-classification" else None,
        tags=tags,
        metrics=["accuracy"],
        model_name=name_of(info),
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type=data,
                dataset_name=data,
                dataset_split="test",
                metric_type=key,
                metric_value=round(value, 6),
            )
            for key, value in named
        ],
    ).to_yaml()


def summary(info: Info) -> str:
    """What the student is, in one to three sentences."""
    method, teacher = info.get("method"), info.get("teacher")
    kind = {"image": "images", "series": "time series"}[info["input"]["kind"]]
    size = f" and {info['parameters']:,} parameters" if "parameters" in info else ""
    sentences = [f"A classifier of {kind} with {len(info['class_names'])} classes{size}."]
    if method:
        sentences.append(f"It is a student, trained with the method {method['name']}.")
    if teacher:
        sentences.append(f"Its teacher was {teacher['title'].removeprefix('teacher · ')}.")
    return " ".join(sentences)


def results(info: Info, record: Info | None) -> str:
    """The numbers on test, with what they are and are not."""
    metrics = info.get("metrics")
    if metrics is None:
        return "Not recorded in the student's file."
    tested, counts = metrics["test"], sample_counts(metrics["protocol"])
    # fewer than the protocol says if images could not be read
    count = metrics.get("samples") or (counts and counts.test)
    rows = [["test accuracy", with_interval(tested["accuracy"], count)]]
    rows += [[key.upper(), f"{tested[key]:.3f}"] for key in ("nll", "ece") if key in tested]
    nets = {} if record is None else record["nets"]
    if "teacher" in nets:
        rows.append(["teacher's test accuracy", f"{nets['teacher']['test']['accuracy']:.2%}"])
    if (agreement := nets.get(info.get("key"), {}).get("agreement")) is not None:
        rows.append(["agreement with the teacher", f"{agreement:.2%}"])
    notes = [
        f"{metrics['protocol']}.",
        f"The weights are {metrics['weights']}. Test was used once, at the end.",
        f"One seed ({info['seed']}): how much another seed would change is not known."
        " The interval (Wilson) is for the choice of the test samples alone."
        " NLL: mean negative log-likelihood in nats. ECE: expected calibration error, 15 bins.",
    ]
    lines = ["| | on test |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, "", *notes])


def with_interval(accuracy: float, count: int | None) -> str:
    """An accuracy with its 95 % interval by Wilson, for ``count`` independent samples."""
    if count is None:
        return f"{accuracy:.2%}"
    low, high = wilson_interval(round(accuracy * count), count)
    return f"{accuracy:.2%} (95 %: {low:.2%} to {high:.2%})"


def classes(info: Info) -> str:
    names = [f"{number}: {name}" for number, name in enumerate(info["class_names"])]
    shown = ", ".join(names[:LISTED_CLASSES])
    more = len(names) - LISTED_CLASSES
    return f"{shown} and {more} more, listed in `student.json`" if more > 0 else shown


def input_and_output(info: Info, graph: Graph) -> str:
    """What the exported files take and return."""
    given = info["input"]
    lines = [
        f"The exported files take `{graph.input_name}`, {graph.about['input']}, and return "
        f"`{graph.output_name}` of shape (batch, {len(info['class_names'])}).",
    ]
    if given["kind"] == "series":
        lines.append("Series are in the units of the training data.")
        return " ".join(lines)
    colours = {1: "grey", 3: "RGB"}.get(given["channels"], f"{given['channels']} channels")
    lines.append(f"Images are {colours}, squares with a side of {given['size']}. {resizing(given)}")
    if graph.about["preprocessing"] == "inside":
        side = given["net_size"]
        resized = f"Resizing to {side}, normalization" if side else "Normalization"
        lines.append(f"{resized} and softmax are part of the files.")
    elif given["net_size"]:
        lines.append(
            f"From this size they are resized to {given['net_size']} "
            f"({given['net_interpolation']}, antialiased), before they are normalized."
        )
    return " ".join(lines)


def resizing(given: Info) -> str:
    """How val and test images got their size."""
    if given["resize"] != "crop":
        way = {"squash": "to that square", "letterbox": "by the long side, with black borders"}
        how = f"resized {way[given['resize']]}"
    elif given["crop_fraction"] == 1:
        how = "resized by the short side, then cropped to the centre"
    else:
        side = round(given["size"] / given["crop_fraction"])
        how = f"resized to {side} by the short side, then cropped to the centre"
    turned = " Photographs are turned as their EXIF tag says." if given.get("exif") else ""
    return f"Images of another size are {how} ({given['interpolation']}, antialiased).{turned}"


def training(info: Info) -> str:
    """How the student was trained."""
    method = info.get("method")
    if method is None:
        return ""
    lines = [
        f"- method: {method['name']}: {plain(method['settings'])}",
        f"- {method['epochs']} epochs, batches of {method['batch_size']}, optimizer: "
        f"{plain(method['optimizer'])}",
        f"- data: {info['data']['name']}; {info['data']['protocol']}",
    ]
    if teacher := info.get("teacher"):
        lines.append(f"- {teacher['title']}: {teacher['origin']}")
    lines.append(f"- command: `{command_of(info['command'])}`")
    return "\n".join(lines)


def plain(value: Any) -> str:
    """A setting in words: "kl_soft_loss", "AdamW (lr 0.003, weight_decay 0.01)"."""
    if not isinstance(value, Mapping):
        return str(value)
    name = str(value.get("_target_", "")).rpartition(".")[2]
    inner = ", ".join(
        f"{key} {plain(one)}"
        for key, one in value.items()
        if one is not None and not key.startswith("_")
    )
    return f"{name} ({inner})" if name and inner else name or inner


def command_of(words: Sequence[str]) -> str:
    """The command of the run, as it can be typed again."""
    module = "python -m kd_lightning.run" if words[0] == "run.py" else shlex.quote(words[0])
    return " ".join([module, *map(shlex.quote, words[1:])])


def limits(files: Mapping[str, Sequence[str]]) -> str:
    lines = [
        "- Every input gets one of the classes, also an input of none of them.",
        "- The accuracy is that of samples like those of the test part; for others it can be far "
        "lower.",
        "- Probabilities are not recalibrated: see ECE.",
    ]
    if "int8" in files:
        lines.append(
            "- The int8 file computes something else than the student: see its accuracy, which is "
            "that on the processor of the export. An x86 processor without VNNI can cut off large "
            "sums, and then it is lower."
        )
    return "\n".join(lines)
