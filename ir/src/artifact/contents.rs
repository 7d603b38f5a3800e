//! What the sections of an artifact hold, since format version 1.

use super::{Container, Kind, SectionId, View, decode, digest, encode};
use crate::attr::{Attr, AttrMap, OpSet};
use crate::cost::CostProfile;
use crate::diag::{Code, Diagnostic, Result};
use crate::graph::{Graph, Loc, Stage, ValueId};
use crate::plan::{Layout, Plan};
use crate::stage::circuit::{Circuit, Log2Std, result_noise};
use crate::stage::quant::Quant;
use crate::stage::tensor::Tensor;
use crate::text;
use serde::{Deserialize, Serialize};

/// A node in generic form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawNode {
    /// Operation name.
    pub op: String,
    /// Attributes.
    pub attrs: Vec<(String, Attr)>,
    /// Operands, by position.
    pub operands: Vec<u32>,
    /// Type in text form.
    pub ty: String,
}

/// A graph in generic form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawGraph {
    /// Nodes in order.
    pub nodes: Vec<RawNode>,
    /// Outputs.
    pub outputs: Vec<(String, u32)>,
}

impl RawGraph {
    /// The generic form of a graph.
    pub fn from_graph<S: Stage>(graph: &Graph<S>) -> Self {
        let number = |id: &ValueId| id.index() as u32;
        let nodes = graph.values().map(|id| {
            let node = graph.node(id);
            RawNode {
                op: node.op.name().to_owned(),
                attrs: node.op.attrs(),
                operands: node.operands.iter().map(number).collect(),
                ty: node.ty.to_string(),
            }
        });
        RawGraph {
            nodes: nodes.collect(),
            outputs: graph.outputs().iter().map(|(n, id)| (n.clone(), number(id))).collect(),
        }
    }

    /// The graph, every node type-checked.
    ///
    /// # Errors
    /// [`Code::NotConformant`].
    pub fn to_graph<S: Stage>(&self, name: &str) -> Result<Graph<S>> {
        let wrong = |why: String| Diagnostic::new(Code::NotConformant, why);
        let mut graph = Graph::<S>::new(name);
        let mut ids: Vec<ValueId> = Vec::with_capacity(self.nodes.len());
        let find = |ids: &[ValueId], at: u32| {
            ids.get(at as usize).copied().ok_or_else(|| wrong(format!("value {at} is not defined before its use")))
        };
        for node in &self.nodes {
            let op = S::Op::from_parts(&node.op, AttrMap(node.attrs.clone())).map_err(|why| wrong(why.to_string()))?;
            let operands = node.operands.iter().map(|&at| find(&ids, at)).collect::<Result<_>>()?;
            let ty = node.ty.parse().map_err(wrong)?;
            ids.push(graph.push(op, operands, Some(ty), Loc::Unknown).map_err(wrong)?);
        }
        for (name, at) in &self.outputs {
            graph.output(name.clone(), find(&ids, *at)?);
        }
        Ok(graph)
    }
}

/// One column as an integer code and its selector bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodedColumn {
    /// Column of the head value.
    pub column: u32,
    /// Code boundaries.
    pub boundaries: Vec<f64>,
    /// `none`, `low` or `high`.
    pub missing: String,
    /// Cuts that the selector bits tell apart.
    pub cuts: Vec<u32>,
    /// Bit pattern of each interval.
    pub patterns: Vec<u32>,
    /// Number of selector bits.
    pub bits: u32,
    /// Number of the first of them among all selectors.
    pub first_selector: u32,
}

/// Thermometer terms of one diagram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thermometer {
    /// log2 of the torus value of a term that holds.
    pub log2_delta: u32,
    /// `(feature, cut, packed input, coefficient)`.
    pub positions: Vec<(u32, u32, u32, u32)>,
}

/// The codes of an encoder as coefficients, one after another, of inputs under one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Under the small key, else packed inputs.
    pub small: bool,
    /// The first input.
    pub first: u32,
    /// Torus value of 1.
    pub unit: f64,
}

