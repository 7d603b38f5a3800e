//! SageMaker's instance types for hosting: what they have and cost, and what a circuit is predicted to take on them.

use crate::program::Architecture;
use serde::Deserialize;
use std::collections::BTreeMap;
use tacit_ir::artifact::Artifact;
use tacit_ir::cost::CostProfile;
use tacit_ir::diag::{Code, Diagnostic, Result};

/// When and where the built-in prices held. Those of x86-64 agree, to a tenth of a cent, with a table that its authors read from
/// AWS's price list on 27 September 2026 (`INSTANCE_TYPES` of the notebook tool `sagemaker_env.py`), that of `ml.c7g.xlarge` with
/// a table of hosting prices to a cent (Workbench's `model_instance_info`). The other Arm types, at EC2's prices times 1.2 as all
/// others are, were compared with nothing.
const PRICED: &str =
    "September 2026, us-east-1, on demand, from published copies of AWS's list (Arm: from EC2's prices)";
/// Characters of a date or a region.
const LONGEST: usize = 40;
/// Microseconds that a row is counted as at least: none is received and answered in less.
const LEAST_US: f64 = 100.0;
/// Hours that AWS counts a month as.
const HOURS_PER_MONTH: f64 = 730.0;

/// An instance type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instance {
    /// The name.
    pub name: &'static str,
    /// Virtual processors: two a core on x86-64, one on Arm.
    pub vcpus: u32,
    /// Memory in GiB.
    pub memory: u32,
    /// US dollars for an hour of hosting, by the built-in prices.
    dollars: f64,
}

const fn instance(name: &'static str, vcpus: u32, memory: u32, dollars: f64) -> Instance {
    Instance { name, vcpus, memory, dollars }
}

/// Types without local disks, which the endpoint's key would not encrypt. Prices are 1.2 times those of EC2, as on AWS's list.
const AMD64: &[Instance] = &[
    instance("ml.m5.large", 2, 8, 0.115),
    instance("ml.m5.xlarge", 4, 16, 0.23),
    instance("ml.m5.4xlarge", 16, 64, 0.922),
    instance("ml.c5.large", 2, 4, 0.102),
    instance("ml.c5.xlarge", 4, 8, 0.204),
    instance("ml.c5.2xlarge", 8, 16, 0.408),
    instance("ml.c5.4xlarge", 16, 32, 0.816),
    instance("ml.c5.9xlarge", 36, 72, 1.836),
    instance("ml.c6i.xlarge", 4, 8, 0.204),
    instance("ml.c6i.4xlarge", 16, 32, 0.816),
    instance("ml.c6i.16xlarge", 64, 128, 3.264),
    instance("ml.c7i.xlarge", 4, 8, 0.2142),
    instance("ml.c7i.4xlarge", 16, 32, 0.8568),
    instance("ml.c7i.16xlarge", 64, 128, 3.4272),
];
const ARM64: &[Instance] = &[
    instance("ml.c6g.xlarge", 4, 8, 0.1632),
    instance("ml.c6g.4xlarge", 16, 32, 0.6528),
    instance("ml.c7g.xlarge", 4, 8, 0.174),
    instance("ml.c7g.4xlarge", 16, 32, 0.696),
    instance("ml.c7g.16xlarge", 64, 128, 2.784),
];

fn known() -> impl Iterator<Item = &'static Instance> {
    AMD64.iter().chain(ARM64)
}

/// US dollars for an hour of hosting.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// Whose they are: a date, a region, and how far they can be trusted.
    pub source: String,
    dollars: BTreeMap<String, f64>,
}

/// A file of prices.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PriceFile {
    date: String,
    region: String,
    dollars_per_hour: BTreeMap<String, f64>,
}

impl Default for Prices {
    /// The built-in ones.
    fn default() -> Self {
        let dollars = known().map(|one| (one.name.to_owned(), one.dollars)).collect();
        Prices { source: format!("{PRICED}: verify before relying on it"), dollars }
    }
}

