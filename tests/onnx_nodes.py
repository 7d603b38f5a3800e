"""Writes the ONNX backend node tests, and the versions of each operator, into a folder, for tests/onnx_nodes.rs:
python tests/onnx_nodes.py FOLDER."""

import sys
from pathlib import Path

import numpy as np
import onnx.backend.test.case.node as node
import onnx.defs
from onnx import TensorProto, numpy_helper

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
versions = {}
for schema in onnx.defs.get_all_schemas_with_history():
    if schema.domain in ("", "ai.onnx.ml") and not schema.deprecated:
        versions.setdefault((schema.domain or "ai.onnx", schema.name), []).append(schema.since_version)
lines = [f"{domain} {name} {' '.join(map(str, sorted(own)))}\n" for (domain, name), own in sorted(versions.items())]
(folder / "versions.txt").write_text("".join(lines))
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
