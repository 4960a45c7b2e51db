"""MobileNet-V2 and I3D on the NumPy reference of their layers, from the official names of their weights."""

import numpy as np

from motion_jax.inspection import reference

# Inverted residuals of MobileNet-V2 by the number of their feature: stride, and whether they have a shortcut.
STRIDES = {2: 2, 4: 2, 7: 2, 14: 2}
SHORTCUTS = (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)

# GoogLeNet's Table 1 under the names of I3D's code: input channels, then 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool.
INCEPTION = {
    "mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


def convolve(x, weight, stride=1):
    """Convolve with PyTorch's (o, i, *window), or (c, 1, *window) depthwise; one stride for height and width."""
    strides = [1] * (weight.ndim - 4) + [stride] * 2
    return reference.convolution(x, np.moveaxis(weight, (1, 0), (-2, -1)), strides=strides)


def batch_norm(x, weights, name):
    """Normalise with the running statistics under PyTorch's names."""
    mean, var, scale, bias = (weights[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return reference.batch_norm(x, mean=mean, var=var, scale=scale, bias=bias)


def mobilenet_v2(weights, clips, *, shifted):
    """Logits of the TSM repository's MobileNet-V2 for normalised clips (b, t, h, w, 3)."""

    def layer(x, conv, bn, *, stride=1, activated=True):
        name = f"{conv}.net" if f"{conv}.net.weight" in weights else conv
        x = batch_norm(convolve(x, weights[f"{name}.weight"], stride), weights, bn)
        return np.clip(x, 0, 6) if activated else x

    x = layer(clips, "features.0.0", "features.0.1", stride=2)
    for number in range(1, 18):
        name, before = f"features.{number}.conv", x
        first = 0
        if number > 1:
            x = reference.temporal_shift(x, fold_div=8) if shifted and number in SHORTCUTS else x
            x = layer(x, f"{name}.0", f"{name}.1")
            first = 3
        x = layer(x, f"{name}.{first}", f"{name}.{first + 1}", stride=STRIDES.get(number, 1))
        x = layer(x, f"{name}.{first + 3}", f"{name}.{first + 4}", activated=False)
        x = x + before if number in SHORTCUTS else x
    x = layer(x, "features.18.0", "features.18.1").mean(axis=(2, 3))  # (b, t, c)
    logits = x @ weights["classifier.weight"].T.astype(np.float64) + weights["classifier.bias"]
    return logits.mean(axis=1)


def i3d_names_shapes(num_classes):
    """The state dict of I3D's port to PyTorch, but for a first kernel of 1x7x7."""
    units = {
        "conv3d_1a_7x7": (64, 3, 1, 7, 7),
        "conv3d_2b_1x1": (64, 64, 1, 1, 1),
        "conv3d_2c_3x3": (192, 64, 3, 3, 3),
    }
    for name, (inputs, one, reduce3, three, reduce5, five, pool) in INCEPTION.items():
        units |= {
            f"{name}.branch_0": (one, inputs, 1, 1, 1),
            f"{name}.branch_1.0": (reduce3, inputs, 1, 1, 1),
            f"{name}.branch_1.1": (three, reduce3, 3, 3, 3),
            f"{name}.branch_2.0": (reduce5, inputs, 1, 1, 1),
            f"{name}.branch_2.1": (five, reduce5, 3, 3, 3),
            f"{name}.branch_3.1": (pool, inputs, 1, 1, 1),
        }
    shapes = {}
    for name, shape in units.items():
        shapes[f"{name}.conv3d.weight"] = (shape, "float32")
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.batch3d.{leaf}"] = (shape[:1], "float32")
        shapes[f"{name}.batch3d.num_batches_tracked"] = ((), "int64")
    shapes["conv3d_0c_1x1.conv3d.weight"] = ((num_classes, 1024, 1, 1, 1), "float32")
    shapes["conv3d_0c_1x1.conv3d.bias"] = ((num_classes,), "float32")
    return shapes


def i3d(weights, clips):
    """Logits and stages by name for normalised clips (b, t, h, w, 3)."""
    stages = {}

    def unit(x, name, stride=1):
        x = convolve(x, weights[f"{name}.conv3d.weight"], stride)
        return reference.relu(batch_norm(x, weights, f"{name}.batch3d"))

    def pool(x, window, strides):
        half = [(side // 2, side // 2) for side in window]
        return reference.max_pool(x, window=window, strides=strides, padding=half)

    x = pool(unit(clips, "conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
    x = pool(unit(unit(x, "conv3d_2b_1x1"), "conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    for name in INCEPTION:
        if name == "mixed_4b":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if name == "mixed_5b":
            odd = [(0, size % 2) for size in x.shape[1:4]]
            x = reference.max_pool(x, window=(2, 2, 2), strides=(2, 2, 2), padding=odd)
        x = np.concatenate(
            [
                unit(x, f"{name}.branch_0"),
                unit(unit(x, f"{name}.branch_1.0"), f"{name}.branch_1.1"),
                unit(unit(x, f"{name}.branch_2.0"), f"{name}.branch_2.1"),
                unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.branch_3.1"),
            ],
            axis=-1,
        )
        stages[name] = x
    weight, bias = (weights[f"conv3d_0c_1x1.conv3d.{leaf}"] for leaf in ("weight", "bias"))
    return x.mean(axis=(1, 2, 3)) @ weight.reshape(len(weight), -1).T.astype(np.float64) + bias, stages
