"""What can be wrong with a call of an op: a change of a right one's arguments, and what the error must say."""

from __future__ import annotations

import torch
from right_calls import DROP_APPLY, PACKED
from spoils import (
    Spoil,
    alias,
    cut,
    in_table,
    inside,
    item,
    overlap_grad_with_param,
    put,
    reinterpreted,
    shorten,
    strided,
    transposed,
)
from torch import Tensor

ENTRIES = torch.arange(25, dtype=torch.int32)

# What is done to a right call, and what the error must say.
WRONG: dict[str, list[tuple[Spoil, str]]] = {
    "accumulate_": [
        (shorten("grad"), r"grad has 1 tensors"),
        (shorten("frozen"), r"frozen has 1 tensors"),
        (put("grad", []), r"grad has 0 tensors"),
        (put("score", []), r"has 0$"),
        (item("grad", 0, lambda t: t[:3]), r"grad\[0\] has shape \[3, 6\].*\[4, 6\]"),
        (item("grad", 1, lambda t: t.view(2, 5)), r"grad\[1\] has shape \[2, 5\].*\[10\]"),
        (item("score", 1, Tensor.double), r"score\[1\] has dtype \S*float64, expected \S*float32"),
        (item("score", 1, Tensor.bfloat16), r"score\[1\] has dtype \S*bfloat16, expected \S*float32"),
        (item("grad", 0, Tensor.double), r"grad\[0\] has dtype \S*float64"),
        (item("grad", 0, Tensor.int), r"grad\[0\] has dtype \S*int32"),
        (item("score", 0, transposed), r"score\[0\] is not contiguous"),
        (item("grad", 0, transposed), r"grad\[0\] is not contiguous"),
        (item("frozen", 0, strided), r"frozen\[0\] is not contiguous"),
        (item("frozen", 0, lambda t: t[:2]), r"frozen\[0\] has 2 entries, expected 3"),
        (item("frozen", 0, Tensor.int), r"frozen\[0\] has dtype \S*int32, expected \S*uint8"),
        (item("grad", 1, lambda t: t.to("meta")), r"grad\[1\] is on \S*meta"),
        (alias("grad", 0, "score", 0), r"share memory"),
    ],
    "select": [
        (shorten("k"), r"k has 1 "),
        (put("k", []), r"k has 0 tensors"),
        (put("score", []), r"score has 0$"),
        (put("k", [25, 3]), r"k\[0\] is 25, expected 0 to 24"),
        (put("k", [5, -1]), r"k\[1\] is -1, expected 0 to 10"),
        (item("score", 1, Tensor.double), r"score\[1\] has dtype \S*float64, expected \S*float32"),
        (item("score", 1, Tensor.half), r"score\[1\] has dtype \S*float16, expected \S*float32"),
        (item("score", 0, transposed), r"score\[0\] is not contiguous"),
        (item("score", 1, lambda t: t.to("meta")), r"score\[1\] is on \S*meta"),
        (item("score", 1, lambda t: t / torch.arange(10, device=t.device).sub(4) * 0), r"score\[1\] is NaN at entry 4"),
    ],
    "drop_apply_sgd_": [],
    "drop_apply_adamw_": [
        (alias("exp_avg", 1, "exp_avg_sq", 1), r"exp_avg\S*\[1\] share memory"),
        (alias("updates", 0, "index", 0), r"share memory"),
        (inside("correction", "exp_avg", 1), r"share memory"),
        (item("correction", None, Tensor.double), r"correction has dtype \S*float64, expected \S*float32"),
        (item("correction", None, Tensor.int), r"correction has dtype \S*int32, expected \S*float32"),
        (item("correction", None, lambda t: t[:1]), r"correction has shape \[1, 5\], expected \[2, n\]"),
        (item("correction", None, lambda t: t[0]), r"correction has shape \[5\], expected \[2, n\]"),
        (item("correction", None, lambda t: t[:, :0]), r"correction has shape \[2, 0\], expected \[2, n\]"),
        (item("correction", None, lambda t: t.view(5, 2)), r"correction has shape \[5, 2\], expected \[2, n\]"),
        (item("correction", None, lambda t: t[None]), r"correction has shape \[1, 2, 5\], expected \[2, n\]"),
        (item("correction", None, transposed), r"correction is not contiguous"),
        (item("correction", None, lambda t: t.to("meta")), r"correction is on \S*meta"),
    ],
    "mask_": [
        (item("grad", 0, transposed), r"grad\[0\] is not contiguous"),
        (item("grad", 0, Tensor.double), r"grad\[0\] has dtype \S*float64"),
        (alias("grad", 1, "grad", 0), r"grad\[[01]\] share memory"),
        (put("grad", []), r"grad has 0$"),
        (put("index", []), r"index has 0 tensors"),
        (inside("step", "grad", 0), r"grad\[0\] share memory|step share memory"),
    ],
}
STATE = {
    "drop_apply_sgd_": {"momentum_buffer": "float32"},
    "drop_apply_adamw_": {"exp_avg": "float32", "exp_avg_sq": "float32", "updates": "int32"},
}
for op, state in STATE.items():
    WRONG[f"{op}, packed"] = [
        (put("places", None), r"packed is given, but places is None; give both or neither"),
        (put("packed", None), r"places is given, but packed is None|grad has 0 tensors"),
        (put("grad", [torch.randn(4, 6)]), r"packed is given, but grad has 1 tensors; give an empty list"),
        (inside("places", "param", 0), r"share memory"),
    ]
    for kind, dtype in state.items():
        WRONG[op] += [
            (put(kind, []), rf"{kind} has 0 tensors"),
            (shorten(kind), rf"{kind} has 1 tensors"),
            (item(kind, 1, strided), rf"{kind}\[1\] is not contiguous"),
            (item(kind, 0, lambda t: t[:3]), rf"{kind}\[0\] has 3 entries, expected 4"),
            (item(kind, 1, lambda t: t.repeat(2)), rf"{kind}\[1\] has 20 entries, expected 10"),
            (item(kind, 1, Tensor.bfloat16), rf"{kind}\[1\] has dtype \S*bfloat16, expected \S*{dtype}"),
            (item(kind, 0, Tensor.long), rf"{kind}\[0\] has dtype \S*int64, expected \S*{dtype}"),
            (item(kind, 0, lambda t: t.to("meta")), rf"{kind}\[0\] is on \S*meta"),
            (reinterpreted(kind, 1, "master", 1), r"share memory"),
        ]
    WRONG[op] += [
        (put("param", []), r"has 0$"),
        (put("grad", []), r"grad has 0 tensors"),
        (shorten("grad"), r"grad has 1 tensors"),
        (shorten("master"), r"master has 1 tensors"),
        (put("master", []), r"param\[1\] has dtype \S*bfloat16.*master is empty"),
        (item("grad", 0, lambda t: t.view(6, 4)), r"grad\[0\] has shape \[6, 4\].*\[4, 6\]"),
        (item("grad", 0, Tensor.bfloat16), r"grad\[0\] has dtype \S*bfloat16.*float32"),
        (item("grad", 1, Tensor.float), r"grad\[1\] has dtype \S*float32.*bfloat16"),
        (item("param", 0, Tensor.double), r"param\[0\] has dtype \S*float64"),
        (item("param", 0, transposed), r"param\[0\] is not contiguous"),
        (item("master", 0, lambda t: torch.zeros(4, device=t.device)), r"master\[0\] has 4 entries, expected 0"),
        (item("master", 1, lambda t: t[:9]), r"master\[1\] has 9 entries, expected 10"),
        (item("master", 1, Tensor.bfloat16), r"master\[1\] has dtype \S*bfloat16"),
        (put("lr", torch.tensor(0.1, dtype=torch.float64)), r"lr has dtype \S*float64, expected \S*float32"),
        (put("lr", torch.tensor([0.1, 0.2])), r"lr has 2 entries, expected 1"),
        (put("found_inf", torch.zeros(2)), r"found_inf has 2 entries, expected 1"),
        (put("grad_scale", torch.tensor(2)), r"grad_scale has dtype \S*int64"),
        *((inside(name, "param", 0), r"share memory") for name in ("lr", "step", "found_inf", "grad_scale")),
        *((in_table(kind), r"share memory") for kind, dtype in state.items() if dtype == "float32"),
        (alias("grad", 0, "param", 0), r"share memory"),
        (overlap_grad_with_param, r"share memory"),
    ]
