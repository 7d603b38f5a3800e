//! `tacit bundle`: a folder with everything that deploying an artifact takes.

use super::{load_server, say, spinner};
use crate::args::{Bundle as Args, ServingMode, Target};
use crate::files;
use std::path::{Path, PathBuf};
use tacit_bundle::deployment::{self, Bundle, Inputs};
use tacit_bundle::instances::Prices;
use tacit_bundle::sagemaker::Mode;
use tacit_ir::artifact::{Kind, View};
use tacit_ir::cost::CostProfile;
use tacit_ir::diag::{Code, Diagnostic, Result};

pub(super) fn run(args: &Args) -> Result<()> {
    let bar = spinner("bundling");
    let bundle = match (&args.artifact, args.target) {
        (None, _) => training(args)?,
        (Some(_), Target::Training) => {
            return Err(Diagnostic::new(Code::OptionInvalid, "--target training takes no artifact")
                .help("leave the artifact out: the image compiles models in training jobs"));
        }
        (Some(path), _) => circuit(args, path)?,
    };
    files::write_folder(&args.output, &bundle.entries, deployment::DIGESTS, args.force)?;
    bar.finish_and_clear();
    let files = bundle.entries.iter().filter(|entry| entry.content.is_some()).count();
    if args.json {
        let mut summary = bundle.summary;
        summary["output"] = args.output.display().to_string().into();
        say(format!("{summary:#}"));
        return Ok(());
    }
    for warning in &bundle.warnings {
        say(format!("note: {warning}"));
    }
    let image = bundle.summary["image"].as_str().unwrap_or_default().to_owned();
    let megabytes = |name: &str| bundle.summary[name].as_f64().unwrap_or_default() / 1e6;
    say(format!(
        "wrote {}: {files} files, image {image} of {:.1} MB ({:.1} MB compressed); README.md says how to go on",
        args.output.display(),
        megabytes("image_bytes"),
        megabytes("image_compressed_bytes"),
    ));
    Ok(())
}

/// The program that was given, or the one of that name beside this one.
fn program(args: &Args, name: &str) -> Result<(PathBuf, Vec<u8>)> {
    let path = match &args.server_binary {
        Some(path) => path.clone(),
        None => {
            let own = std::env::current_exe().map_err(|why| {
                Diagnostic::new(Code::FileUnreadable, format!("this program's own place is unknown: {why}"))
                    .help("give --server-binary")
            })?;
            own.with_file_name(name)
        }
    };
    if !path.exists() {
        let build = tacit_bundle::program::build_command(name);
        let why = Diagnostic::new(Code::FileUnreadable, format!("there is no {name}, which goes into the image"));
        return Err(why
            .at(path.display().to_string())
            .help(format!("build it with\n{build}\nand give --server-binary")));
    }
    let bytes = files::read(&path)?;
    Ok((path, bytes))
}

fn training(args: &Args) -> Result<Bundle> {
    let (path, bytes) = program(args, "tacit")?;
    let name = args.name.as_deref().unwrap_or("tacit-train");
    deployment::training(name, &bytes, super::train::METRICS).map_err(|why| at_program(why, &path))
}

/// Says which program cannot be used.
fn at_program(why: Diagnostic, path: &Path) -> Diagnostic {
    if why.code == Code::ProgramUnusable { why.at(path.display().to_string()) } else { why }
}

fn circuit(args: &Args, path: &Path) -> Result<Bundle> {
    let artifact = load_server(path)?;
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let name = args.name.clone().unwrap_or_else(|| deployment::name_from(&stem));
    deployment::check_name(&name)?;
    let (program_path, program) = program(args, "tacit-server")?;
    deployment::check_server(&program).map_err(|why| at_program(why, &program_path))?;
    let server = artifact.server_part().ok_or_else(|| Diagnostic::internal("an artifact without a circuit"))?;
    let evaluation_key = args.evaluation_key.as_deref().map(|key| evaluation_key(key, &artifact.digest)).transpose()?;
    let cost = match &args.profile {
        None => CostProfile::default(),
        Some(profile) => super::options::read(None, std::slice::from_ref(profile), &[])?.cost_profile,
    };
    let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let inputs = Inputs {
        artifact: &artifact,
        name: &name,
        program: &program,
        server: server.to_bytes()?,
        client: artifact.client_part().to_bytes()?,
        evaluation_key,
        card: super::report::html(&artifact, size).map_err(|why| files::within(why, path))?,
        cost,
        measured: args.profile.is_some(),
        prices: args.prices.as_deref().map_or_else(|| Ok(Prices::default()), prices)?,
    };
    let mode = match args.mode {
        ServingMode::Async => Mode::Async,
        ServingMode::Realtime => Mode::Realtime,
        ServingMode::Batch => Mode::Batch,
    };
    match args.target {
        Target::Docker => deployment::docker(&inputs),
        Target::Kubernetes => deployment::kubernetes(&inputs),
        Target::Sagemaker | Target::Training => deployment::sagemaker(&inputs, mode, args.instance_type.as_deref()),
    }
}

/// The prices in a file of TOML or JSON.
fn prices(path: &Path) -> Result<Prices> {
    let text = files::read_text(path)?;
    let value = match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        true => serde_json::from_str(&text)
            .map_err(|why| Diagnostic::new(Code::OptionInvalid, format!("is no JSON: {why}"))),
        false => super::options::values(&text),
    };
    value.and_then(Prices::from_value).map_err(|why| files::within(why, path))
}

/// An evaluation key of this circuit. Other keys, above all a client's, must not get into a deployment.
fn evaluation_key(path: &Path, circuit: &[u8; 32]) -> Result<Vec<u8>> {
    let bytes = files::read(path)?;
    View::read(&bytes, &[Kind::EvaluationKey], Kind::EvaluationKey.default_limit())
        .and_then(|file| file.check_circuit(circuit))
        .map_err(|why| why.at(path.display().to_string()))?;
    Ok(bytes)
}
