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

/// How the range of a quantity is found in its values on the calibration rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeRule {
    /// From the least to the greatest.
    #[default]
    MinMax,
    /// All but one in a thousand at each end.
    Percentile,
    /// The range whose grid has the least mean squared error.
    Mse,
}

/// How activations run encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegimeRule {
    /// Rotated look-ups wherever a layer reads inputs alone.
    Rotate,
    /// Bootstraps everywhere.
    Bootstrap,
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
    /// Networks: bits of each input's grid; searched when absent.
    pub input_bits: Option<u32>,
    /// Networks: bits of integer weights in bootstrapped layers, sign included; rotated layers have 16. Searched when
    /// absent.
    pub weight_bits: Option<u32>,
    /// Networks: bits of activations.
    pub activation_bits: u32,
    /// Networks: integer weights have a scale for each output, or one for a layer.
    pub per_channel: bool,
    /// Networks: how ranges of inputs and activations are found in the calibration rows.
    pub range: RangeRule,
    /// Networks: how activations run; chosen layer by layer when absent.
    pub regime: Option<RegimeRule>,
    /// Networks: the largest noise at the argument of an activation, as a share of the argument's standard deviation over
    /// the calibration rows; searched when absent.
    pub noise_share: Option<f64>,
    /// Networks: the share of calibration rows whose class may differ from the float model's (for one output: the error's
    /// standard deviation over the output's), which the search of bits keeps to.
    pub max_accuracy_loss: f64,
    /// Cost of one millisecond of server time against one of client time, in the parameter search.
    pub server_weight: f64,
}

impl Options {
    /// Bits of each input's grid.
    pub fn input_bits(&self) -> u32 {
        self.input_bits.unwrap_or(4)
    }
    /// Bits of weights in bootstrapped layers.
    pub fn weight_bits(&self) -> u32 {
        self.weight_bits.unwrap_or(6)
    }
    /// The tolerated share of noise.
    pub fn noise_share(&self) -> f64 {
        self.noise_share.unwrap_or(0.1)
    }
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
            input_bits: None,
            weight_bits: None,
            activation_bits: 8,
            per_channel: true,
            range: RangeRule::MinMax,
            regime: None,
            noise_share: None,
            max_accuracy_loss: 0.004,
            server_weight: 4.0,
        }
    }
}
