"""Creates timm's nets and finds their weights. Wrong names and a missing network fail at once.

timm is imported inside the functions, because the import takes seconds and most runs do not need
timm. The network is checked here, because timm itself retries a download for most of a minute.
"""

import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from kd_lightning.base.errors import THIS_COMMAND, UserError, unknown
from kd_lightning.models.checkpoints import KEY, first_line

TIMEOUT = 5.0  # seconds without a response until the network counts as missing


class NoNetwork(UserError):
    """timm's weights are neither on this machine nor can they be downloaded.

    Args:
        name: of the timm net.
        reason: why there is no network.
        url: of the weights.
        key: the configuration key that asks for the weights.
        instead: the override with which the run does without them.
    """

    def __init__(
        self, name: str, reason: object, url: str, key: str = KEY, instead: str = f"{KEY}=none"
    ) -> None:
        super().__init__(
            f"timm's weights for {name} are not on this machine and there is no network to load "
            f"them from ({reason}): download {url} on another machine and give that file "
            f"({key}=…), or do without them: {THIS_COMMAND} {instead}"
        )
        self.facts = (name, reason, url)


def timm_config(name: str, pretrained: bool) -> Any:
    """timm's ``PretrainedCfg`` for ``name``, which may have a tag: "resnet50.a1_in1k".

    Args:
        pretrained: whether the weights are needed too, and not only the architecture.

    Raises:
        UserError: there is no such net or no such tag, or the net has no weights.
    """
    import timm

    architecture, _, tag = name.partition(".")
    architectures = timm.list_models()
    if architecture not in architectures:
        raise unknown("timm model", architecture, architectures, "…name")
    tagged = [full for full in timm.list_pretrained() if full.partition(".")[0] == architecture]
    if tag and name not in tagged:
        raise unknown(f"weights of timm's {architecture}", name, tagged or ["(none)"], "…name")
    config = timm.get_pretrained_cfg(name)
    if pretrained and not config.has_weights:
        raise UserError(f"timm has no weights for {name}: expected none or a file ({KEY}=…)")
    return config


def create_net(
    name: str,
    config: Any,
    pretrained: bool,
    num_classes: int,
    in_chans: int,
    drop_path: float,
    input_size: int | None,
) -> nn.Module:
    """The timm net ``name``, without dropout of its own.

    Raises:
        UserError: see ``create_model``; or the net has no stochastic depth, or cannot be built for
            this size.
    """
    options, messages = {}, {}  # of the arguments that some nets do not support
    if drop_path > 0:
        options["drop_path_rate"] = drop_path
        messages["drop_path_rate"] = f"{name} has no stochastic depth: expected 0 (…drop_path=…)"
    if config.fixed_input_size and input_size != config.input_size[-1]:
        options["img_size"] = input_size
        messages["img_size"] = (
            f"{name} takes images of {config.input_size[-1]}, and cannot be built for {input_size}:"
            " choose another size (…input_size=…)"
        )
    try:
        net = create_model(
            name,
            config,
            pretrained,
            num_classes=num_classes,
            in_chans=in_chans,
            drop_rate=0.0,
            **options,
        )
    except (TypeError, AssertionError) as error:
        for argument, message in messages.items():
            if argument in str(error) or isinstance(error, AssertionError):
                raise UserError(message) from error
        raise
    if drop_path > 0 and not any(getattr(m, "drop_prob", 0) for m in net.modules()):
        raise UserError(messages["drop_path_rate"])
    switch_off_defaults(net, drop_path)
    return net


def switch_off_defaults(net: nn.Module, drop_path: float) -> None:
    """Sets the rates to 0 that some nets have unasked: stochastic depth in Swin, NesT and others,
    dropout in the positions of some transformers.
    """
    for module in net.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        if drop_path == 0 and getattr(module, "drop_prob", None):
            module.drop_prob = 0.0


def create_model(name: str, config: Any, pretrained: bool, **options: Any) -> nn.Module:
    """``timm.create_model``, with timm's weights from the cache or else from the network.

    Raises:
        UserError: the weights are not in the cache and cannot be downloaded.
    """
    import timm

    if not pretrained:
        return timm.create_model(name, **options)
    file = cached_file(config)
    if file is None:
        require_network(config, name)
    overlay = None if file is None else {"file": file}
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except OSError as error:
        raise UserError(
            f"timm's weights for {name} could not be loaded: {first_line(error)} ({KEY}=…)"
        ) from error


def cached_file(config: Any) -> str | None:
    """The file of a net's weights from an earlier download; None if there is none."""
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        repo, _, revision = config.hf_hub_id.partition("@")
        filenames = ["model.safetensors", "pytorch_model.bin"]
        if config.hf_hub_filename:
            filenames = [config.hf_hub_filename]
        for filename in filenames:
            path = try_to_load_from_cache(repo, filename, revision=revision or None)
            if isinstance(path, str):
                return path
    if config.url:
        file = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(config.url)
        if file.is_file():
            return str(file)
    return None


def require_network(config: Any, name: str) -> None:
    """Raises ``UserError`` within seconds if timm's weights cannot be downloaded."""
    from huggingface_hub import constants

    reason = "it is switched off"
    if not (config.hf_hub_id and constants.HF_HUB_OFFLINE):
        url = constants.ENDPOINT if config.hf_hub_id else config.url
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                return
        except urllib.error.HTTPError:
            return  # any response shows that there is a network
        except OSError as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLError):
                return  # a response too, and the library has certificates of its own
    raise NoNetwork(name, reason, weights_url(config))


def weights_url(config: Any) -> str:
    """The address of a net's weights."""
    from huggingface_hub import hf_hub_url

    if not config.hf_hub_id:
        return config.url
    repo, _, revision = config.hf_hub_id.partition("@")
    filename = config.hf_hub_filename or "model.safetensors"
    return hf_hub_url(repo, filename, revision=revision or None)
