//! `tacit inspect`: what an artifact holds, as text or as JSON.

use super::{load, say};
use crate::args::Inspect;
use crate::files;
use serde_json::{Value, json};
use tacit_ir::artifact::{Artifact, v1};
use tacit_ir::cost::CostProfile;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::params::{BootstrapParams, GadgetParams, LweParams};

pub(super) fn run(args: &Inspect) -> Result<()> {
    if args.toml {
        say(tacit_compiler::frontend::toml::write(&super::models::read(&args.artifact)?).trim_end());
        return Ok(());
    }
    let artifact = load(&args.artifact)?;
    if let Some(stage) = &args.ir {
        let found = artifact.text.iter().find(|(name, _)| name == stage);
        let (_, text) = found.ok_or_else(|| {
            let known: Vec<&str> = artifact.text.iter().map(|(name, _)| name.as_str()).collect();
            Diagnostic::new(Code::OptionInvalid, format!("the artifact has no IR of a stage `{stage}`"))
                .help(format!("stages in this file: {}", known.join(", ")))
        })?;
        say(text.trim_end());
        return Ok(());
    }
    if let Some(path) = &args.report {
        let size = std::fs::metadata(&args.artifact).map_or(0, |metadata| metadata.len());
        let page = super::report::html(&artifact, size).map_err(|why| files::within(why, &args.artifact))?;
        files::write(path, page.as_bytes())?;
    }
    if args.json {
        say(format!("{:#}", summary(&artifact)?));
    } else {
        say(text(&artifact)?);
    }
    if let Some(path) = args.report.as_ref().filter(|_| !args.json) {
        say(format!("wrote {}", path.display()));
    }
    Ok(())
}

/// Everything known of an artifact, documented in `spec/cli-json.md`.
pub(super) fn summary(artifact: &Artifact) -> Result<Value> {
    let layout = &artifact.client.layout;
    let digest: String = artifact.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut out = json!({
        "format": 1,
        "circuit": digest,
        "parameters": {
            "glwe_dimension": layout.glwe.dimension,
            "polynomial_size": layout.glwe.polynomial_size,
            "lwe_dimension": layout.glwe.lwe_dimension(),
            "log2_std": layout.glwe.log2_std,
            "base_log": layout.gadget.map(|gadget| gadget.base_log),
            "levels": layout.gadget.map(|gadget| gadget.levels),
            "failure_bits": artifact.client.failure_bits,
        },
        "partitions": layout.partitions.iter().map(partition).collect::<Vec<Value>>(),
        "selector_bits": layout.selectors,
        "packed_inputs": layout.packed_inputs,
        "results": layout.result_slots.len(),
        "query_bytes": v1::query_row_bytes(layout),
        "result_bytes": v1::result_row_bytes(layout),
        "evaluation_key_bytes": v1::evaluation_key_bytes(layout),
    });
    if let (Some(plan), Some(report)) = (&artifact.plan, &artifact.report) {
        let counts = plan.counts();
        let passes: Vec<Value> = report
            .passes
            .iter()
            .map(|(pass, counters)| {
                let counters: serde_json::Map<String, Value> =
                    counters.iter().map(|(what, count)| (what.clone(), (*count).into())).collect();
                json!({ "pass": pass, "counters": counters })
            })
            .collect();
        out["model"] = report.model.clone().into();
        out["external_products"] = counts.external_products.into();
        out["block_products"] = counts.block_products.into();
        out["polynomial_products"] = counts.polynomial_products.into();
        out["bootstraps"] = counts.bootstraps.into();
        out["keyswitches"] = counts.keyswitches.into();
        out["form_terms"] = counts.form_terms.into();
        out["predicted_run_ms"] = predicted_run_ms(artifact).into();
        out["log2_noise"] = report.log2_noise.clone().into();
        out["passes"] = passes.into();
        out["notes"] = report.notes.clone().into();
    }
    Ok(out)
}