/// How head values become selectors and packed coefficients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Encoder {
    /// Integer codes.
    Codes {
        /// Head output.
        value: String,
        /// Values are rounded to f32 first.
        single: bool,
        /// Columns.
        columns: Vec<CodedColumn>,
        /// Thermometers, one a diagram that uses some.
        thermometers: Vec<Thermometer>,
        /// Codes as LWE ciphertexts.
        samples: Vec<Samples>,
    },
    /// Reals, scaled to at most 1 by a factor the client keeps.
    Reals {
        /// Head output.
        value: String,
        /// Columns, the constant one not counted.
        columns: u32,
        /// The first packed input.
        first_packed: u32,
        /// Columns in each packed input.
        per_input: u32,
        /// Coefficients from one column to the next.
        spacing: u32,
        /// log2 of the torus value of 1.
        log2_amplitude: i32,
    },
}

/// The scale of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scale {
    /// Integers.
    Integers {
        /// log2 of the torus value of 1.
        log2_delta: u32,
        /// Rounding to the nearest integer removes all noise.
        exact: bool,
    },
    /// Values of an LWE result.
    Torus {
        /// Torus value of 1.
        unit: f64,
    },
    /// Combinations of the reals of an encoder; the last slot holds 2^62 times the client's scale.
    Reals {
        /// Position of the encoder.
        encoder: u32,
        /// log2 of the torus value of 1.
        log2_amplitude: i32,
    },
}

/// How a result becomes a tail input: `offset + step * value` per output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoder {
    /// Tail input.
    pub value: String,
    /// The scale.
    pub scale: Scale,
    /// Per output.
    pub step: Vec<f64>,
    /// Per output.
    pub offset: Vec<f64>,
}

/// Everything the client needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientSpec {
    /// Shapes of queries and results.
    pub layout: Layout,
    /// Clear computation before encryption.
    pub head: RawGraph,
    /// Clear computation after decryption.
    pub tail: RawGraph,
    /// Encoders.
    pub encoders: Vec<Encoder>,
    /// Decoders, one a result.
    pub decoders: Vec<Decoder>,
    /// The failure probability is 2^-this per prediction.
    pub failure_bits: u32,
}

/// What the compiler found, for `inspect`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Model name.
    pub model: String,
    /// Per pass: name and counters.
    pub passes: Vec<(String, Vec<(String, u64)>)>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Per result: log2 of the noise bound's standard deviation.
    pub log2_noise: Vec<f64>,
}

/// A compiled circuit, or its client part.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Identifies the circuit: SHA-256 of client and server sections.
    pub digest: [u8; 32],
    /// The client's part.
    pub client: ClientSpec,
    /// The server's part; absent in a client artifact.
    pub plan: Option<Plan>,
    /// The compile report; absent in a client artifact.
    pub report: Option<Report>,
    /// IR text by stage; absent in a client artifact.
    pub text: Vec<(String, String)>,
    /// Predicted microseconds of a row on one core of the built-in cost profile; absent in client artifacts that an older
    /// Tacit wrote.
    pub row_us: Option<f64>,
}

/// The server's part of a compiled circuit: no encodings, thresholds, labels, report or text.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerArtifact {
    /// Identifies the circuit: the digest of the whole artifact.
    pub digest: [u8; 32],
    /// Shapes of queries and results.
    pub layout: Layout,
    /// What is evaluated.
    pub plan: Plan,
}

impl Artifact {
    /// A compiled circuit; its digest is made from its parts.
    ///
    /// # Errors
    /// [`Code::Internal`] where serialization fails.
    pub fn new(client: ClientSpec, plan: Plan, report: Report, text: Vec<(String, String)>) -> Result<Self> {
        let digest = digest(&[&encode(&client)?, &encode(&plan)?]);
        let row_us = Some(CostProfile::default().plan_us(&client.layout, &plan));
        Ok(Artifact { digest, client, plan: Some(plan), report: Some(report), text, row_us })
    }

    /// The client's part alone.
    #[must_use]
    pub fn client_part(&self) -> Artifact {
        let client = self.client.clone();
        Artifact { digest: self.digest, client, plan: None, report: None, text: Vec::new(), row_us: self.row_us }
    }

