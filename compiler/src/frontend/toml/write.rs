//! A float graph as a model in TOML that reads back as the same graph.

use tacit_ir::attr::{Attr, OpSet};
use tacit_ir::graph::Graph;
use tacit_ir::stage::tensor::{Tensor, TensorOp};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

/// The model, every operation under its own name, weights inline.
pub fn write(graph: &Graph<Tensor>) -> String {
    let mut document = DocumentMut::new();
    let mut model = Table::new();
    model.insert("name", value(graph.name()));
    document.insert("model", Item::Table(model));
    let (mut inputs, mut layers, mut outputs) = (ArrayOfTables::new(), ArrayOfTables::new(), ArrayOfTables::new());
    let name_of = |id| match &graph.node(id).op {
        TensorOp::Input { name } => name.clone(),
        _ => format!("v{}", id.index()),
    };
    for id in graph.values() {
        let node = graph.node(id);
        let mut table = Table::new();
        table.insert("name", value(name_of(id)));
        if let TensorOp::Input { .. } = node.op {
            table.insert("type", value(node.ty.to_string()));
            inputs.push(table);
            continue;
        }
        table.insert("op", value(node.op.name()));
        let operands: Array = node.operands.iter().map(|id| name_of(*id)).collect();
        if !operands.is_empty() {
            table.insert("inputs", value(operands));
        }
        for (key, attr) in node.op.attrs() {
            table.insert(&key, value(plain(&attr)));
        }
        layers.push(table);
    }
    for (name, id) in graph.outputs() {
        let mut table = Table::new();
        table.insert("name", value(name.as_str()));
        table.insert("from", value(name_of(*id)));
        outputs.push(table);
    }
    for (key, tables) in [("input", inputs), ("layer", layers), ("output", outputs)] {
        document.insert(key, Item::ArrayOfTables(tables));
    }
    document.to_string()
}

fn plain(attr: &Attr) -> Value {
    // The shortest text of a 32-bit float reads back as it.
    let wide = |x: &f32| x.to_string().parse::<f64>().unwrap_or(f64::from(*x));
    match attr {
        Attr::Bool(x) => (*x).into(),
        Attr::Int(x) => (*x).into(),
        Attr::F32(x) => wide(x).into(),
        Attr::F64(x) => (*x).into(),
        Attr::Str(x) => x.as_str().into(),
        Attr::Ints(xs) => xs.iter().copied().collect::<Array>().into(),
        Attr::F32s(xs) => xs.iter().map(wide).collect::<Array>().into(),
        Attr::F64s(xs) => xs.iter().copied().collect::<Array>().into(),
        Attr::Strs(xs) => xs.iter().map(String::as_str).collect::<Array>().into(),
        Attr::List(xs) => xs.iter().map(plain).collect::<Array>().into(),
        Attr::Record(fields) => {
            let fields = fields.iter().map(|(key, attr)| (key.as_str(), plain(attr)));
            fields.collect::<InlineTable>().into()
        }
        Attr::Lines(lines) => lines.join("\n").into(),
    }
}
