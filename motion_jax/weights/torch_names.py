"""Our parameter paths <-> the names of the official PyTorch code."""

import re
from collections.abc import Sequence

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

# Submodules of the backbones, by our name: ResNets as in torchvision, MobileNet-V2 as in the TSM repository, I3D as in
# its port to PyTorch (hassony2/kinetics_i3d_pytorch).
_BACKBONE_MODULES = (
    (r"(layer\d)_(\d+)\.downsample_conv", r"\1.\2.downsample.0"),
    (r"(layer\d)_(\d+)\.downsample_bn", r"\1.\2.downsample.1"),
    (r"(layer\d)_(\d+)\.(\w+)", r"\1.\2.\3"),
    (r"stem_conv", "features.0.0"),
    (r"stem_bn", "features.0.1"),
    # The first inverted residual has no expansion, so that its later layers have lower numbers.
    (r"features_1\.depthwise_conv", "features.1.conv.0"),
    (r"features_1\.depthwise_bn", "features.1.conv.1"),
    (r"features_1\.project_conv", "features.1.conv.3"),
    (r"features_1\.project_bn", "features.1.conv.4"),
    (r"features_(\d+)\.expand_conv", r"features.\1.conv.0"),
    (r"features_(\d+)\.expand_bn", r"features.\1.conv.1"),
    (r"features_(\d+)\.depthwise_conv", r"features.\1.conv.3"),
    (r"features_(\d+)\.depthwise_bn", r"features.\1.conv.4"),
    (r"features_(\d+)\.project_conv", r"features.\1.conv.6"),
    (r"features_(\d+)\.project_bn", r"features.\1.conv.7"),
    (r"head_conv", "features.18.0"),
    (r"head_bn", "features.18.1"),
    (r"(conv3d_\w+|mixed_\w+\.branch_0)\.conv", r"\1.conv3d"),
    (r"(conv3d_\w+|mixed_\w+\.branch_0)\.bn", r"\1.batch3d"),
    (r"(mixed_\w+\.branch_\d)_(\d)\.conv", r"\1.\2.conv3d"),
    (r"(mixed_\w+\.branch_\d)_(\d)\.bn", r"\1.\2.batch3d"),
)

# Our names of what the official code has as a transposed convolution.
TRANSPOSED = ("upsample_conv",)

CLASSIFIER = "fc1"
# What the same classifier is called with dropout, in torchvision's ResNets, in MobileNet-V2 (after a dropout in
# torchvision), and in I3D.
_CLASSIFIER_ALIASES = re.compile(r"^(?:new_fc|fc|classifier|classifier\.1|conv3d_0c_1x1\.conv3d)(?=\.(?:weight|bias)$)")

# What the official networks call it, by the backbone's first layer of ours.
_OFFICIAL_CLASSIFIERS = {"conv1": CLASSIFIER, "stem_conv": "classifier", "conv3d_1a_7x7": "conv3d_0c_1x1.conv3d"}
# The classifier of a network in the official wrapper, outside of its base model, where there is dropout before it.
_WRAPPED, _WRAPPED_CLASSIFIER = "base_model.", "new_fc"

# Layers of MobileNet-V2 whose first convolution the TSM repository wraps with the shift.
_SHIFTED = re.compile(r"(features\.(?:3|5|6|8|9|10|12|13|15|16)\.conv\.0)\.(\w+)")

# Three-dimensional convolutions of the official code, where ours may have fewer axes.
_THREE_DIMENSIONAL = re.compile(r"(?:conv3d_|mixed_|selfy\.stss_(?:extraction|integration)\.).*")

# One tensor that every network of a kind has, and none of the others: what stands before it is the prefix.
_ANCHORS = ("layer1.0.bn1.weight", "features.0.1.weight", "mixed_3b.branch_0.batch3d.weight")

