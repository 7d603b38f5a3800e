"""Writes the ONNX backend node tests into a folder, for tests/onnx_nodes.rs: python tests/onnx_nodes.py FOLDER."""

import sys
from pathlib import Path

import numpy as np
import onnx.backend.test.case.node as node
from onnx import TensorProto, numpy_helper

folder = Path(sys.argv[1])
for case in node.collect_testcases(None):
    if any(not value.type.HasField("tensor_type") for value in [*case.model.graph.input, *case.model.graph.output]):
        continue  # Sequences and optional values.
    here = folder / case.name
    data = here / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    (here / "model.onnx").write_bytes(case.model.SerializeToString())
    for kind, values in zip(["input", "output"], case.data_sets[0]):
        for position, value in enumerate(values):
            # Types that numpy lacks are tensors already.
            tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value))
            (data / f"{kind}_{position}.pb").write_bytes(tensor.SerializeToString())
