//! Every knob of the compiler.

use serde::{Deserialize, Serialize};
use tacit_ir::cost::CostProfile;
use tacit_ir::params::BootstrapParams;

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

/// How the position of a greatest value is found encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadRule {
    /// All pairs are compared: many tables, one after the other only two.
    Pairs,
    /// Winners are compared: few tables, in as many rounds as a tree has levels, whose errors add up.
    Tournament,
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
    /// Networks: zero is in the middle of ranges of inputs and activations, and on their grids; else a range is as wide as what
    /// it has to hold. What a model or its data have on a grid keeps that.
    pub symmetric: bool,
    /// Networks: how activations run; chosen layer by layer when absent.
    pub regime: Option<RegimeRule>,
    /// Find labels (ArgMax, TopK, the labels of classifiers) on the server: the client learns them and not the scores. Outputs
    /// that need the scores are left out.
    pub encrypt_head: bool,
    /// How the position of a greatest value is found encrypted; the quicker way by prediction when absent.
    pub head: Option<HeadRule>,
    /// Networks: the largest noise at the argument of an activation, as a share of the argument's standard deviation over
    /// the calibration rows; searched when absent.
    pub noise_share: Option<f64>,
    /// Networks: one blind rotation may turn several tables of one sum, where that is predicted to be quicker.
    pub share_rotations: bool,
    /// Networks: at most so many parameter sets of bootstraps, each with keys of its own; 1 gives all the same.
    pub partitions: u32,
    /// Networks: the share of calibration rows whose class may differ from the float model's (for one output: the error's
    /// standard deviation over the output's), which the search of bits keeps to.
    pub max_accuracy_loss: f64,
    /// Networks: the largest deviation of an output's error on the simulated calibration rows, as a share of the output's own
    /// deviation; the class alone counts when absent.
    pub max_output_error: Option<f64>,
    /// Cost of one millisecond of server time against one of client time, in the parameter search.
    pub server_weight: f64,
    /// What primitives cost where the circuit will run, in nanoseconds, as `tacit profile` measures it.
    pub cost_profile: CostProfile,
}

impl Options {
    /// Whether every option has a value that makes sense; if not, which has not.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: Option<u32>, low: u32, high: u32| match value {
            Some(value) if !(low..=high).contains(&value) => Err(format!("{name} is {low} to {high}, not {value}")),
            _ => Ok(()),
        };
        within("precision-bits", Some(self.precision_bits), 1, 30)?;
        within("failure-bits", Some(self.failure_bits), 1, 128)?;
        within("grid-bits", Some(self.grid_bits), 1, 16)?;
        within("input-bits", self.input_bits, 1, 12)?;
        within("weight-bits", self.weight_bits, 2, 16)?;
        within("activation-bits", Some(self.activation_bits), 2, 16)?;
        within("partitions", Some(self.partitions), 1, BootstrapParams::MAX_PARTITIONS as u32)?;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if self.noise_share.is_some_and(|share| !positive(share)) {
            return Err("noise-share is a positive number".to_owned());
        }
        if !self.max_accuracy_loss.is_finite() || self.max_accuracy_loss < 0.0 {
            return Err("max-accuracy-loss is a number from 0 on".to_owned());
        }
        if self.max_output_error.is_some_and(|error| !positive(error)) {
            return Err("max-output-error is a positive number".to_owned());
        }
        if !positive(self.server_weight) || !self.cost_profile.is_positive() {
            return Err("server-weight and all costs are positive numbers".to_owned());
        }
        Ok(())
    }
    /// Bits of each input's grid.
    pub fn input_bits(&self) -> u32 {
        self.input_bits.unwrap_or(4)
    }
    /// Bits of weights in bootstrapped layers.
    pub fn weight_bits(&self) -> u32 {
        self.weight_bits.unwrap_or(6)
    }
    /// How positions of greatest values are found.
    pub fn head(&self) -> HeadRule {
        self.head.unwrap_or(HeadRule::Pairs)
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
            symmetric: false,
            regime: None,
            encrypt_head: false,
            head: None,
            noise_share: None,
            share_rotations: true,
            partitions: 4,
            max_accuracy_loss: 0.004,
            max_output_error: None,
            server_weight: 4.0,
            cost_profile: CostProfile::default(),
        }
    }
}
