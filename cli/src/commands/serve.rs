//! `tacit serve`: the server of the lean runtime, on this machine.

use crate::args::Serve;
use tacit_ir::diag::Result;
use tacit_server::{Settings, init_logs, serve};

pub(super) fn run(args: &Serve) -> Result<()> {
    let mut settings = Settings::from_environment(|name| std::env::var(name).ok())?;
    settings.address = (args.host, args.port).into();
    settings.artifact.clone_from(&args.artifact);
    settings.evaluation_keys.clone_from(&args.evaluation_key);
    settings.threads = args.threads.or(settings.threads);
    init_logs(&settings);
    serve(settings)
}
