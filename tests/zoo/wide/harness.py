"""What make.py is made of: choosing rows, running onnxruntime, writing models, the index and OPS.md."""

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnxruntime as ort
from onnx import numpy_helper

# skl2onnx 1.20 writes nodes_missing_value_tracks_true as booleans, which newer protobuf refuses: make them integers.
_make_attribute = onnx.helper.make_attribute
onnx.helper.make_attribute = lambda key, value, *args, **more: _make_attribute(
    key, [int(v) for v in value] if key == "nodes_missing_value_tracks_true" else value, *args, **more
)

HERE = Path(__file__).parent
MODELS = HERE / "models"
ort.set_default_logger_severity(3)
index, skipped, chains, attributes = [], [], [], defaultdict(lambda: defaultdict(set))


def value_of(attribute):
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (list, tuple)) or hasattr(value, "__len__") and not isinstance(value, str):
        return [v.decode() if isinstance(v, bytes) else v for v in value]
    return value


def nodes_of(graph):
    """All nodes, those of subgraphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)


def thresholds(model):
    """(feature, value) of the tree nodes that read a graph input without an operation between that changes values."""
    same = {i.name for i in model.graph.input}
    found = []
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in same:
            same.add(node.output[0])
        if node.op_type.startswith("TreeEnsemble") and node.input[0] in same:
            a = {x.name: value_of(x) for x in node.attribute}
            values = next((a[k] for k in ("nodes_values_as_tensor", "nodes_values", "nodes_splits") if k in a), [])
            modes = a.get("nodes_modes", [])
            found += [(int(f), float(v)) for f, v, m in zip(a["nodes_featureids"], values, modes) if m != "LEAF"]
    return sorted({(f, v) for f, v in found if np.isfinite(v)})


def spread(items, count):
    """At most `count` of the items, evenly spaced."""
    items = list(items)
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, count).astype(int))] if items else []


def rows_for(x, model, nan=False, inf=False, large=100.0):
    """Ordinary rows, rows on and one ulp beside thresholds (or data), large ones, infinite and missing ones where asked."""
    kind = x.dtype.type
    base = x[np.linspace(0, len(x) - 1, 14).astype(int)]
    parts = [base]
    cuts = spread(thresholds(model), 7)
    if np.issubdtype(x.dtype, np.integer):
        beside = lambda v: (np.floor(v), np.ceil(v), np.floor(v) - 1)
    else:
        beside = lambda v: (kind(v), np.nextafter(kind(v), kind(np.inf)), np.nextafter(kind(v), kind(-np.inf)))
        if not cuts:
            parts += [np.nextafter(base[:6], kind(np.inf)), np.nextafter(base[6:12], kind(-np.inf))]
    for at, (feature, value) in enumerate(cuts):
        for v in beside(value):
            row = base[at % len(base)].copy()
            row[feature] = v
            parts.append(row[None])
    parts += [np.zeros_like(base[:1]), -base[:1], (base[3:5] * large).astype(kind), (base[3:4] * -large).astype(kind)]
    if inf:
        for at, v in enumerate([np.inf, -np.inf]):
            one = base[4 + at].copy()
            one[at % x.shape[1]] = v
            parts += [np.full_like(base[:1], v), one[None]]
    if nan:
        for at in range(min(5, x.shape[1])):
            one = base[5 + at].copy()
            one[at] = np.nan
            parts.append(one[None])
        parts.append(np.full_like(base[:1], np.nan))
    return np.ascontiguousarray(np.concatenate(parts).astype(kind))


def wiring(graph):
    """The graph on one line: `%n` are intermediate values, constants show type and shape."""
    names, short = {}, {1: "f32", 7: "i64", 6: "i32", 9: "bool", 8: "str", 11: "f64", 2: "u8"}
    for tensor in graph.initializer:
        names[tensor.name] = f"{short.get(tensor.data_type, tensor.data_type)}{list(tensor.dims)}"
    fixed = {v.name for v in list(graph.input) + list(graph.output)}
    text, count = [], 0
    for node in graph.node:
        outputs = []
        for out in node.output:
            if out in fixed:
                names[out] = out
            elif out:
                count += 1
                names[out] = f"%{count}"
            outputs.append(names.get(out, "_"))
        text.append(f"{', '.join(outputs)} = {node.op_type}({', '.join(names.get(i, i or '_') for i in node.input)})")
    return "; ".join(text)


def run(model, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    arrays = {}
    for out, value in zip(session.get_outputs(), session.run(None, feeds)):
        if isinstance(value, list):  # ZipMap: a list of maps
            keys = list(value[0])
            arrays[f"keys:{out.name}"] = np.array(keys)
            value = np.array([[row[k] for k in keys] for row in value], dtype=np.float32)
        arrays[f"out:{out.name}"] = value.astype(str) if value.dtype == object else value
    return arrays


def alone(model, feeds, arrays):
    """Outputs whose rows change when onnxruntime gets one row at a time, or None where it does not apply."""
    rows = len(next(iter(feeds.values())))
    changed = set()
    for at in range(rows):
        for key, value in run(model, {k: v[at : at + 1] for k, v in feeds.items()}).items():
            both = arrays[key]
            if not key.startswith("out:") or len(both) != rows:
                continue
            one = value.reshape(both[at].shape) if value.size == both[at].size else None
            kind = both.dtype.kind
            if one is None or not (np.allclose(one, both[at], 1e-4, 1e-5, equal_nan=True) if kind == "f" else (one == both[at]).all()):
                changed.add(key)
    return sorted(changed)


def save(name, family, exporter, model, feeds, note=""):
    model.graph.name = name
    # skl2onnx writes the imports (the default domain twice) in an order that changes from run to run.
    imports = sorted(((o.domain, o.version) for o in model.opset_import))
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*i) for i in imports)
    feeds = {k: np.ascontiguousarray(v) for k, v in feeds.items()}
    arrays = run(model, {k: v.astype(object) if v.dtype.kind == "U" else v for k, v in feeds.items()})
    data = model.SerializeToString(deterministic=True)
    (MODELS / f"{name}.onnx").write_bytes(data)
    np.savez_compressed(MODELS / f"{name}.npz", **{f"in:{k}": v for k, v in feeds.items()}, **arrays)
    ops = []
    for node in nodes_of(model.graph):
        ops += [node.op_type] if node.op_type not in ops else []
        own = attributes[(node.domain or "ai.onnx", node.op_type)]
        own[""].add("")
        for attribute in node.attribute:
            value = value_of(attribute)
            if attribute.type == onnx.AttributeProto.GRAPH:
                own[attribute.name].add(("graph", ""))
            elif isinstance(value, np.ndarray):
                own[attribute.name].add((f"tensor of {value.dtype}", ""))
            elif isinstance(value, list):
                kinds = "strings" if value and isinstance(value[0], str) else "ints" if value and isinstance(value[0], int) else "floats"
                shown = sorted(set(value)) if attribute.name == "nodes_modes" else [value] if len(value) <= 3 and kinds == "ints" else [""]
                own[attribute.name] |= {(kinds, str(v)) for v in shown}
            else:
                own[attribute.name].add(({str: "string", int: "int", float: "float"}[type(value)], repr(value) if not isinstance(value, float) else ""))
    versions = {}
    for o in model.opset_import:
        versions[o.domain or ""] = o.version
    rows = len(next(iter(feeds.values())))
    batch = alone(model, {k: v.astype(object) if v.dtype.kind == "U" else v for k, v in feeds.items()}, arrays)
    if batch:
        note = (note + "; " if note else "") + f"onnxruntime answers otherwise one row at a time: {', '.join(batch)}"
    index.append({"name": name, "family": family, "exporter": exporter, "opset": versions.get(""), "ml_opset": versions.get("ai.onnx.ml"), "ops": ops})
    chains.append((family, name, wiring(model.graph), " → ".join(n.op_type for n in model.graph.node), note))
    print(f"{name:44} {family:10} {rows:3} rows {len(data):7} bytes  {' '.join(ops)}  {note}", flush=True)


def skip(name, why):
    said = re.sub(r"/onnxruntime_src/\S+ .*?\) ", "", str(why))
    reason = f"{type(why).__name__}: {said.strip().splitlines()[0] if said.strip() else ''}"[:200]
    # A path of the machine that ran this is of no use to a reader.
    reason = reason.replace(str(HERE), ".")
    skipped.append((name, reason))
    print(f"{name:44} SKIPPED {reason}", flush=True)


SURPRISES = """## Surprises

