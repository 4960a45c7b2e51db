"""Our parameter paths <-> the names of the official PyTorch code."""

import re

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

# Submodules of the motion blocks, by our name.
_BLOCK_MODULES = (
    (r"reduction_conv", "chnl_reduction.0"),
    (r"reduction_bn", "chnl_reduction.1"),
    (r"transform(\d)_depthwise", r"flow_refinement.conv\1.0"),
    (r"transform(\d)_depthwise_bn", r"flow_refinement.conv\1.1"),
    (r"transform(\d)_pointwise", r"flow_refinement.conv\1.3"),
    (r"transform(\d)_pointwise_bn", r"flow_refinement.conv\1.4"),
    (r"downsample_conv", "selfy.stss_transformation.downsample.0"),
    (r"downsample_bn", "selfy.stss_transformation.downsample.1"),
    (r"extraction(\d)_conv", r"selfy.stss_extraction.conv\1.0"),
    (r"extraction(\d)_bn", r"selfy.stss_extraction.conv\1.1"),
    (r"integration([012])_conv", r"selfy.stss_integration.conv\1.0"),
    (r"integration([012])_bn", r"selfy.stss_integration.conv\1.1"),
    (r"integration3_conv", "selfy.stss_integration.conv3_fuse.1"),
    (r"integration3_bn", "selfy.stss_integration.conv3_fuse.2"),
    (r"upsample_conv", "selfy.stss_integration.upsample.0"),
    (r"upsample_bn", "selfy.stss_integration.upsample.1"),
)

# Submodules of a residual block.
_DOWNSAMPLE = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}

CLASSIFIER = "fc1"
# What the same classifier is called with dropout, in torchvision, and after the TSM repository's wrapping.
CLASSIFIER_ALIASES = ("new_fc", "fc")

# Present in MotionSqueeze's networks, used by none.
UNUSED = re.compile(r"bn2\.(weight|bias|running_mean|running_var)|(.*\.)?num_batches_tracked")


def torch_name(path: tuple[str, ...], *, only_block: bool) -> str:
    """The official name of the parameter or statistic at ``path``, without any prefix.

    Args:
        path: keys from below "params" or "batch_stats" to the array, such as ("backbone", "conv1", "kernel").
        only_block: whether the network has one motion block. The official networks do; further blocks have no
            official name and are called ``blocks.<site>.<path>``.

    >>> torch_name(("backbone", "layer2_0", "downsample_bn", "scale"), only_block=True)
    'layer2.0.downsample.1.weight'
    >>> torch_name(("backbone", "blocks_res3", "transform2_pointwise_bn", "var"), only_block=True)
    'flow_refinement.conv2.4.running_var'
    """
    room, *modules, leaf = path
    leaf = LEAVES.get(leaf, leaf)
    if room == "classifier":
        return f"{CLASSIFIER}.{leaf}"
    first, *rest = modules
    if first.startswith("blocks_"):
        if only_block and len(rest) == 1:
            for ours, theirs in _BLOCK_MODULES:
                if found := re.fullmatch(ours, rest[0]):
                    return f"{found.expand(theirs)}.{leaf}"
        return ".".join(("blocks", first.removeprefix("blocks_"), *rest, leaf))
    return ".".join((first.replace("_", "."), *(_DOWNSAMPLE.get(name, name) for name in rest), leaf))


def strip_prefixes(names: list[str]) -> dict[str, str]:
    """Map the names of a checkpoint to names without prefix, with the classifier under its common name.

    The prefix is whatever stands before the first residual block, such as ``module.base_model.``; the classifier may
    stand one or more levels above it.

    >>> strip_prefixes(["module.base_model.layer1.0.bn1.weight", "module.new_fc.weight"])
    {'module.base_model.layer1.0.bn1.weight': 'layer1.0.bn1.weight', 'module.new_fc.weight': 'fc1.weight'}
    """
    anchor = "layer1.0.bn1.weight"
    prefix = next((name.removesuffix(anchor) for name in names if name.endswith(anchor)), "")
    parts = prefix.split(".")[:-1]
    prefixes = [".".join(parts[:end]) + "." for end in range(len(parts), 0, -1)]
    plain = {}
    for name in names:
        short = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
        short = short.replace(".net.", ".")  # the TSM repository wraps the shifted convolution
        head, _, tail = short.partition(".")
        plain[name] = f"{CLASSIFIER}.{tail}" if head in CLASSIFIER_ALIASES else short
    return plain