for op in (*PACKED, "pack_"):
    WRONG.setdefault(op, []).extend(
        [
            (item("packed", None, Tensor.double), r"packed has dtype \S*float64, expected \S*float32 or \S*bfloat16"),
            (item("packed", None, Tensor.half), r"packed has dtype \S*float16, expected \S*float32 or \S*bfloat16"),
            (item("packed", None, strided), r"packed is not contiguous"),
            (item("places", None, Tensor.int), r"places has dtype \S*int32, expected \S*int64"),
            (item("places", None, lambda t: t[1:]), r"places (has 3 entries, expected 4|do not fit)"),
            (item("places", None, lambda t: t.to("meta")), r"places is on \S*meta"),
            (put("first", [3, 0]), r"places (has 4 entries, expected 3|do not fit)"),
        ]
    )
WRONG["drop_apply_sgd_, packed"].append(
    (lambda made: made.update(packed=made["momentum_buffer"][1]), r"packed.* share memory|share memory")
)
WRONG["pack_"] += [
    (shorten("index"), r"index has 1 tensors, but grad has 2"),
    (shorten("grad"), r"index has 2 tensors, but grad has 1"),
    (shorten("first"), r"first has 1 tensors, but grad has 2"),
    (shorten("ordinal"), r"ordinal has 1 tensors, but grad has 2"),
    (put("first", [-1, 2045]), r"first\[0\] is -1, expected 0 to 2147483644"),
    (put("ordinal", [0, -1]), r"ordinal\[1\] is -1"),
    (put("threshold", 65537), r"threshold is 65537, expected 0"),
    (put("step", torch.tensor(3.0)), r"step has dtype \S*float32, expected \S*int64"),
    (item("grad", 0, transposed), r"grad\[0\] is not contiguous"),
    (item("grad", 0, Tensor.double), r"grad\[0\] has dtype \S*float64"),
    (item("grad", 1, lambda t: t.to("meta")), r"grad\[1\] is on \S*meta"),
    (item("index", 0, Tensor.long), r"index\[0\] has dtype \S*int64, expected \S*int32"),
    (lambda made: made.update(packed=made["grad"][0].view(-1)), r"share memory"),
    (inside("places", "packed", None), r"share memory"),
    (inside("step", "packed", None), r"share memory"),
    (put("grad", []), r"grad has 0$"),
    (put("seed", -1), r"seed is -1, expected 0 to "),
]
WRONG["sampled_weight_grad_"] = [
    *((shorten(name), rf"{name} has 1 tensors, but grad_output has 2") for name in ("input", "index", "ordinal")),
    (shorten("grad_output"), r"input has 2 tensors, but grad_output has 1"),
    (shorten("first"), r"first has 1 tensors, but grad_output has 2"),
    (put("grad_output", []), r"grad_output has 0$"),
    (put("input", []), r"input has 0 tensors, but grad_output has 2"),
    (item("grad_output", 0, torch.flatten), r"grad_output\[0\] has shape \[280\], expected two dimensions"),
    (item("input", 1, lambda t: t[None]), r"input\[1\] has shape \[1, 3, 5\], expected two dimensions"),
    (item("input", 0, lambda t: t[1:]), r"input\[0\] has 69 tokens, but grad_output\[0\] has 70"),
    (item("input", 0, Tensor.bfloat16), r"input\[0\] has dtype \S*bfloat16, (but|expected) \S*.*float32"),
    (item("input", 1, Tensor.float), r"input\[1\] has dtype \S*float32, (but|expected) \S*.*bfloat16"),
    (item("grad_output", 0, Tensor.double), r"grad_output\[0\] has dtype \S*float64"),
    (item("grad_output", 0, transposed), r"grad_output\[0\] is not contiguous"),
    (item("input", 0, transposed), r"input\[0\] is not contiguous"),
    (item("grad_output", 1, lambda t: t.to("meta")), r"grad_output\[1\] is on \S*meta"),
    (item("input", 0, lambda t: t.to("meta")), r"input\[0\] is on \S*meta"),
    (item("packed", None, Tensor.bfloat16), r"packed has dtype \S*bfloat16, expected \S*float32"),
    (item("packed", None, strided), r"packed is not contiguous"),
    (item("places", None, Tensor.int), r"places has dtype \S*int32, expected \S*int64"),
    (item("places", None, lambda t: t[1:]), r"places (has 3 entries, expected 4|do not fit)"),
    (put("first", [-1, 2045]), r"first\[0\] is -1, expected 0 to 2147483644"),
    (put("ordinal", [0, -1]), r"ordinal\[1\] is -1"),
    (put("threshold", 65537), r"threshold is 65537, expected 0"),
    (put("seed", -1), r"seed is -1, expected 0 to "),
    (put("step", torch.tensor(3.0)), r"step has dtype \S*float32, expected \S*int64"),
    (item("index", 0, Tensor.long), r"index\[0\] has dtype \S*int64, expected \S*int32"),
    (item("index", 0, lambda t: ENTRIES.to(t.device)), r"index\[0\] has 25 entries, more than"),
    (lambda made: made.update(packed=made["grad_output"][0].view(-1)), r"share memory"),
    (lambda made: made.update(packed=made["input"][0].view(-1)), r"share memory"),
    (inside("places", "packed", None), r"share memory"),
]
WRONG["places"] = [
    (shorten("first"), r"first has 1 \w+, but count has 2"),
    (shorten("ordinal"), r"ordinal has 1 \w+, but count has 2"),
    (put("count", [4, -1]), r"count\[1\] is -1, expected 0 to 2147483648"),
    (put("count", [2**31 + 1, 1]), r"count\[0\] is 2147483649, expected 0 to 2147483648"),
    (put("first", [-1, 0]), r"first\[0\] is -1, expected 0 to 2147483644"),
    (put("first", [0, 2**31 - 9]), r"first\[1\] is 2147483639, expected 0 to 2147483638"),
    (put("ordinal", [2**32, 1]), r"ordinal\[0\] is 4294967296"),
    (put("threshold", -1), r"threshold is -1, expected 0"),
    (put("seed", -1), r"seed is -1, expected 0 to "),
    (put("step", -1), r"step is -1, expected 0 "),
    (
        lambda made: made.update(count=[2**31] * 4097, first=[], ordinal=[0] * 4097),
        r"the lists have \d+ or more pieces",
    ),
]
for op in (*DROP_APPLY, "mask_"):
    WRONG[op] += [
        (shorten("index"), r"index has 1 tensors"),
        (shorten("scale_code"), r"scale_code has 1 tensors"),
        (shorten("ordinal"), r"ordinal has 1 "),
        (shorten("first"), r"first has 1 "),
        (put("first", [-1, 0]), r"first\[0\] is -1, expected 0 to 2147483644"),
        (put("first", [0, 2**31 - 9]), r"first\[1\] is 2147483639, expected 0 to 2147483638"),
        (put("ordinal", [0, -1]), r"ordinal\[1\] is -1"),
        (put("ordinal", [2**32, 1]), r"ordinal\[0\] is 4294967296"),
        (item("index", 0, Tensor.long), r"index\[0\] has dtype \S*int64, expected \S*int32"),
        (item("index", 0, strided), r"index\[0\] is not contiguous"),
        (item("index", 0, lambda t: ENTRIES.to(t.device)), r"index\[0\] has 25 entries, more than"),
        (item("index", 0, lambda t: t.to("meta")), r"index\[0\] is on \S*meta"),
        (item("scale_code", 0, lambda t: t[:3]), r"scale_code\[0\] has 3 entries, expected 4"),
        (item("scale_code", 0, Tensor.int), r"scale_code\[0\] has dtype \S*int32, expected \S*uint8"),
        (put("table", None), r"table.* is None"),
        (put("table", torch.rand(255)), r"table has 255 entries, expected 256"),
        (put("table", torch.rand(256).double()), r"table has dtype \S*float64, expected \S*float32"),
        (put("threshold", -1), r"threshold is -1, expected 0"),
        (put("threshold", 65537), r"threshold is 65537, expected 0"),
        (put("seed", -1), r"seed is -1, expected 0 to "),
        (put("step", torch.tensor(3.0)), r"step has dtype \S*float32, expected \S*int64"),
        (put("step", torch.tensor([3, 4])), r"step has 2 entries, expected 1"),
    ]