What exporters do:

- The `ai.onnx.ml` version is the lowest that the nodes need, not the one asked for: nearly always 1. skl2onnx writes the
  default domain twice in `opset_import`; XGBoost models have no default domain at all.
- LightGBM ends in `Identity`, `Cast` and a `Mul` by a constant; XGBoost in nothing, but `count:poisson`, `gamma` and
  `tweedie` add `Exp` and `Mul`. XGBoost tests are `BRANCH_LT`, all others `BRANCH_LEQ`, categories of LightGBM `BRANCH_EQ`.
- Generalised linear models, SGD, perceptrons and everything linear over doubles are `MatMul`, `Add` and loose nodes, not
  `LinearRegressor` and `LinearClassifier`. `LinearSVC` and `RidgeClassifier` of two classes answer one score: a rank-1 array.
- Labels of composed models are `ArgMax`, `ArrayFeatureExtractor` on a constant, `Reshape` and `Cast`.

Exports that are not what the library computes (onnxruntime's answers stand in the .npz all the same):

- Trees and forests of scikit-learn trained with missing values: all of `nodes_missing_value_tracks_true` is 0.
- `HistGradientBoostingRegressor(loss="poisson")` without `Exp`; XGBoost `reg:logistic` without a logistic.
- `HistGradientBoosting` with categorical features: written as `BRANCH_LEQ`, no error.
- LightGBM `boosting_type="rf"`: the logistic comes before the average of the trees, not after.
- XGBoost regressors of several targets and `XGBRFClassifier` of three classes (cause not looked for).

Where onnxruntime is not what the standard's text says:

- One target or one coefficient row: `TreeEnsembleRegressor` and `LinearRegressor` ignore LOGISTIC, SOFTMAX and SOFTMAX_ZERO;
  a `LinearClassifier` of one row answers `[1 - s, s]` for NONE, SOFTMAX and SOFTMAX_ZERO.
- A `TreeEnsembleClassifier` of two classes gives a tie to the second class, one of three to the first.
- Of two weights of one leaf for one target only the first counts.
- Tree regressors over integers have no kernel (classifiers have); `LinearRegressor` has none over doubles.
- Tree outputs are float32 whatever is read; skl2onnx declares double, which onnxruntime refuses (see Notes).
"""


def finish():
    index.sort(key=lambda entry: entry["name"])
    (MODELS / "index.json").write_text("[\n" + ",\n".join(json.dumps(entry) for entry in index) + "\n]\n")
    text = ["# Operations of the wide zoo", "", "Written by `wide/make.py` about `wide/models`. What exporters emit, for the author of a front end.", ""]
    text += ["## Operations and attributes", "", "| domain | op | models | attributes |", "| --- | --- | --- | --- |"]
    for (domain, op), own in sorted(attributes.items()):
        cells = []
        for attribute, seen in sorted(own.items()):
            if attribute:
                kinds = sorted({kind for kind, _ in seen})
                values = sorted({v for _, v in seen if v})
                values = values if len(values) <= 14 else values[:14] + ["…"]
                cells.append(f"{attribute}: {'/'.join(kinds)}" + (f" {{{', '.join(values)}}}" if values else ""))
        models = sum(op in entry["ops"] for entry in index)
        text.append(f"| {domain} | {op} | {models} | {'; '.join(cells).replace('|', chr(92) + '|')} |")
    text += ["", SURPRISES, "## Opset imports", "", "| default | ai.onnx.ml | models |", "| --- | --- | --- |"]
    pairs = defaultdict(int)
    for entry in index:
        pairs[(str(entry["opset"]), str(entry["ml_opset"]))] += 1
    text += [f"| {a} | {b} | {n} |" for (a, b), n in sorted(pairs.items())]
    text += ["", "## Chains", "", "Models with the same wiring stand on one line. `%n` is an intermediate value, `f32[2]` a constant.", ""]
    groups = defaultdict(list)
    for family, name, wires, chain, _ in chains:
        groups[(family, wires)].append((name, chain))
    for family in sorted({f for f, _ in groups}):
        text += [f"### {family}", ""]
        for (own, wires), names in groups.items():
            if own == family:
                shown = wires if len(wires) < 1500 else names[0][1] if len(names[0][1]) < 1500 else names[0][1][:1500] + " …"
                text.append(f"- {', '.join(f'`{n}`' for n, _ in names)}: {shown}")
        text.append("")
    text += ["## Notes", ""] + [f"- `{name}`: {note}" for _, name, _, _, note in chains if note]
    text += ["", "## Not exported, or refused by onnxruntime", ""] + [f"- `{name}`: {reason}" for name, reason in skipped]
    (HERE.parent / "OPS.md").write_text("\n".join(text) + "\n")
    size = sum(p.stat().st_size for p in MODELS.iterdir())
    print(f"\n{len(index)} models, {size / 1e6:.2f} MB, {len(skipped)} skipped")
