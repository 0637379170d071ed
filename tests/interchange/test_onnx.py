"""ONNX files: what is read, how layers are named, and what the messages say about files that cannot be read."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="reading ONNX needs the extra onnx")
pytest.importorskip("onnx2pytorch", reason="reading ONNX needs the extra onnx")

import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sj_ann2snn import (
    Converter,
    FormatError,
    InputError,
    OptionError,
    UnsupportedError,
    VerificationError,
    from_onnx,
    simulate,
)
from sj_ann2snn.interchange.onnx import checking
from sj_ann2snn.interchange.onnx.model import graph_of

from ..helpers.onnx_models import Weights, model, node


def cnn(opset: int = 17, batch: int | str = "n") -> Any:
    w = Weights()
    reduced = {} if opset >= 18 else {"axes": [2, 3]}
    axes = f" {w.fixed('axes', [2, 3])}" if opset >= 18 else ""
    nodes = [
        node("Conv", f"x {w('w', 6, 3, 3, 3)} {w('b', 6)}", "c", "/layer1.0/conv/Conv"),
        node("Relu", "c", "r", "/layer1.0/relu/Relu"),
        node("MaxPool", "r", "p", "/pool/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", f"p{axes}", "m", "/mean/ReduceMean", keepdims=0, **reduced),
        node("Gemm", f"m {w('v', 4, 6)} {w('e', 4)}", "y", "/fc/Gemm", transB=1),
    ]
    return model(nodes, {"x": (batch, 3, 8, 8)}, ["y"], w, opset=opset)


def reference(proto: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(ReferenceEvaluator(proto).run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize("opset", [9, 11, 13, 15, 17, 18, 19, 21])
def test_files_of_every_opset_give_what_onnx_gives(opset: int) -> None:
    proto, x = cnn(opset), torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(from_onnx(proto)(x), reference(proto, x), atol=1e-5, rtol=1e-4)


def test_a_file_is_read_with_weights_inside_or_beside_it(tmp_path: Path) -> None:
    proto, x = cnn(), torch.randn(2, 3, 8, 8)
    onnx.save(proto, tmp_path / "inside.onnx")
    onnx.save(proto, tmp_path / "beside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    wanted = from_onnx(str(tmp_path / "inside.onnx"))(x)
    torch.testing.assert_close(wanted, reference(cnn(), x), atol=1e-5, rtol=1e-4)
    assert torch.equal(from_onnx(tmp_path / "beside.onnx")(x), wanted)


def test_a_file_for_one_sample_takes_any_number() -> None:
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(from_onnx(cnn(batch=1))(x), from_onnx(cnn())(x))


def test_layers_have_the_names_of_their_nodes() -> None:
    converter = Converter([torch.rand(8, 3, 8, 8)], progress=False)
    converter(from_onnx(cnn()))
    names = [entry.name for entry in converter.report]
    assert names == [
        "/layer1.0/conv/Conv",
        "/layer1.0/relu/Relu",
        "/pool/MaxPool",
        "/mean/ReduceMean.mean",
        "/fc/Gemm",
    ]
    assert converter.report["/layer1.0/relu/Relu"].scale is not None


def test_names_that_torch_cannot_hold_get_similar_ones() -> None:
    w = Weights()
    nodes = [
        node("Gemm", f"input.1 {w('v', 4, 4)}", "a", ""),
        node("Relu", "a", "b", "graph"),
        node("Gemm", f"b {w('u', 4, 4)}", "c", "twice"),
        node("Relu", "c", "d", "twice"),
        node("Gemm", f"d {w('t', 4, 4)}", "e", "twice.x"),
        node("Relu", "e", "f", 'it"s'),
        node("Identity", "f", "y", "a..b."),
    ]
    network = from_onnx(model(nodes, {"input.1": ("n", 4)}, ["y"], w))
    assert [name for name, one in network.named_modules() if not list(one.children()) and name] == [
        "Gemm_a", "graph_", "twice", "twice_2", "twice_x", "it_s", "a._.b._",
    ]  # fmt: skip
    snn = Converter([torch.rand(8, 4)], progress=False)(network)
    assert simulate(snn, torch.rand(2, 4), T=8).shape == (2, 4)


def test_everything_that_cannot_be_read_is_in_one_message() -> None:
    w = Weights()
    nodes = [
        node("Gemm", f"x {w('v', 4, 4)}", "a", "first"),
        node("RandomNormalLike", "a", "noise", "noise"),
        node("Add", "a noise", "b", "sum"),
        helper.make_node("FusedGelu", ["b"], ["c"], "fused", domain="com.microsoft"),
        node("MatMul", "a b", "d", "product"),
        node("BatchNormalization", f"c {w('s', 4)} {w('t', 4)} {w('m', 4)} {w('r', 4)}", "y mean var", "norm", training_mode=1),
    ]  # fmt: skip
    proto = model(nodes, {"x": ("n", 4)}, ["y", "d"], w)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedError) as caught:
        from_onnx(proto)
    message = str(caught.value)
    assert "cannot be read for 3 reasons" in message
    assert "'noise' (RandomNormalLike): it draws random numbers" in message
    assert "'fused' (FusedGelu): it is not an operator of ONNX, but of 'com.microsoft'" in message
    assert "'norm' (BatchNormalization): it normalizes by the statistics of the current batch" in message
    assert [problem.name for problem in caught.value.problems] == ["noise", "fused", "norm"]


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([node("Mul", "x x", "w"), node("Conv", "x w", "y")], r"'Conv' \(Conv\): its weights are computed"),
        ([node("Conv", "x weight", "a"), node("Resize", "a - scales", "y", mode="cubic")], "no such interpolation"),
        ([node("Resize", "x - odd", "y")], "no nearest-neighbour interpolation"),
        ([node("ReduceMax", "x", "low", keepdims=0), node("Clip", "x low", "y")],
         "its bounds are computed"),
        ([node("Dropout", "x ratio yes", "y")], "it drops values at random"),
        ([node("Identity", "weight", "y")], "this output does not depend on the inputs"),
    ],
)  # fmt: skip
def test_the_reason_names_what_to_change(nodes: list[Any], why: str) -> None:
    w = Weights()
    w("weight", 3, 3, 1, 1)
    w.fixed("scales", [1, 1, 2, 2], np.float32)
    w.fixed("odd", [1, 1, 1.5, 1.5], np.float32)
    w.fixed("ratio", 0.5, np.float32)
    w.fixed("yes", True, np.bool_)
    with pytest.raises(UnsupportedError, match=why):
        from_onnx(model(nodes, {"x": (1, 3, 8, 8)}, ["y"], w))


def test_a_network_may_end_before_the_end_of_the_file() -> None:
    w = Weights()
    nodes = [
        node("Gemm", f"x {w('v', 4, 3)}", "scores", "fc"),
        node("Softmax", "scores", "y", "softmax"),
        node("ArgMax", "y", "label", "decide", axis=1),
    ]
    proto, x = model(nodes, {"x": ("n", 4)}, ["y"], w), torch.randn(2, 4)
    weight = torch.from_numpy(w.values["v"])
    for end in ("scores", "fc", ["fc"]):
        torch.testing.assert_close(from_onnx(proto, outputs=end)(x), x @ weight)
    both = from_onnx(proto, outputs=["fc", "softmax"])(x)
    torch.testing.assert_close(both[1], both[0].softmax(1))
    with pytest.raises(OptionError, match=r"outputs names 'scors', which is neither .* Did you mean 'scores'"):
        from_onnx(proto, outputs=["scors"])
    with pytest.raises(OptionError, match="outputs is empty"):
        from_onnx(proto, outputs=[])


def test_outputs_are_compared_with_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = cnn()
    wanted = checking._wanted
    monkeypatch.setattr(checking, "_wanted", lambda *given: [2 * one for one in wanted(*given)])
    with pytest.raises(VerificationError, match=r"the output 'y' is not what the file says: it differs by 0.5"):
        from_onnx(proto)
    with pytest.raises(VerificationError, match="'y'"):
        from_onnx(proto, verify=torch.rand(2, 3, 8, 8))
    assert from_onnx(proto, verify=False) is not None


def test_inputs_that_the_file_does_not_take_are_reported() -> None:
    with pytest.raises(VerificationError, match="fails on the inputs given as verify"):
        from_onnx(cnn(), verify=torch.rand(2, 5, 8, 8))


@pytest.mark.parametrize("suffix", ["onnx", "bin"])
def test_wrong_files_give_one_message(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    with pytest.raises(FormatError, match=r"model.* cannot be read: No such file"):
        from_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="does not hold an ONNX model"):
        from_onnx(path)
    path.write_bytes(b"not a network at all")
    with pytest.raises(FormatError, match="does not hold an ONNX model"):
        from_onnx(path)
    with pytest.raises(FormatError, match="is a folder"):
        from_onnx(tmp_path)
    with pytest.raises(InputError, match="takes the path of an ONNX file"):
        from_onnx(3)


def test_damaged_files_give_messages_of_our_own(tmp_path: Path) -> None:
    whole = cnn().SerializeToString()
    path = tmp_path / "model.onnx"
    generator = np.random.default_rng(0)
    for length in generator.integers(1, len(whole), 40):
        path.write_bytes(whole[:length])
        _reads_or_refuses(path)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= 1 << generator.integers(8)
        path.write_bytes(bytes(damaged))
        _reads_or_refuses(path)


def _reads_or_refuses(path: Path) -> None:
    with contextlib.suppress(FormatError, UnsupportedError, VerificationError):
        from_onnx(path)


def test_a_tensor_without_all_of_its_values_is_named() -> None:
    # Old versions of onnx do not notice when they open a file.
    proto = cnn()
    tensor = proto.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    tensor.raw_data = tensor.raw_data[:-4]
    with pytest.raises(FormatError, match=r"The tensor '.*' of the ONNX file does not hold the values that its shape"):
        graph_of(proto)


def test_missing_weights_beside_the_file_are_named(tmp_path: Path) -> None:
    onnx.save(cnn(), tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(FormatError, match=r"keeps its weights in another file, which cannot be read: .*weights\.bin"):
        from_onnx(tmp_path / "m.onnx")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"needs the packages onnx and onnx2pytorch.*\[onnx\]"):
        from_onnx(tmp_path / "model.onnx")


def test_half_precision_and_shared_weights_are_read() -> None:
    proto = cnn()
    for tensor in proto.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    x = torch.rand(16, 3, 8, 8)
    snn = Converter([x.half()], progress=False)(from_onnx(proto))
    assert (simulate(snn, x, T=512) - from_onnx(cnn())(x)).norm() < 0.05 * from_onnx(cnn())(x).norm()
