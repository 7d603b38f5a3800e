//! Models in TOML (`spec/model-toml.md`) to the float stage, and back.
//!
//! A layer's `op` is an operation of the float stage, whose attributes are keys of the layer, or one of the shorthands that
//! [`layers`] knows. What is wrong is said at its place in the text.

mod layers;
mod schema;
mod values;
mod write;

pub use schema::schema;
pub use write::write;

use std::collections::BTreeMap;
use std::ops::Range;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{Dim, Element, Tensor, TensorOp, TensorType};
use toml_edit::{Document, Item, Table, TableLike};

/// Reads an array of a weight file: the file as the model names it, and the array in it where there are several.
pub type Weights<'a> = dyn Fn(&str, Option<&str>) -> Result<TensorValue> + 'a;

/// Reads a model.
///
/// # Errors
/// [`Code::TomlInvalid`] with the place in the text; those of `weights`.
pub fn import(text: &str, weights: &Weights<'_>) -> Result<Graph<Tensor>> {
    let document = Document::parse(text).map_err(|why| {
        wrong(why.message().to_owned())
            .within(text, why.span().unwrap_or_default())
            .help("the text is no TOML: see toml.io")
    })?;
    let mut reader =
        Reader { text, weights, graph: Graph::new("model"), names: BTreeMap::new(), last: None, inputs: Vec::new() };
    reader.model(document.as_table()).map_err(|mut why| {
        if why.code == Code::TomlInvalid {
            why.help.get_or_insert_with(|| EXAMPLE.to_owned());
        }
        why
    })
}

/// What helps with any mistake.
const EXAMPLE: &str =
    "`tacit inspect MODEL.onnx --toml` writes any model in this form; spec/model-toml.md describes it";

/// A mistake in a model file.
pub(super) fn wrong(why: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::TomlInvalid, why)
}

/// Reads keys of a table; those not read are mistakes.
struct Keys<'a> {
    table: &'a dyn TableLike,
    what: String,
    read: Vec<&'static str>,
    span: Range<usize>,
}

struct Reader<'a> {
    text: &'a str,
    weights: &'a Weights<'a>,
    graph: Graph<Tensor>,
    names: BTreeMap<String, ValueId>,
    /// The value before.
    last: Option<ValueId>,
    inputs: Vec<ValueId>,
}

impl<'a> Keys<'a> {
    fn new(table: &'a dyn TableLike, what: impl Into<String>, span: Option<Range<usize>>) -> Self {
        Keys { table, what: what.into(), read: Vec::new(), span: span.unwrap_or_default() }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Item> {
        self.read.push(key);
        self.table.get(key)
    }

    fn need(&mut self, reader: &Reader<'_>, key: &'static str) -> Result<&'a Item> {
        let missing = || wrong(format!("{} has no `{key}`", self.what)).within(reader.text, self.span.clone());
        self.read.push(key);
        self.table.get(key).ok_or_else(missing)
    }

    fn text(&mut self, reader: &Reader<'_>, key: &'static str) -> Result<Option<&'a str>> {
        let Some(item) = self.get(key) else { return Ok(None) };
        item.as_str().map(Some).ok_or_else(|| reader.at(item, format!("`{key}` is a text")))
    }

    fn size(&mut self, reader: &Reader<'_>, key: &'static str) -> Result<Option<usize>> {
        let Some(item) = self.get(key) else { return Ok(None) };
        let size = item.as_integer().and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| reader.at(item, format!("`{key}` is a number from 0 on")))
    }

    /// Keys that nothing read.
    fn rest(&self) -> impl Iterator<Item = (&'a str, &'a Item)> {
        self.table.iter().filter(|(key, _)| !self.read.contains(key))
    }

    fn finish(self, reader: &Reader<'_>) -> Result<()> {
        match self.rest().next() {
            None => Ok(()),
            Some((key, item)) => Err(reader
                .at_key(self.table, key, item, format!("{} has no key `{key}`", self.what))
                .help(format!("its keys are {}", self.read.join(", ")))),
        }
    }
}