/// The parameter set of a partition of bootstraps.
fn partition(params: &BootstrapParams) -> Value {
    json!({
        "lwe_dimension": params.lwe.dimension,
        "log2_std": params.lwe.log2_std,
        "key_block": params.lwe.block,
        "estimated_bits": params.lwe.estimated_bits(),
        "base_log": params.gadget.base_log,
        "levels": params.gadget.levels,
        "keyswitch_base_log": params.keyswitch.map(|gadget| gadget.base_log),
        "keyswitch_levels": params.keyswitch.map(|gadget| gadget.levels),
        "inputs": params.small_dimension > 0,
    })
}

/// What the security of a small key is known to be.
pub(super) fn security(key: &LweParams) -> String {
    key.estimated_bits().map_or("132-bit curve".to_owned(), |bits| format!("{bits:.1} bits of security"))
}

/// One thread's predicted time for a row.
pub(super) fn predicted_run_ms(artifact: &Artifact) -> f64 {
    artifact.plan.as_ref().map_or(0.0, |plan| CostProfile::default().plan_us(&artifact.client.layout, plan) / 1e3)
}

/// The same for people.
pub(super) fn text(artifact: &Artifact) -> Result<String> {
    let layout = &artifact.client.layout;
    let digest: String = artifact.digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let kilobytes = |bytes: u64| format!("{:.1} KB", bytes as f64 / 1e3);
    let mut lines = vec![format!("circuit      {digest}")];
    lines.push(format!(
        "parameters   k={} N={} noise 2^{:.2}{}, 132 bits of security, failure 2^-{}",
        layout.glwe.dimension,
        layout.glwe.polynomial_size,
        layout.glwe.log2_std,
        layout.gadget.map_or(String::new(), |g| format!(", base 2^{} level {}", g.base_log, g.levels)),
        artifact.client.failure_bits,
    ));
    let bootstraps = artifact.plan.as_ref().map(|plan| plan.network.bootstraps(layout.partitions.len()));
    for (at, params) in layout.partitions.iter().enumerate() {
        let gadget = |g: &GadgetParams| format!("base 2^{} level {}", g.base_log, g.levels);
        let count = bootstraps.as_ref().map_or(String::new(), |counts| format!("{} bootstraps with ", counts[at]));
        lines.push(format!(
            "partition {at}  {count}n={} noise 2^{:.2}, key in blocks of {} with at most one 1, {}, {}, keyswitch {}",
            params.lwe.dimension,
            params.lwe.log2_std,
            params.lwe.block,
            security(&params.lwe),
            gadget(&params.gadget),
            params.keyswitch.as_ref().map_or("none".to_owned(), gadget),
        ));
    }
    lines.push(format!("selectors    {} bits, {} packed inputs", layout.selectors, layout.packed_inputs));
    lines.push(format!(
        "sizes        query {}, result {}, evaluation key {}",
        kilobytes(v1::query_row_bytes(layout)),
        kilobytes(v1::result_row_bytes(layout)),
        match v1::evaluation_key_bytes(layout) {
            0 => "none".to_owned(),
            bytes => kilobytes(bytes),
        },
    ));
    if let (Some(plan), Some(report)) = (&artifact.plan, &artifact.report) {
        let counts = plan.counts();
        lines.push(format!(
            "work         {} external products, {} by blocks, {} polynomial products, {} form terms, {} bootstraps, {} keyswitches; predicted {:.2} ms on one core",
            counts.external_products,
            counts.block_products,
            counts.polynomial_products,
            counts.form_terms,
            counts.bootstraps,
            counts.keyswitches,
            predicted_run_ms(artifact),
        ));
        for (number, noise) in report.log2_noise.iter().enumerate() {
            lines.push(format!("noise        result {number}: standard deviation at most 2^{noise:.2} of the torus"));
        }
        for (pass, counters) in report.passes.iter().filter(|(_, counters)| !counters.is_empty()) {
            let counters: Vec<String> = counters.iter().map(|(what, count)| format!("{count} {what}")).collect();
            lines.push(format!("{pass:<20} {}", counters.join(", ")));
        }
        lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    }
    Ok(lines.join("\n"))
}
