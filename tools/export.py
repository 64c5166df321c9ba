"""A trained network as an ONNX file, for other programs."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from onnx import TensorProto, helper, numpy_helper

from isoparam.network.files import load_perceptron
from pipeline import files, parameters
from tools import findings

MODELS = Path("models/depths")
# The version of the operators used here; every runtime of the last years has it.
OPSET = 17
PIXELS = "values as in the data, of pictures 0 to 255; flatten a picture row by row"


def main(
    model: Annotated[str, typer.Argument(help="A model of params.yaml, such as L3.")],
    out: Annotated[Path, typer.Argument(help="The file to write, such as L3.onnx.")],
    seed: Annotated[
        int | None, typer.Option(help="The seed of the network; by default the first.")
    ] = None,
) -> None:
    """Export one network: `pixels` (N, D), float32 in [0, 255], to `logits` and `probabilities`."""
    params = parameters.read_params()
    network = parameters.find_model(params.models, model)
    seed = params.seeds[0] if seed is None else seed
    if seed not in params.seeds:
        raise ValueError(
            f"there is no seed {seed}: params.yaml has {', '.join(map(str, params.seeds))}"
        )
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file in it, such as {out / model}.onnx")
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent}: make it, or name a file elsewhere")
    sizes = network.sizes(params.data)
    path = MODELS / model / f"seed-{seed}.safetensors"
    layers, metadata = load_perceptron(path, sizes)
    constants: dict[str, Any] = {key: np.float32(metadata[key]) for key in ("mean", "deviation")}
    nodes = [
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["h0"]),
    ]
    for index, (weight, bias) in enumerate(layers, start=1):
        constants |= {f"W{index}": weight[0].numpy(), f"b{index}": bias[0, 0].numpy()}
        last = index == len(layers)
        z = "logits" if last else f"z{index}"
        nodes.append(helper.make_node("Gemm", [f"h{index - 1}", f"W{index}", f"b{index}"], [z]))
        if not last:
            nodes.append(helper.make_node("Relu", [z], [f"h{index}"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
    graph = helper.make_graph(
        nodes,
        f"isoparam {model}, seed {seed}",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", sizes[0]], PIXELS)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", sizes[-1]])
            for name in ("logits", "probabilities")
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in constants.items()
        ],
    )
    whole = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="isoparam",
    )
    helper.set_model_props(
        whole,
        {
            "pixels": PIXELS,
            "classes": ", ".join(findings.class_names()),
            "data": params.data.dataset,
            "sizes": str(sizes),
            "seed": str(seed),
            "version": f"{files.md5_of(path)}, the MD5 of {path.as_posix()}",
        },
    )
    onnx.checker.check_model(whole, full_check=True)
    with files.replacing(out) as partial:
        onnx.save(whole, partial)
    print(f"{out}: {model}, seed {seed}; pixels from 0 to 255 to logits and probabilities")