    /// The server's part alone; `None` of a client artifact.
    #[must_use]
    pub fn server_part(&self) -> Option<ServerArtifact> {
        let plan = self.plan.clone()?;
        Some(ServerArtifact { digest: self.digest, layout: self.client.layout.clone(), plan })
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Code::Internal`] where serialization fails.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut sections = vec![(SectionId::CLIENT, encode(&self.client)?)];
        let mut kind = Kind::ClientArtifact;
        if let Some(plan) = &self.plan {
            kind = Kind::Artifact;
            sections.push((SectionId::SERVER, encode(plan)?));
            sections.push((SectionId::REPORT, encode(&self.report.clone().unwrap_or_default())?));
            sections.push((SectionId::TEXT, encode(&self.text)?));
        } else if let Some(row_us) = self.row_us {
            sections.push((SectionId::PREDICTION, encode(&row_us)?));
        }
        Ok(Container { kind, digest: self.digest, sections }.write())
    }

    /// Checks what no digest of the circuit covers: the IR text verifies, with all types, ranges and noise derived anew,
    /// and the report claims the noise that follows from it.
    ///
    /// # Errors
    /// [`Code::NotConformant`], with the stage and the line.
    pub fn verify(&self) -> Result<()> {
        for (stage, source) in &self.text {
            let checked = match stage.as_str() {
                Tensor::NAME => text::parse::<Tensor>(source).map(drop),
                Quant::NAME => text::parse::<Quant>(source).map(drop),
                Circuit::NAME => text::parse::<Circuit>(source).and_then(|graph| self.check_noise(&graph)),
                other => Err(Diagnostic::new(Code::NotConformant, format!("`{other}` is not a stage"))),
            };
            checked.map_err(|why| {
                let place = why.place.map_or(String::new(), |place| format!(", {place}"));
                Diagnostic::new(Code::NotConformant, why.message).at(format!("{stage} text{place}"))
            })?;
        }
        Ok(())
    }

    fn check_noise(&self, graph: &Graph<Circuit>) -> Result<()> {
        let derived = result_noise(graph);
        let claimed = self.report.as_ref().map_or(&[][..], |report| &report.log2_noise);
        if claimed.len() == derived.len() && claimed.iter().zip(&derived).all(|(a, b)| Log2Std(*a).is_near(b)) {
            return Ok(());
        }
        let message = format!("the report claims noise 2^{claimed:?}, the circuit has {derived:?}");
        Err(Diagnostic::new(Code::NotConformant, message))
    }

    /// Reads a file and checks its contents.
    ///
    /// # Errors
    /// Those of [`View::read`], [`Code::WrongFileKind`], [`Code::NotConformant`].
    pub fn from_bytes(bytes: &[u8], limit: u64) -> Result<Self> {
        let file = View::read(bytes, &[Kind::Artifact, Kind::ClientArtifact], limit)?;
        let client: ClientSpec = decode(file.section(SectionId::CLIENT)?)?;
        client.check()?;
        let mut artifact =
            Artifact { digest: file.digest, client, plan: None, report: None, text: Vec::new(), row_us: None };
        if file.kind == Kind::Artifact {
            let server = file.section(SectionId::SERVER)?;
            let plan: Plan = decode(server)?;
            crate::interp::plan::check(&plan, &artifact.client.layout)?;
            if digest(&[file.section(SectionId::CLIENT)?, server]) != file.digest {
                return Err(Diagnostic::new(Code::FileCorrupted, "the circuit does not match its digest"));
            }
            artifact.row_us = Some(CostProfile::default().plan_us(&artifact.client.layout, &plan));
            artifact.plan = Some(plan);
            artifact.report = Some(decode(file.section(SectionId::REPORT)?)?);
            artifact.text = decode(file.section(SectionId::TEXT)?)?;
            artifact.verify()?;
        } else if let Some(section) = file.find(SectionId::PREDICTION) {
            let row_us: f64 = decode(section)?;
            if !row_us.is_finite() || row_us < 0.0 {
                return Err(Diagnostic::new(Code::NotConformant, format!("a predicted time of {row_us} microseconds")));
            }
            artifact.row_us = Some(row_us);
        }
        Ok(artifact)
    }
}

impl ServerArtifact {
    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Code::Internal`] where serialization fails.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let sections = vec![(SectionId::HEADER, encode(&self.layout)?), (SectionId::SERVER, encode(&self.plan)?)];
        Ok(Container { kind: Kind::ServerArtifact, digest: self.digest, sections }.write())
    }

    /// Reads a server artifact, or the server's part of a whole one, and checks the plan. The digest of a server artifact
    /// is the compiler's word: it covers the client's part, which is not there.
    ///
    /// # Errors
    /// Those of [`View::read`], [`Code::WrongFileKind`], [`Code::NotConformant`].
    pub fn from_bytes(bytes: &[u8], limit: u64) -> Result<Self> {
        let file = View::read(bytes, &[Kind::ServerArtifact, Kind::Artifact], limit)?;
        let server = file.section(SectionId::SERVER)?;
        let layout = if file.kind == Kind::Artifact {
            let client = file.section(SectionId::CLIENT)?;
            if digest(&[client, server]) != file.digest {
                return Err(Diagnostic::new(Code::FileCorrupted, "the circuit does not match its digest"));
            }
            decode::<ClientSpec>(client)?.layout
        } else {
            decode(file.section(SectionId::HEADER)?)?
        };
        let plan: Plan = decode(server)?;
        crate::interp::plan::check(&plan, &layout)?;
        Ok(ServerArtifact { digest: file.digest, layout, plan })
    }
}