impl Prices {
    /// The prices of a file's values: `date`, `region`, and `dollars-per-hour` by instance type. Types that it leaves out have
    /// no price, so that all prices are of one place and time.
    ///
    /// # Errors
    /// [`Code::OptionInvalid`] for unknown names, and for prices that are not positive numbers.
    pub fn from_value(value: serde_json::Value) -> Result<Self> {
        let invalid = |why: String| {
            Diagnostic::new(Code::OptionInvalid, why)
                .help("prices have date = \"2026-11\", region = \"eu-west-1\", and [dollars-per-hour] with \"ml.m5.xlarge\" = 0.23 and so on")
        };
        let PriceFile { date, region, dollars_per_hour } =
            serde_json::from_value(value).map_err(|why| invalid(why.to_string()))?;
        for (name, text) in [("date", &date), ("region", &region)] {
            let plain = |c: char| c.is_ascii_alphanumeric() || " -/.:,".contains(c);
            if text.trim().is_empty() || text.len() > LONGEST || !text.chars().all(plain) {
                return Err(invalid(format!("{name} is 1 to {LONGEST} letters, digits, spaces and -/.:,")));
            }
        }
        for (name, dollars) in &dollars_per_hour {
            if !known().any(|one| one.name == name) {
                let names: Vec<&str> = known().map(|one| one.name).collect();
                return Err(invalid(format!("`{name}` is no instance type of the table: {}", names.join(", "))));
            }
            if !(dollars.is_finite() && *dollars > 0.0) {
                return Err(invalid(format!("`{name}` costs {dollars}, which is no positive number")));
            }
        }
        if dollars_per_hour.is_empty() {
            return Err(invalid("there is no price in it".to_owned()));
        }
        Ok(Prices { source: format!("{date}, {region}, given with --prices"), dollars: dollars_per_hour })
    }
}

/// The type that templates propose.
pub fn default_instance(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "ml.m5.xlarge",
        Architecture::Arm64 => "ml.c7g.xlarge",
    }
}

/// What a circuit is predicted to take on an instance type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The type.
    pub instance: Instance,
    /// Milliseconds from a row's arrival to its result, alone.
    pub latency_ms: f64,
    /// Rows an hour with every core busy.
    pub rows_per_hour: f64,
    /// What it costs, where its price is known.
    pub cost: Option<Cost>,
}

/// US dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// An hour of one instance.
    pub per_hour: f64,
    /// A million rows with every core busy.
    pub per_million_rows: f64,
    /// One instance that is always on, a month of 730 hours.
    pub per_month: f64,
}

/// Predictions on every type that a program for this architecture runs on. Cores count as those that the costs were measured
/// on: a type whose cores are faster takes less.
pub fn predict(
    artifact: &Artifact,
    cost: &CostProfile,
    architecture: Architecture,
    prices: &Prices,
) -> Vec<Prediction> {
    let Some(plan) = &artifact.plan else { return Vec::new() };
    let layout = &artifact.client.layout;
    let (instances, per_core) = match architecture {
        Architecture::Amd64 => (AMD64, 2),
        Architecture::Arm64 => (ARM64, 1),
    };
    let one_us = cost.plan_us(layout, plan).max(LEAST_US);
    let prediction = |instance: &Instance| {
        let cores = instance.vcpus / per_core;
        let rows_per_hour = 3.6e9 * f64::from(cores) / one_us;
        Prediction {
            instance: *instance,
            latency_ms: cost.latency_us(layout, plan, cores).max(LEAST_US) / 1e3,
            rows_per_hour,
            cost: prices.dollars.get(instance.name).map(|&per_hour| Cost {
                per_hour,
                per_million_rows: per_hour / rows_per_hour * 1e6,
                per_month: per_hour * HOURS_PER_MONTH,
            }),
        }
    };
    instances.iter().map(prediction).collect()
}