impl Reader<'_> {
    fn at(&self, item: &Item, why: impl Into<String>) -> Diagnostic {
        wrong(why).within(self.text, item.span().unwrap_or_default())
    }

    fn at_key(&self, table: &dyn TableLike, key: &str, item: &Item, why: impl Into<String>) -> Diagnostic {
        let span = table.key(key).and_then(|key| key.span()).or_else(|| item.span());
        wrong(why).within(self.text, span.unwrap_or_default())
    }

    fn push(&mut self, op: TensorOp, operands: Vec<ValueId>, name: &str) -> Result<ValueId> {
        let loc = Loc::Toml(name.to_owned());
        self.graph.push(op, operands, None, loc).map_err(|why| wrong(format!("layer `{name}`: {why}")))
    }

    fn constant(&mut self, value: &TensorValue, name: &str) -> Result<ValueId> {
        self.push(value.constant_op(), Vec::new(), name)
    }

    fn define(&mut self, name: &str, id: ValueId, at: &Item) -> Result<()> {
        self.last = Some(id);
        match self.names.insert(name.to_owned(), id) {
            None => Ok(()),
            Some(_) => Err(self
                .at(at, format!("the name `{name}` is used twice"))
                .help("give inputs and layers names of their own; layers without a name are layer1, layer2 and so on")),
        }
    }

    fn model(&mut self, document: &Table) -> Result<Graph<Tensor>> {
        let mut keys = Keys::new(document, "a model", None);
        if let Some(model) = keys.get("model") {
            let table = model.as_table_like().ok_or_else(|| self.at(model, "`model` is a table"))?;
            let mut keys = Keys::new(table, "`model`", model.span());
            if let Some(name) = keys.text(self, "name")? {
                let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
                self.graph = Graph::new(if name.is_empty() { "model".to_owned() } else { name });
            }
            keys.finish(self)?;
        }
        // The compiler's options; whoever compiles reads them.
        keys.get("options");
        let (inputs, layers, outputs) =
            (self.tables(&mut keys, "input")?, self.tables(&mut keys, "layer")?, self.tables(&mut keys, "output")?);
        keys.finish(self)?;
        if inputs.is_empty() || outputs.is_empty() && layers.is_empty() {
            return Err(
                wrong("the model needs an [[input]] and a [[layer]]").within(self.text, 0..self.text.len().min(1))
            );
        }
        for (item, table) in inputs {
            self.input(item, table)?;
        }
        for (number, (item, table)) in layers.into_iter().enumerate() {
            self.layer(number, item, table)?;
        }
        if outputs.is_empty() {
            let last = self.last.ok_or_else(|| wrong("the model has no output"))?;
            self.graph.output("y".to_owned(), last);
        }
        for (item, table) in outputs {
            self.output(item, table)?;
        }
        Ok(std::mem::replace(&mut self.graph, Graph::new("model")))
    }

    /// The tables of `[[key]]`.
    fn tables<'t>(&self, keys: &mut Keys<'t>, key: &'static str) -> Result<Vec<(&'t Item, &'t dyn TableLike)>> {
        let Some(item) = keys.get(key) else { return Ok(Vec::new()) };
        let tables =
            item.as_array_of_tables().ok_or_else(|| self.at(item, format!("write [[{key}]], once for each")))?;
        Ok(tables.iter().map(|table| (item, table as &dyn TableLike)).collect())
    }

    fn input(&mut self, item: &Item, table: &dyn TableLike) -> Result<()> {
        let mut keys = Keys::new(table, "an input", span_of(table).or_else(|| item.span()));
        let of_name = keys.need(self, "name")?;
        let name = of_name.as_str().ok_or_else(|| self.at(of_name, "`name` is a text"))?.to_owned();
        keys.what = format!("input `{name}`");
        let of_type = keys.get("type");
        let text = of_type.map_or(Ok("f32"), |item| item.as_str().ok_or_else(|| self.at(item, "`type` is a text")))?;
        let columns = keys.size(self, "columns")?;
        let shape = match keys.get("shape") {
            Some(item) => Some(self.sizes(item)?),
            None => None,
        };
        let ty = match (text.parse::<TensorType>(), Element::from_name(text)) {
            (Ok(ty), _) if columns.is_none() && shape.is_none() => ty,
            (_, Some(element)) => {
                let sizes = shape.unwrap_or_else(|| vec![columns.unwrap_or(1)]);
                TensorType {
                    element,
                    shape: std::iter::once(Dim::Batch).chain(sizes.into_iter().map(Dim::Fixed)).collect(),
                }
            }
            _ => {
                let item = of_type.unwrap_or(of_name);
                return Err(self.at(item, format!("`{text}` is no type: f32, f64, i64, bool, str, or f32[?, 4]")));
            }
        };
        let loc = Loc::Toml(name.clone());
        let op = TensorOp::Input { name: name.clone() };
        let mut id = self.graph.push(op, Vec::new(), Some(ty.clone()), loc).map_err(|why| self.at(of_name, why))?;
        if let Some(item) = keys.get("range") {
            let limits = values::floats(self, item)?;
            let (Some(&low), Some(&high), 2) = (limits.first(), limits.get(1), limits.len()) else {
                return Err(self.at(item, "`range` is [least, greatest]"));
            };
            if low > high {
                return Err(self.at(item, format!("the range {low} to {high} is empty")));
            }
            id = self.push(TensorOp::Clip { low: Some(low), high: Some(high) }, vec![id], &name)?;
        }
        let encoding = keys.get("encoding");
        match (keys.get("categories"), encoding) {
            (Some(categories), encoding) => id = self.categories(id, &ty, categories, encoding, &name)?,
            (None, Some(item)) => return Err(self.at(item, "`encoding` needs `categories`")),
            (None, None) => {}
        }
        keys.finish(self)?;
        self.inputs.push(id);
        self.define(&name, id, of_name)
    }

    /// Categories as indicators, or as their positions.
    fn categories(
        &mut self,
        id: ValueId,
        ty: &TensorType,
        item: &Item,
        encoding: Option<&Item>,
        name: &str,
    ) -> Result<ValueId> {
        let columns = ty.columns().ok_or_else(|| self.at(item, "categories need columns, not a shape"))?;
        let value = values::list(self, item)?;
        let count = value.len() as i64;
        let (ints, strings) = match (&value, ty.element) {
            (Data::I64(ints), Element::I64) => (Some(ints.clone()), None),
            (Data::Str(strings), Element::Str) => (None, Some(strings.clone())),
            _ => return Err(self.at(item, format!("categories of another type than {}", ty.element.as_str()))),
        };
        match encoding.map_or(Some("one-hot"), |item| item.as_str()) {
            Some("one-hot") => {
                let hot = self.push(TensorOp::OneHot { ints, strings, zeros: true }, vec![id], name)?;
                self.push(TensorOp::Reshape { shape: vec![-1, columns as i64 * count] }, vec![hot], name)
            }
            Some("ordinal") => {
                let op = TensorOp::LabelEncoder {
                    keys_i64: ints,
                    keys_f32: None,
                    keys_f64: None,
                    keys_str: strings,
                    values_i64: None,
                    values_f32: Some((0..count).map(|at| at as f32).collect()),
                    values_f64: None,
                    values_str: None,
                    default_i64: None,
                    default_f32: Some(-1.0),
                    default_f64: None,
                    default_str: None,
                };
                self.push(op, vec![id], name)
            }
            _ => Err(self.at(encoding.unwrap_or(item), "`encoding` is \"one-hot\" or \"ordinal\"")),
        }
    }

    fn sizes(&self, item: &Item) -> Result<Vec<usize>> {
        let sizes: Option<Vec<usize>> =
            values::ints(self, item)?.iter().map(|size| usize::try_from(*size).ok()).collect();
        sizes.ok_or_else(|| self.at(item, "sizes are not negative"))
    }

    /// A value by its name.
    fn named(&self, item: &Item, name: &str) -> Result<ValueId> {
        self.names.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            self.at(item, format!("there is no value `{name}` before this"))
                .help(format!("known are {}", known.join(", ")))
        })
    }

    fn output(&mut self, item: &Item, table: &dyn TableLike) -> Result<()> {
        let mut keys = Keys::new(table, "an output", span_of(table).or_else(|| item.span()));
        let of_name = keys.need(self, "name")?;
        let name = of_name.as_str().ok_or_else(|| self.at(of_name, "`name` is a text"))?.to_owned();
        let from = match keys.get("from") {
            Some(item) => {
                let from = item.as_str().ok_or_else(|| self.at(item, "`from` is the name of a value"))?;
                self.named(item, from)?
            }
            None => self.last.ok_or_else(|| self.at(of_name, "there is no layer"))?,
        };
        if self.graph.outputs().iter().any(|(own, _)| *own == name) {
            return Err(self
                .at(of_name, format!("the output `{name}` is there twice"))
                .help("give outputs names of their own"));
        }
        let of_threshold = keys.get("threshold");
        let threshold = of_threshold.map_or(Ok(0.5), |item| values::number(self, item))?;
        let id = match keys.get("labels") {
            Some(item) => self.labels(from, item, threshold, &name)?,
            None if of_threshold.is_some() => return Err(self.at(of_name, "`threshold` needs `labels`")),
            None => from,
        };
        keys.finish(self)?;
        self.graph.output(name, id);
        Ok(())
    }

    /// The label of the greatest score, or of one score above a threshold.
    fn labels(&mut self, from: ValueId, item: &Item, threshold: f64, name: &str) -> Result<ValueId> {
        let data = values::list(self, item)?;
        let ty = self.graph.node(from).ty.clone();
        let count = data.len();
        let positions = match ty.columns() {
            Some(1) if count == 2 => self.push(TensorOp::BinaryLabel { threshold }, vec![from], name)?,
            Some(columns) if columns == count => {
                self.push(TensorOp::ArgMax { axis: 1, least: false, last: false }, vec![from], name)?
            }
            _ => return Err(self.at(item, format!("{count} labels for {ty}"))),
        };
        let labels = self.constant(&TensorValue { shape: vec![1, count], data }, name)?;
        let picked = self.push(TensorOp::GatherRows {}, vec![labels, positions], name)?;
        self.push(TensorOp::Reshape { shape: vec![-1] }, vec![picked], name)
    }
}

/// The place of a table's first key.
fn span_of(table: &dyn TableLike) -> Option<Range<usize>> {
    table.iter().find_map(|(key, _)| table.key(key)?.span())
}
