//! Every knob of the compiler.

use serde::{Deserialize, Serialize};

/// How features of tree models are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// The rank among the model's own thresholds: exact, and the client learns the thresholds.
    #[default]
    Thresholds,
    /// Bins made from calibration data: the client learns nothing of the thresholds, which move to bin edges.
    Grid,
}

/// Compile options; each is a key of `--set key=value`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Options {
    /// Output error bound as bits of the output's range: the error stays below 2^-bits of it.
    pub precision_bits: u32,
    /// Failure probability of that bound for one prediction, as bits: 40 means 2^-40.
    pub failure_bits: u32,
    /// Encoding of tree features.
    pub encoding: Encoding,
    /// log2 of the number of bins of a `grid` encoding.
    pub grid_bits: u32,
    /// Nothing that depends on the weights reaches the client, except the output scale; implies `encoding = "grid"`.
    pub protect_model: bool,
    /// Send a thermometer ciphertext, which makes every subtree over one feature free of external products.
    pub thermometer: bool,
    /// Evaluate small groups of trees over few features as one rotated table.
    pub tables: bool,
    /// Cost of one millisecond of server time against one of client time, in the parameter search.
    pub server_weight: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            precision_bits: 12,
            failure_bits: 40,
            encoding: Encoding::Thresholds,
            grid_bits: 6,
            protect_model: false,
            thermometer: true,
            tables: true,
            server_weight: 4.0,
        }
    }
}