impl ClientSpec {
    /// Checks indices and sizes, so that encoding and decoding cannot go out of bounds.
    ///
    /// # Errors
    /// [`Code::NotConformant`].
    pub fn check(&self) -> Result<()> {
        let wrong =
            |why: &str| Err(Diagnostic::new(Code::NotConformant, format!("the client part is inconsistent: {why}")));
        let ClientSpec { layout, head: _, tail: _, encoders, decoders, failure_bits: _ } = self;
        crate::interp::plan::check_layout(layout)?;
        let n = layout.glwe.polynomial_size;
        for encoder in encoders {
            match encoder {
                Encoder::Codes { value: _, single: _, columns, thermometers, samples } => {
                    for column in columns {
                        let selectors_fit =
                            column.first_selector.checked_add(column.bits).is_some_and(|end| end <= layout.selectors);
                        if !selectors_fit || column.bits > 20 || column.patterns.len() != column.cuts.len() + 1 {
                            return wrong("a column's selector code");
                        }
                    }
                    for &(feature, _, packed, at) in thermometers.iter().flat_map(|t| &t.positions) {
                        if feature as usize >= columns.len() || packed >= layout.packed_inputs || at >= n {
                            return wrong("a thermometer position");
                        }
                    }
                    for Samples { small, first, unit } in samples {
                        let (size, inputs) =
                            if *small { (layout.small_size(), layout.small_inputs) } else { (n, layout.packed_inputs) };
                        let used = (columns.len() as u32).div_ceil(size.max(1));
                        let fits = size > 0 && first.checked_add(used).is_some_and(|end| end <= inputs);
                        if !fits || !unit.is_finite() || unit.abs() >= 1.0 {
                            return wrong("samples of codes");
                        }
                    }
                    if thermometers.iter().any(|t| t.log2_delta > 63) {
                        return wrong("a thermometer scale");
                    }
                }
                Encoder::Reals { value: _, columns, first_packed, per_input, spacing, log2_amplitude } => {
                    let inputs = columns.saturating_add(1).div_ceil((*per_input).max(1));
                    let fits = first_packed.checked_add(inputs).is_some_and(|end| end <= layout.packed_inputs);
                    let spaced = per_input.checked_mul(*spacing).is_some_and(|size| size <= n);
                    if *per_input == 0 || *spacing == 0 || !fits || !spaced || !(0..=63).contains(log2_amplitude) {
                        return wrong("packed columns");
                    }
                }
            }
        }
        if decoders.len() != layout.result_slots.len() + layout.lwe_results.len() {
            return wrong("the number of results");
        }
        for (number, (decoder, &slots)) in
            decoders.iter().zip(layout.result_slots.iter().chain(&layout.lwe_results)).enumerate()
        {
            if matches!(decoder.scale, Scale::Torus { .. }) != (number >= layout.result_slots.len()) {
                return wrong("a decoder of another kind of result");
            }
            let (scale_ok, outputs) = match &decoder.scale {
                Scale::Integers { log2_delta, exact: _ } => (*log2_delta <= 63, slots),
                Scale::Torus { unit } => (unit.is_finite() && *unit > 0.0, slots),
                // The last slot holds the client's scale.
                Scale::Reals { encoder, log2_amplitude } => {
                    let reals = matches!(encoders.get(*encoder as usize), Some(Encoder::Reals { .. }));
                    (reals && (0..=62).contains(log2_amplitude), slots.saturating_sub(1))
                }
            };
            if !scale_ok || decoder.step.len() != outputs as usize || decoder.offset.len() != outputs as usize {
                return wrong("a decoder");
            }
        }
        Ok(())
    }
}
