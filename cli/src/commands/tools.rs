//! Compiler tools: `opt`, `passes`, `explain`.

use super::{models, options, say};
use crate::args::{Explain, Opt};
use crate::{data, files};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use tacit_compiler::explain::Line;
use tacit_compiler::frontend::onnx;
use tacit_compiler::passes::{DriverOptions, PASSES, PIPELINE, PassCx, parse_ir, print_ir, run_passes};
use tacit_ir::diag::{Code, Diagnostic, Result};

pub(super) fn opt(args: &Opt) -> Result<()> {
    let source = if args.file == Path::new("-") {
        let mut source = String::new();
        std::io::stdin()
            .read_to_string(&mut source)
            .map_err(|why| Diagnostic::new(Code::FileUnreadable, why.to_string()).at("standard input"))?;
        source
    } else {
        files::read_text(&args.file)?
    };
    let ir = parse_ir(&source).map_err(|why| files::within(why, &args.file))?;
    let names: Vec<&str> = if args.passes.is_empty() {
        // The rest of the pipeline, from the first pass that takes the stage.
        let takes =
            |name: &&str| PASSES.iter().any(|pass| pass.info.name == *name && pass.info.from.contains(&ir.stage()));
        let from = PIPELINE.iter().position(takes).unwrap_or(0);
        PIPELINE[from..].to_vec()
    } else {
        args.passes.iter().map(String::as_str).collect()
    };
    let options = options::read(None, &[], &args.set)?;
    let calibration = BTreeMap::new();
    let mut cx = PassCx::new(&options, &calibration);
    let driver = DriverOptions { print_after: args.print_after.clone(), stop_after: args.stop_after.clone() };
    let (ir, reports) = run_passes(ir, &names, &mut cx, &driver)?;
    super::compile::print_passes(&reports, args.time_passes);
    if args.print_after.is_empty() {
        say(print_ir(&ir).trim_end());
    }
    Ok(())
}

pub(super) fn passes() -> Result<()> {
    for pass in PASSES {
        let from: Vec<&str> = pass.info.from.iter().map(|stage| stage.as_str()).collect();
        let to = pass.info.to.map_or(String::new(), |to| format!(" -> {}", to.as_str()));
        say(format!("{:<18} {:<24} {}", pass.info.name, format!("{}{to}", from.join("|")), pass.info.summary));
    }
    Ok(())
}

include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

pub(super) fn explain(args: &Explain) -> Result<()> {
    let known = Code::from_name(&args.what);
    let page = known.and_then(|known| ERROR_PAGES.iter().find(|(name, _)| *name == known.as_str()));
    if let Some((_, page)) = page {
        say(page.trim_end());
        return Ok(());
    }
    let path = Path::new(&args.what);
    if !path.exists() {
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        return Err(Diagnostic::new(
            Code::OptionInvalid,
            format!("`{}` is neither an error code nor a file", args.what),
        )
        .help(format!("codes are: {}", codes.join(" "))));
    }
    let model = models::read(path)?;
    let options = options::read(Some(path), &[], &args.set)?;
    let calibration = match &args.calibration {
        None => BTreeMap::new(),
        Some(rows) => data::read_inputs(rows, &onnx::inputs(&model))?,
    };
    let lines =
        tacit_compiler::explain::explain(model, &options, &calibration).map_err(|why| files::within(why, path))?;
    let total: f64 = lines.iter().filter_map(|line| line.cost_us).sum();
    let wide = |of: fn(&Line) -> &str| lines.iter().map(|line| of(line).chars().count()).max().unwrap_or(0);
    let (place, op, how) = (wide(|line| &line.place), wide(|line| &line.op), wide(|line| &line.how));
    for line in &lines {
        let share =
            line.cost_us.map_or(String::new(), |us| format!("{:>9.2} ms {:>4.0} %", us / 1e3, 100.0 * us / total));
        let text = format!("{:<place$}  {:<op$}  {:<how$} {share}", line.place, line.op, line.how);
        say(text.trim_end());
    }
    if total > 0.0 {
        say(format!("predicted {:.2} ms on one core, without preparing the query", total / 1e3));
    } else if lines.iter().any(|line| line.how.contains("look-ups")) {
        say("give --calibration for bits and times");
    }
    Ok(())
}
