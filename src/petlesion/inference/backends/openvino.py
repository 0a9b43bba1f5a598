"""Networks run by OpenVINO on the processor, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino
from openvino import opset13 as ops

from petlesion.errors import ModelError, UsageError
from petlesion.inference.resampling import Float
from petlesion.model.plan import Plan

PRECISIONS = ("auto", "float32", "bfloat16")
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_POLL_MS = 100  # how long Ctrl-C may have to wait
_BLOCK = 8


class OpenVinoNetwork:
    """An ONNX network compiled for the processor: float32 arrays in and out.

    The same input gives the same bytes each time. Raises ModelError for a file that is no network.
    """

    def __init__(self, path: Path, precision: str = "auto", threads: int | None = None) -> None:
        self._path = path
        core = _core()
        chosen = choose_precision(precision)
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[chosen], "NUM_STREAMS": "1"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            model = core.read_model(path)
            if chosen == "float32":
                _sum_in_blocks(model)
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ModelError(
                f"{path} cannot be run as a network ({_reason(error)}); export the model again"
            ) from None
        self._request: Any = None

    def check_fit(self, plan: Plan) -> None:
        """Raise ModelError unless the network takes the plan's patches and answers for its labels."""
        channels = (len(plan.channels), len(plan.labels) - 1)
        expected = [openvino.PartialShape([1, count, *plan.patch_size]) for count in channels]
        found = [port.partial_shape for port in (*self._compiled.inputs, *self._compiled.outputs)]
        if not (len(found) == 2 and all(map(openvino.PartialShape.compatible, found, expected))):
            raise ModelError(
                f"{self._path} takes and gives arrays of {', '.join(map(str, found))}, but its plan says "
                f"{', '.join(map(str, expected))}; export the model again"
            )

    def __call__(self, patches: Float) -> Float:
        """[1, channel, z, y, x] -> logits against the background's, [1, label - 1, z, y, x].

        Raises ModelError where OpenVINO cannot go on.
        """
        try:
            return self._infer(patches)
        except RuntimeError as error:
            self._request = None
            raise ModelError(
                f"{self._path} cannot be run on this input ({_reason(error)}); "
                "free some memory, or check it with petlesion model verify"
            ) from None

    def _infer(self, patches: Float) -> Float:
        if self._request is None:
            self._request = self._compiled.create_infer_request()
        self._request.start_async({0: patches}, share_inputs=True)
        try:
            while not self._request.wait_for(_POLL_MS):
                pass
        except BaseException:
            self._request.cancel()
            self._request = None  # It may be busy still.
            raise
        return cast(Float, np.array(self._request.get_output_tensor(0).data, dtype=np.float32))

    def release(self) -> None:
        """Give back the memory of the layers' values; the next call takes it again."""
        self._request = None
        self._compiled.release_memory()


def open_network(path: Path, plan: Plan, precision: str, threads: int | None = None) -> OpenVinoNetwork:
    """A bundle's network. Raises ModelError for a file that is none, or one that does not fit its plan."""
    network = OpenVinoNetwork(path, precision, threads)
    network.check_fit(plan)
    return network


def choose_precision(precision: str) -> str:
    """`auto` is bfloat16 where the processor computes in it, else float32.

    Raises UsageError for what is no precision, and for bfloat16 elsewhere, where OpenVINO would silently
    compute in float32.
    """
    check_precision(precision)
    if precision == "auto":
        return "bfloat16" if computes_bfloat16() else "float32"
    if precision == "bfloat16" and not computes_bfloat16():
        raise UsageError("this processor has no bfloat16 instructions; take the precision auto or float32")
    return precision


def check_precision(precision: str) -> None:
    """Raise UsageError for what is no precision."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")


def computes_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16."""
    return "BF16" in processor_capabilities()


def processor_capabilities() -> Sequence[str]:
    """What OpenVINO says the processor can do, such as BF16."""
    return cast(Sequence[str], _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@cache
def _core() -> openvino.Core:
    """The one Core of this process, which stays to its end.

    Each Core lends its thread a stack for signal handlers, and puts the former one back when it goes. Two
    that go in the order in which they came leave a stack that is no more: the next signal ends the process.
    """
    return openvino.Core()


def _reason(error: RuntimeError) -> str:
    """The last line of what OpenVINO says, before which it names its own source files."""
    return str(error).strip().splitlines()[-1]


def _sum_in_blocks(model: openvino.Model) -> None:
    """Let instance normalisation add up block by block.

    OpenVINO's own adds the two million values of a 128³ patch one after the other in float32, and each thread
    its share: its variance is off by 1e-4 or so, differently for another number of threads. Block means
    are as exact as torch's and do not depend on threads. (In bfloat16, OpenVINO's own is exact enough.)
    """
    for node in model.get_ops():
        if node.get_type_name() == "MVN":
            epsilon = np.float32(node.get_attributes()["eps"])
            deviation = ops.subtract(node.input_value(0), _block_mean(node.input_value(0)))
            variance = _block_mean(ops.multiply(deviation, deviation).output(0))
            scale = ops.divide(
                ops.constant(np.float32(1)), ops.sqrt(ops.add(variance, ops.constant(epsilon)))
            )
            node.output(0).replace(ops.multiply(deviation, scale).output(0))
    model.validate_nodes_and_infer_types()


def _block_mean(value: Any) -> Any:
    """Mean over the three spatial axes of [1, channel, z, y, x], as means of means of small blocks."""
    sizes = list(value.get_shape())[2:]
    while sizes != [1, 1, 1]:
        block = [max(n for n in range(1, _BLOCK + 1) if size % n == 0) for size in sizes]
        if block == [1, 1, 1]:
            block = sizes
        zeros = [0, 0, 0]
        value = ops.avg_pool(value, block, zeros, zeros, block, exclude_pad=True).output(0)
        sizes = list(value.get_shape())[2:]
    return value