# torchvision nests the layers of an inverted residual: this one is there and not in the TSM repository's layout.
_NESTED = "features.1.conv.0.0.weight"

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
    >>> torch_name(("backbone", "features_5", "expand_bn", "mean"), only_block=True)
    'features.5.conv.1.running_mean'
    >>> torch_name(("backbone", "blocks_res3", "transform2_pointwise_bn", "var"), only_block=True)
    'flow_refinement.conv2.4.running_var'
    """
    room, *modules, leaf = path
    leaf = LEAVES.get(leaf, leaf)
    if room == "classifier":
        return f"{CLASSIFIER}.{leaf}"
    first, *rest = modules
    if first.startswith("blocks_"):
        if only_block and len(rest) == 1 and (module := _translated(rest[0], _BLOCK_MODULES)):
            return f"{module}.{leaf}"
        return ".".join(("blocks", first.removeprefix("blocks_"), *rest, leaf))
    ours = ".".join(modules)
    return f"{_translated(ours, _BACKBONE_MODULES) or ours}.{leaf}"


def full_name(short: str, *, first_layer: str, shifted: bool, prefix: str, dropout: bool) -> str:
    """A name as the official code has it, from one without prefix: the reverse of ``strip_prefixes``.

    Args:
        short: as from ``torch_name``.
        first_layer: our name of the backbone's first layer, which tells its kind.
        shifted: whether the backbone shifts channels between frames.
        prefix: such as ``module.base_model.``.
        dropout: whether the classifier has dropout before it: the official wrapper then keeps it outside of its
            ``base_model``.

    >>> full_name("fc1.bias", first_layer="conv1", shifted=True, prefix="module.base_model.", dropout=True)
    'module.new_fc.bias'
    >>> full_name("features.3.conv.0.weight", first_layer="stem_conv", shifted=True, prefix="", dropout=True)
    'features.3.conv.0.net.weight'
    """
    module, _, leaf = short.rpartition(".")
    if module == CLASSIFIER:
        if dropout and prefix.endswith(_WRAPPED):
            return f"{prefix.removesuffix(_WRAPPED)}{_WRAPPED_CLASSIFIER}.{leaf}"
        return f"{prefix}{_OFFICIAL_CLASSIFIERS[first_layer]}.{leaf}"
    if shifted:
        short = _SHIFTED.sub(r"\1.net.\2", short)
    return prefix + short


def kernel_rank(short: str, *, first_layer: str, rank: int) -> int:
    """How many spatial axes the official code's kernel of a layer has, where ours has ``rank``.

    >>> kernel_rank("selfy.stss_extraction.conv0.0.weight", first_layer="conv1", rank=2)
    3
    """
    if short.startswith(f"{CLASSIFIER}."):
        return {"conv1": 1, "stem_conv": 0, "conv3d_1a_7x7": 3}[first_layer]
    return max(rank, 3) if _THREE_DIMENSIONAL.fullmatch(short) else rank


def _translated(ours: str, table: Sequence[tuple[str, str]]) -> str | None:
    """The official name in the first row of the table that fits; None where none does."""
    return next((found.expand(theirs) for pattern, theirs in table if (found := re.fullmatch(pattern, ours))), None)


def strip_prefixes(names: list[str]) -> dict[str, str]:
    """Map the names of a checkpoint to names without prefix, with the classifier under its common name.

    The prefix is whatever stands before the first block, such as ``module.base_model.``; the classifier may stand one
    or more levels above it. torchvision's names in MobileNet-V2 become the TSM repository's.

    >>> strip_prefixes(["module.base_model.layer1.0.bn1.weight", "module.new_fc.weight"])
    {'module.base_model.layer1.0.bn1.weight': 'layer1.0.bn1.weight', 'module.new_fc.weight': 'fc1.weight'}
    """
    prefix = next((name.removesuffix(anchor) for name in names for anchor in _ANCHORS if name.endswith(anchor)), "")
    parts = prefix.split(".")[:-1]
    prefixes = [".".join(parts[:end]) + "." for end in range(len(parts), 0, -1)]
    nested = f"{prefix}{_NESTED}" in names
    plain = {}
    for name in names:
        short = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
        short = short.replace(".net.", ".")  # the TSM repository wraps the shifted convolution
        short = _unnested(short) if nested else short
        plain[name] = _CLASSIFIER_ALIASES.sub(CLASSIFIER, short)
    return plain


def _unnested(name: str) -> str:
    """The TSM repository's name for torchvision's name of a layer in a MobileNet-V2.

    torchvision groups convolution, BN and activation, but leaves the last convolution and BN, the linear ones, alone.

    >>> [_unnested(f"features.2.conv.{layer}.weight") for layer in ("0.0", "1.1", "2", "3")]
    ['features.2.conv.0.weight', 'features.2.conv.4.weight', 'features.2.conv.6.weight', 'features.2.conv.7.weight']
    """
    found = re.fullmatch(r"features\.(\d+)\.conv\.(\d)(?:\.(\d))?\.(\w+)", name)
    if not found:
        return name
    block, group, layer, leaf = found.groups()
    if layer is None:
        linear = 1 if block == "1" else 2
        group, layer = linear, int(group) - linear
    return f"features.{block}.conv.{3 * int(group) + int(layer)}.{leaf}"
