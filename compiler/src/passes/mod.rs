//! The passes: one file, one job, one name each.
//!
//! The static slice [`PASSES`] is the only list; [`PIPELINE`] is the order that `compile` runs. A pass takes an [`Ir`] of
//! a stage it accepts and returns one; passes that lower a stage say so in their [`PassInfo`]. The driver verifies after
//! every pass, records time and counters, and prints on request.

mod assign_codes;
mod choose_network_parameters;
mod choose_parameters;
mod clear_terminals;
mod diagrams;
mod driver;
mod drop_cuts;
mod encrypt_head;
mod expand_bits;
mod expand_scores;
mod fuse_linear;
mod fuse_switches;
mod lower_network;
mod lower_to_circuit;
pub(crate) mod lower_to_quant;
mod merge_siblings;
mod merge_switches;
mod partition_parameters;
mod prune_paths;
mod rotate_tables;
mod share_nodes;
mod share_rotations;
mod use_thermometer;

pub(crate) use choose_network_parameters::turns;
pub use driver::{DriverOptions, Ir, PassCx, PassReport, StageName, parse_ir, print_ir, run_passes, verify};

use tacit_ir::diag::{Code, Diagnostic, Result};

/// What a pass is and does.
#[derive(Debug)]
pub struct PassInfo {
    /// Kebab-case, verb first; the name of its test folder.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Stages it accepts; another stage is an error.
    pub from: &'static [StageName],
    /// The stage it lowers to; `None` when it stays.
    pub to: Option<StageName>,
}

/// A pass: its description and its function.
#[derive(Debug)]
pub struct Pass {
    /// What it is.
    pub info: &'static PassInfo,
    run: fn(Ir, &mut PassCx<'_>) -> Result<Ir>,
}

/// Every pass, in the order of the default pipeline where it is in it.
pub static PASSES: &[Pass] = &[
    Pass { info: &fuse_linear::INFO, run: fuse_linear::run },
    Pass { info: &encrypt_head::INFO, run: encrypt_head::run },
    Pass { info: &expand_scores::INFO, run: expand_scores::run },
    Pass { info: &lower_to_quant::INFO, run: lower_to_quant::run },
    Pass { info: &prune_paths::INFO, run: prune_paths::run },
    Pass { info: &merge_siblings::INFO, run: merge_siblings::run },
    Pass { info: &fuse_switches::INFO, run: fuse_switches::run },
    Pass { info: &lower_to_circuit::INFO, run: lower_to_circuit::run },
    Pass { info: &share_nodes::INFO, run: share_nodes::run },
    Pass { info: &use_thermometer::INFO, run: use_thermometer::run },
    Pass { info: &merge_switches::INFO, run: merge_switches::run },
    Pass { info: &drop_cuts::INFO, run: drop_cuts::run },
    Pass { info: &assign_codes::INFO, run: assign_codes::run },
    Pass { info: &rotate_tables::INFO, run: rotate_tables::run },
    Pass { info: &expand_bits::INFO, run: expand_bits::run },
    Pass { info: &clear_terminals::INFO, run: clear_terminals::run },
    Pass { info: &share_rotations::INFO, run: share_rotations::run },
    Pass { info: &choose_parameters::INFO, run: choose_parameters::run },
    Pass { info: &partition_parameters::INFO, run: partition_parameters::run },
];

/// The default pipeline, from the encrypted part of the float graph to a circuit with parameters.
pub static PIPELINE: &[&str] = &[
    "fuse-linear",
    "lower-to-quant",
    // Paths are trees only here; later passes share nodes, and a shared node has no one path.
    "prune-paths",
    "merge-siblings",
    // Before the thermometer: it wants a one-feature subtree as one test.
    "fuse-switches",
    "lower-to-circuit",
    "share-nodes",
    "use-thermometer",
    // After the thermometer: what it freed must not be merged back into tests that cost products.
    "merge-switches",
    "share-nodes",
    "drop-cuts",
    "assign-codes",
    "rotate-tables",
    "expand-bits",
    "share-nodes",
    // Only what the thermometer left.
    "clear-terminals",
    // Parameters depend on how finely a rotation may round.
    "share-rotations",
    "choose-parameters",
    "partition-parameters",
];

/// The pass of that name.
///
/// # Errors
/// [`Code::PassUnknown`], with the nearest name.
pub fn find(name: &str) -> Result<&'static Pass> {
    PASSES.iter().find(|pass| pass.info.name == name).ok_or_else(|| {
        Diagnostic::new(Code::PassUnknown, format!("there is no pass `{name}`")).help("`tacit passes` lists every pass")
    })
}

/// A pass was run before another that it needs.
fn requires(pass: &str, earlier: &str) -> Diagnostic {
    Diagnostic::new(Code::IrInvalid, format!("`{pass}` needs what `{earlier}` makes"))
        .help(format!("run `{earlier}` before `{pass}`"))
}
