//! Prints what the compiler makes of models: `cargo run -p tacit-compiler --example stats -- MODEL.onnx ...`.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::collections::BTreeMap;
use tacit_compiler::{compile, frontend::onnx, options::Options, passes::DriverOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let start = std::time::Instant::now();
        let model = onnx::import(&std::fs::read(&path)?, &onnx::ImportLimits::default())?;
        let compiled = compile(model, &Options::default(), &BTreeMap::new(), &DriverOptions::default())?;
        let plan = compiled.artifact.plan.as_ref().ok_or("no plan")?;
        println!("{path}: {:?}", start.elapsed());
        println!("  {:?}", compiled.artifact.client.layout);
        println!(
            "  {:?}, {} shared slots, {} phases, {} tasks",
            plan.counts(),
            plan.shared,
            plan.phases.len(),
            plan.phases.iter().map(|p| p.tasks.len()).sum::<usize>()
        );
        for pass in &compiled.passes {
            println!("  {:<18} {:>8.1?} {:?}", pass.pass, pass.time, pass.counters);
        }
    }
    Ok(())
}
