"""``kd_lightning.models`` exports what its modules define, and its import is cheap."""

import subprocess
import sys

from package_exports import check_exports, public_names

from kd_lightning import models

BLOCKS = {  # of which the nets in cifar.py and time_series.py are built
    "InceptionModule",
    "InvertedResidual",
    "PreActivationBlock",
    "ResidualBlock",
    "SamePaddingConv",
    "ShuffleUnit",
    "ShuffleV2Unit",
    "blocks_per_stage",
    "check_same_length",
    "conv",
    "conv_norm",
    "stack_blocks",
}
WEIGHTS = {  # steps of load_weights and checks of its arguments
    *("check_weights_choice", "check_finite", "choose_fit", "load_state"),
    *("as_mapping", "facts_of", "facts_of_student", "file_in", "first_line", "weights_in"),
    *("check_content", "is_safetensors", "unreadable"),
}
LAYERS = {"is_layer_output", "outline"}  # parts of layer_shapes and of error messages
STAGES = {  # steps of net_stages
    *("net_stages", "last_map", "before_the_pool", "maps_in_order"),
    *("named_stages", "learns", "last_of_each_shape"),
}
PARTS = {  # of FeaturePyramid and of tail_after
    *("TopDown", "PyramidHead", "PathTracer", "cut_before", "check_tail"),
    "BatchNorm",  # of the networks of diffusion_distillation, knowledge_review and others
}
MAPS = {  # steps of apply_operations and of map_regressor
    *("boxes", "drop_channels", "move", "per_sample", "shuffle_channels", "resizing"),
    "map_regressor",  # an export would hide the module
    "projector",  # of projected_resnet
}
BY_SHAPE = {"choose_nets", "kind_of", "net_for", "places"}  # how a run uses net_by_shape
# modules with the steps of timm_classifier and of load_weights
STEPS = ("timm_creation", "timm_adaptation", "matching", "torchvision_files")
STEPS += ("diffusion", "denoisers")  # of diffusion_distillation
EXPENSIVE = {"huggingface_hub", "lightning", "scipy", "sklearn", "timm", "torchmetrics"}


def test_every_public_name_is_exported() -> None:
    steps = set().union(*(public_names(models)[module] for module in STEPS))
    chosen = BLOCKS | WEIGHTS | LAYERS | STAGES | PARTS | MAPS | BY_SHAPE
    check_exports(models, chosen | steps | {"LogitsOnly"})


def test_importing_the_package_loads_no_expensive_library() -> None:
    code = f"import sys, kd_lightning.models; print({EXPENSIVE} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
