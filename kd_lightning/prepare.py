"""Decodes a folder of images once, into one uint8 array for each part.

    python -m kd_lightning.prepare data=imagenet100 data.root=/in1k out=/in100
    python -m kd_lightning.run data=prepared data.root=/in100 recipe=imagenet100

The short side of each image is resized to ``size`` (by default that of
evaluation, 256 for images of 224), and the central square is kept; with
``data.resize=squash`` or ``letterbox``, the whole image is resized to this
square. ``data.num_workers`` processes decode. The same command resumes an
interrupted preparation. With ``format=litdata`` the files are not decoded but
packed unchanged into chunks, which ``data=streamed`` reads from a folder or
from remote storage.
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.config.command_line import as_user_errors, compose, report_errors
from kd_lightning.config.console import say
from kd_lightning.config.options import command_parser

# Packages that take seconds to import are imported in the functions: --help needs none of them.

FORMATS = ("arrays", "litdata")
RUN_ONLY_KEYS = ("train_per_class", "label_noise", "mixing")  # preparation keeps all samples


def prepare(*overrides: str, config_dir: str | Path | None = None) -> Path:
    """Prepares images from Python, with the overrides of the command line; returns the folder.

    Raises:
        UserError: the request is impossible; the message says what to change.
    """
    from hydra.utils import instantiate

    from kd_lightning.data.loading.image_files import ImageFiles
    from kd_lightning.data.preparation.decode import decode_tree
    from kd_lightning.data.preparation.pack import pack_tree
    from kd_lightning.data.streamed import Streamed

    with as_user_errors(overrides):
        cfg = compose(overrides, config_dir, name="prepare")
        check_config(cfg)
        data = instantiate(cfg.data, _convert_="object")
        if not isinstance(data, ImageFiles):
            raise UserError(
                f"{type(data).__name__} has no image files to decode: prepare is for "
                "data=image_folder, imagenet and imagenet100"
            )
        if cfg.format == "litdata" and isinstance(data, Streamed):
            raise UserError(
                "data=streamed is already packed: copy its folder, or pack the original images "
                "(data=…)"
            )
        size = data.eval_transform().side if cfg.size is None else cfg.size
        out = Path(cfg.out).expanduser()
        data.prepare_data()
        if cfg.format == "litdata":
            pack_tree(data, out, say)
        else:
            decode_tree(data, out, size, say)
    return out


def check_config(cfg: DictConfig) -> None:
    """Raises ``UserError`` for a value that is missing, has the wrong type, or has no effect."""
    from kd_lightning.config.schema import check_targets, check_value

    if OmegaConf.is_missing(cfg, "out"):
        raise UserError("say where the prepared images go (out=…)")
    check_value(cfg, "out", str, "out")
    check_value(cfg, "size", int | None, "size")
    if cfg.format not in FORMATS:
        raise unknown("format", str(cfg.format), FORMATS, "format")
    if cfg.format == "litdata" and cfg.size is not None:
        raise UserError(
            f"size={cfg.size} has no effect with format=litdata, which does not change the files: "
            "remove it"
        )
    check_targets(cfg, "")
    for key in RUN_ONLY_KEYS:
        if cfg.data.get(key):
            raise UserError(
                f"data.{key} is for runs and has no effect on preparation: remove it, and set it "
                "with data=prepared"
            )


def main(words: Sequence[str] | None = None) -> None:
    """The command line. A user error is printed as one sentence, with exit code 2."""
    parser = command_parser("prepare", __doc__, takes_keys=True)
    parser.add_argument("overrides", nargs="+", help="data=…, data.root=…, out=…, size=…")
    parser.add_argument("--config-dir", type=Path, help="a folder with your own YAML files")
    arguments = parser.parse_args(words)
    with report_errors():
        prepare(*arguments.overrides, config_dir=arguments.config_dir)


if __name__ == "__main__":
    main()