# What only the CPU looks at: on a GPU that would wait for the device.
LOOKED_UP: dict[str, list[tuple[Spoil, str]]] = {
    op: [
        (item("index", 0, lambda t: t + 1), r"index\[0\] holds 24, expected ascending positions from 0 to 23"),
        (item("index", 0, lambda t: t - 1), r"index\[0\] holds -1, expected ascending positions from 0 to 23"),
        (put("step", torch.tensor(-1)), r"step is -1, expected 0 "),
    ]
    for op in (*DROP_APPLY, *PACKED, "mask_", "pack_", "sampled_weight_grad_")
}
for op in DROP_APPLY:
    LOOKED_UP[op].append(
        (lambda made: cut(made, 3), r"index\[0\] holds 23, expected .* from 0 to 17 in its tensor of 18")
    )
LOOKED_UP["sampled_weight_grad_"] += [
    (
        item("input", 0, lambda t: t[:, :5].clone()),
        r"index\[0\] holds 23, expected .* from 0 to 19 in its tensor of 20",
    ),
    (item("packed", None, lambda t: t[1:].clone()), r"packed has \d+ entries"),
    (item("places", None, lambda t: t.flip(0)), r"places do not fit what this step keeps"),
]
LOOKED_UP["mask_"] += [
    (item("grad", 0, lambda t: t[:3].clone()), r"index\[0\] holds 23, expected .* from 0 to 17 in its tensor of 18"),
    (put("index", [torch.tensor([0, 3, 3, 23], dtype=torch.int32), None]), r"index\[0\] is not strictly ascending"),
    (put("index", [torch.tensor([0, 9, 3, 23], dtype=torch.int32), None]), r"index\[0\] is not strictly ascending"),
    (put("index", [torch.tensor([0, 99, -7, 23], dtype=torch.int32), None]), r"index\[0\] is not strictly ascending"),
]
WRONG["write_values_"] = [
    (shorten("index"), r"index has 1 tensors"),
    (shorten("value"), r"value has 1 tensors"),
    (shorten("expected"), r"expected has 1 tensors"),
    (shorten("then_index"), r"then_index has 1 tensors"),
    (shorten("then_value"), r"then_value has 1 tensors"),
    (put("then_expected", []), r"then_expected has 0 tensors"),
    (put("expected", []), r"then_expected has 2 tensors, but expected has 0"),
    (put("value", []), r"value has 0 tensors, but param has 2"),
    (put("param", []), r"has 0$"),
    (item("param", 0, lambda t: t.to(torch.complex128)), r"param\[0\] has entries of 16 bytes, expected 1, 2, 4 or 8"),
    (item("param", 0, transposed), r"param\[0\] is not contiguous"),
    (item("value", 1, Tensor.half), r"value\[1\] has dtype \S*float16"),
    (item("expected", 0, Tensor.double), r"expected\[0\] has dtype \S*float64"),
    (item("then_value", 0, lambda t: t[:2]), r"then_value\[0\] has 2 entries, expected 3"),
    (item("index", 0, Tensor.long), r"index\[0\] has dtype \S*int64, expected \S*int32"),
    (
        item("then_index", 0, lambda t: torch.arange(25, dtype=t.dtype, device=t.device)),
        r"25 entries, more than .*, 24",
    ),
    (item("value", 1, lambda t: t.to("meta")), r"value\[1\] is on \S*meta"),
    (alias("value", 1, "param", 1), r"share memory"),
    (item("expected", 0, lambda t: t + 1), r"param\[0\] has other bits at position 0 than expected\[0\]; nothing was"),
    (item("expected", 1, lambda t: -t), r"param\[1\] has other bits at position 0 than expected\[1\]; nothing was"),
    (item("then_expected", 0, lambda t: t * t), r"param\[0\] has other bits at position 1 than then_expected\[0\]"),
]
WRONG["encode_gaps"] = [
    (item("index", 0, Tensor.long), r"index\[0\] has dtype \S*int64, expected \S*int32"),
    (item("index", 0, lambda t: torch.stack([t, t])[:, ::2]), r"index\[0\] is not contiguous"),
    (item("index", 1, lambda t: t - 1), r"index\[1\] is not strictly ascending"),
    (item("index", 0, lambda t: t * 0), r"index\[0\] is not strictly ascending"),
    (item("index", 1, lambda t: t.to("meta")), r"index\[1\] is on meta, expected cpu"),
]
WRONG["decode_gaps"] = [
    (shorten("count"), r"count has 1 tensors"),
    (shorten("size"), r"size has 1 tensors"),
    (item("code", 0, Tensor.int), r"code\[0\] has dtype \S*int32, expected \S*uint8"),
    (put("count", [-1, 5]), r"count\[0\] is -1, expected 0 to 1000"),
    (put("count", [3, 6]), r"count\[1\] is 6, expected 0 to 5"),
    (put("size", [1000, 2**31]), r"size\[1\] is 2147483648, expected 0 to 2147483647"),
    (put("count", [8, 5]), r"code\[0\] has 7 bytes, too few for 8 positions"),
    (put("count", [2, 5]), r"code\[0\] is not as long as 2 positions and the gaps that it escapes take"),
    (item("code", 0, lambda t: t[:6]), r"code\[0\] is not as long as 3 positions"),
    (
        item("code", 0, lambda t: t.clone().index_fill_(0, torch.tensor([3, 4]), 0)),
        r"code\[0\] escapes a gap that has ",
    ),
    (put("size", [999, 5]), r"code\[0\] holds a position beyond 998, the last of its tensor"),
    (item("code", 1, lambda t: t + 1), r"code\[1\] holds a position beyond 4, the last of its tensor"),
    (item("code", 1, lambda t: t.to("meta")), r"code\[1\] is on meta, expected cpu"),
]
LOOKED_UP["write_values_"] = [
    (item("index", 0, lambda t: t + 1), r"index\[0\] holds 24, expected ascending positions from 0 to 23"),
    (item("then_index", 0, lambda t: t - 2), r"then_index\[0\] holds -1, expected ascending positions from 0 to 23"),
    (put("index", [torch.tensor([0, 3, 3, 23], dtype=torch.int32), None]), r"index\[0\] is not strictly ascending"),
    (item("then_index", 0, lambda t: t.flip(0)), r"then_index\[0\] is not strictly ascending"),
]
