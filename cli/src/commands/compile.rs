//! `tacit compile`.

use super::{models, options, say, spinner};
use crate::args::Compile;
use crate::{data, files};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::{DriverOptions, PassReport};
use tacit_compiler::{Calibration, Compiled, compile};
use tacit_ir::diag::Result;

pub(super) fn run(args: &Compile) -> Result<()> {
    let start = Instant::now();
    let bar = spinner("compiling");
    let driver = DriverOptions { print_after: args.print_after.clone(), stop_after: None };
    let settings = |model: &Path| {
        let set = options::with_flag(&args.set, "max-accuracy-loss", args.max_accuracy_loss)?;
        let mut options = options::read(Some(model), &args.spec, &set)?;
        options.encrypt_head |= args.encrypt_head;
        Ok(options)
    };
    let calibration = (args.calibration.as_deref(), args.calibration_labels.as_deref());
    let compiled = from_files(&args.model, settings, calibration, &driver)?;
    files::write(&args.output, &compiled.artifact.to_bytes()?)?;
    bar.finish_and_clear();
    print_passes(&compiled.passes, args.time_passes);
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        let mut summary = super::inspect::summary(&compiled.artifact)?;
        summary["compile_seconds"] = seconds.into();
        summary["output"] = args.output.display().to_string().into();
        say(format!("{summary:#}"));
    } else {
        describe(&compiled)?;
        say(format!("wrote {} in {seconds:.2} s", args.output.display()));
    }
    Ok(())
}

/// Compiles a model file with its options, calibration rows and their labels.
pub(super) fn from_files(
    model: &Path,
    options: impl FnOnce(&Path) -> Result<Options>,
    (calibration, labels): (Option<&Path>, Option<&Path>),
    driver: &DriverOptions,
) -> Result<Compiled> {
    // Before its options: where a model is no TOML at all, that is what is wrong.
    let graph = models::read(model)?;
    let options = options(model)?;
    let calibration = match calibration {
        None => BTreeMap::new(),
        Some(path) => data::read_inputs(path, &onnx::inputs(&graph))?,
    };
    let labels = labels.map(data::read_labels).transpose()?;
    let calibration = Calibration { inputs: &calibration, labels: labels.as_ref() };
    compile(graph, &options, calibration, driver).map_err(|why| files::within(why, model))
}

/// What passes printed, and their times when asked for.
pub(super) fn print_passes(passes: &[PassReport], times: bool) {
    for pass in passes {
        if let Some(text) = &pass.printed {
            say(format!("; after {}\n{text}", pass.pass));
        }
    }
    if times {
        for pass in passes {
            let counters: Vec<String> = pass.counters.iter().map(|(what, count)| format!("{count} {what}")).collect();
            say(format!("{:<18} {:>9.3} ms  {}", pass.pass, pass.time.as_secs_f64() * 1e3, counters.join(", ")));
        }
    }
}

fn describe(compiled: &Compiled) -> Result<()> {
    say(super::inspect::text(&compiled.artifact)?);
    Ok(())
}
