"""Decodes a tree of images once, so that runs need not: one array of bytes for each part.

    python -m kd_lightning.prepare data=imagenet100 data.root=/data/imagenet out=/data/in100
    python -m kd_lightning.run data=prepared data.root=/data/in100 recipe=imagenet100

Every image's short side becomes ``size`` (that of evaluation, 256 for 224, unless stated), and the
square in the middle is kept. ``data.num_workers`` processes decode; what was stopped goes on by the
same command. With ``format=litdata`` the files are packed as they are, into chunks that
``data=streamed`` reads from wherever they lie.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.config.command_line import compose, console, report_errors, sentences
from kd_lightning.config.schema import check_targets, check_value
from kd_lightning.data.loading.image_files import ImageFiles, short_side
from kd_lightning.data.preparation.decode import prepare
from kd_lightning.data.preparation.pack import pack_tree
from kd_lightning.data.streamed import Streamed

FORMATS = ("arrays", "litdata")
OF_A_RUN = ("train_per_class", "label_noise", "mixing")  # all samples are kept, as they are


def prepared(*overrides: str, config_dir: str | Path | None = None) -> Path:
    """The folder that was written, from Python, with the overrides of the command line.

    Raises:
        UserError: something asked for cannot be done; the message says what to change.
    """
    with sentences(overrides):
        cfg = compose(overrides, config_dir, name="prepare")
        check(cfg)
        data = instantiate(cfg.data, _convert_="object")
        if not isinstance(data, ImageFiles):
            raise UserError(
                f"{type(data).__name__} has no image files to decode: prepare is for "
                "data=image_folder, imagenet and imagenet100"
            )
        if cfg.format == "litdata" and isinstance(data, Streamed):
            raise UserError(
                "data=streamed is packed already: copy its folder, or pack the tree of images that "
                "it was made of (data=…)"
            )
        size = short_side(data.image_size, data.crop_fraction) if cfg.size is None else cfg.size
        out = Path(cfg.out).expanduser()
        data.prepare_data()
        if cfg.format == "litdata":
            pack_tree(data, out, say)
        else:
            prepare(data, out, size, say)
    return out


def check(cfg: DictConfig) -> None:
    """Raises ``UserError`` for a value that is missing, of the wrong kind, or without effect."""
    if OmegaConf.is_missing(cfg, "out"):
        raise UserError("say where the prepared images go (out=…)")
    check_value(cfg, "out", str, "out")
    check_value(cfg, "size", int | None, "size")
    if cfg.format not in FORMATS:
        raise unknown("format", str(cfg.format), FORMATS, "format")
    if cfg.format == "litdata" and cfg.size is not None:
        raise UserError(
            f"size={cfg.size} has no effect with format=litdata, which keeps the files as they "
            "are: leave it out"
        )
    check_targets(cfg, "")
    for key in OF_A_RUN:
        if cfg.data.get(key):
            raise UserError(
                f"data.{key} is for runs, and has no effect on what is prepared: leave it out, and "
                "say it with data=prepared"
            )


def say(sentence: str) -> None:
    console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def main(words: Sequence[str] | None = None) -> None:
    """The command line: a person's mistake is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m kd_lightning.prepare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("overrides", nargs="+", help="data=…, data.root=…, out=…, size=…")
    parser.add_argument("--config-dir", type=Path, help="a folder of your own YAML")
    given = parser.parse_args(words)
    with report_errors():
        prepared(*given.overrides, config_dir=given.config_dir)


if __name__ == "__main__":
    main()
