//! Arguments; each command's `--help` ends with an example.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Encrypted inference, compiled: turns trained models into circuits that run on encrypted inputs.
#[derive(Debug, Parser)]
#[command(name = "tacit", version, propagate_version = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile an ONNX model to an encrypted circuit.
    #[command(
        after_help = "Examples: tacit compile model.onnx -o model.tacit; tacit compile model.onnx --calibration rows.npy --encrypt-head -o model.tacit; tacit compile model.onnx --calibration rows.npy --calibration-labels labels.npy --max-accuracy-loss 0.01 -o model.tacit"
    )]
    Compile(Compile),
    /// Predict on this machine: encode, encrypt, evaluate, decrypt, decode.
    #[command(after_help = "Example: tacit predict model.tacit --input x_test.npy --mode encrypted -o y.npz")]
    Predict(Predict),
    /// Make a client's secret key for a circuit.
    #[command(after_help = "Example: tacit keygen model.tacit -o keys")]
    Keygen(Keygen),
    /// Encrypt inputs (the client's role).
    #[command(after_help = "Example: tacit encrypt client.tacit --key keys/client.key --input x.npy -o query")]
    Encrypt(Encrypt),
    /// Evaluate a circuit on an encrypted query (the server's role).
    #[command(after_help = "Example: tacit run model.tacit --query query -o result")]
    Run(Run),
    /// Decrypt a result (the client's role).
    #[command(after_help = "Example: tacit decrypt client.tacit --key keys/client.key --result result -o y.npz")]
    Decrypt(Decrypt),
    /// Write the client's part of an artifact alone: encodings and parameters, no weights.
    #[command(after_help = "Example: tacit client-artifact model.tacit -o client.tacit")]
    ClientArtifact(ClientArtifact),
    /// Write the server's part of an artifact alone: what evaluating needs, no encodings, labels or report.
    #[command(after_help = "Example: tacit server-artifact model.tacit -o server.tacit")]
    ServerArtifact(ServerArtifact),
    /// Answer encrypted queries over HTTP (the server's role); `spec/wire.md` says how.
    #[command(
        after_help = "Example: tacit serve model.tacit --port 8080 --evaluation-key keys/evaluation.key\n\nLimits are read from TACIT_... variables, which `spec/wire.md` lists. Logs go to standard output, a JSON object a line."
    )]
    Serve(Serve),
    /// Write a deployment of an artifact: image, model, templates, scripts.
    #[command(
        after_help = "Examples: tacit bundle model.tacit --target sagemaker -o deployment; tacit bundle --target training -o train"
    )]
    Bundle(Bundle),
    /// Compile inside a SageMaker training job; what `bundle --target training` makes an image of.
    #[command(after_help = "Example: tacit train --folder /opt/ml")]
    Train(Train),
    /// Predict on a server: encrypt, send, wait, decrypt. An interrupted run goes on when the command is given again.
    #[command(
        after_help = "Examples: tacit invoke client.tacit --key keys/client.key --input x.npy -o y.npz --url http://localhost:8080
          tacit invoke client.tacit --key keys/client.key --input x.npy -o y.npz --endpoint scores --bucket my-bucket --client-id me
          tacit invoke client.tacit --query query -o result --url http://localhost:8080"
    )]
    Invoke(Box<Invoke>),
    /// Show what an artifact holds: regimes, counts, noise, sizes, predicted time.
    #[command(after_help = "Examples: tacit inspect model.tacit --json; tacit inspect model.onnx --toml > model.toml")]
    Inspect(Inspect),
    /// Measure what primitives cost on this machine, for `compile` to choose parameters by.
    #[command(
        after_help = "Example: tacit profile -o machine.toml && tacit compile model.onnx --spec machine.toml -o model.tacit"
    )]
    Profile(Profile),
    /// Run passes over IR text.
    #[command(after_help = "Example: tacit opt trees.tir --passes share-nodes,use-thermometer --print-after all")]
    Opt(Opt),
    /// List the passes.
    #[command(after_help = "Example: tacit passes")]
    Passes,
    /// Explain an error code, or what would become of each operation of a model.
    #[command(after_help = "Examples: tacit explain E0101; tacit explain model.onnx --calibration rows.npy")]
    Explain(Explain),
    /// Compile an embedded XGBoost model, predict a few rows encrypted, and show them beside the clear result.
    #[command(after_help = "Examples: tacit demo --rows 5; tacit demo --sagemaker")]
    Demo {
        /// Rows to predict.
        #[arg(long, default_value_t = 5)]
        rows: usize,
        /// A network behind a stand-in for SageMaker on this machine: deploy, upload, invoke, decrypt.
        #[arg(long)]
        sagemaker: bool,
    },
}

/// `tacit compile`.
#[derive(Debug, ClapArgs)]
pub struct Compile {
    /// The model: ONNX, or TOML (`spec/model-toml.md`) when the name ends in .toml.
    pub model: PathBuf,
    /// Where to write the artifact.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Typical inputs (.npy, .npz, .csv or .parquet), for networks and grid encodings.
    #[arg(long)]
    pub calibration: Option<PathBuf>,
    /// The right answers to the calibration rows, one a row (.npy, .npz, .csv or .parquet): classes as the model names or numbers
    /// them, or values. The accuracy of networks is then measured on them, not against the float model.
    #[arg(long, value_name = "Y", requires = "calibration")]
    pub calibration_labels: Option<PathBuf>,
    /// Accuracy that the bits of a network may lose on the calibration rows, such as 0.01 for one in a hundred; as
    /// --set max-accuracy-loss=X.
    #[arg(long, value_name = "X")]
    pub max_accuracy_loss: Option<f64>,
    /// Compile options from a TOML file, such as `precision-bits = 10`; may be repeated, later files and --set win.
    #[arg(long, value_name = "OPTIONS.toml")]
    pub spec: Vec<PathBuf>,
    /// A compile option, such as precision-bits=10; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Find labels (ArgMax, TopK, a classifier's label) on the server, so that the client learns no scores; as
    /// --set encrypt-head=true.
    #[arg(long)]
    pub encrypt_head: bool,
    /// Print what was chosen as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the IR after this pass (or `all`); may be repeated.
    #[arg(long, value_name = "PASS")]
    pub print_after: Vec<String>,
    /// Print the time and the counters of every pass.
    #[arg(long)]
    pub time_passes: bool,
}

/// How `tacit predict` evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The integer stage in clear: its tables are exact, so a quantized model gives what it gives elsewhere.
    Integers,
    /// The circuit on clear integers, without noise.
    Clear,
    /// The same with noise drawn from its prediction.
    Simulate,
    /// Encrypted.
    Encrypted,
}

/// `tacit predict`.
#[derive(Debug, ClapArgs)]
pub struct Predict {
    /// The artifact.
    pub artifact: PathBuf,
    /// Inputs, one row a prediction (.npy, .npz, .csv or .parquet).
    #[arg(long)]
    pub input: PathBuf,
    /// How to evaluate.
    #[arg(long, value_enum, default_value = "encrypted")]
    pub mode: Mode,
    /// Where to write the outputs, one array per graph output (.npz).
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// Print times and sizes as JSON.
    #[arg(long)]
    pub json: bool,
    /// Threads; all cores by default.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// `tacit keygen`.
#[derive(Debug, ClapArgs)]
pub struct Keygen {
    /// The artifact or client artifact.
    pub artifact: PathBuf,
    /// Folder for client.key.
    #[arg(short, long)]
    pub output: PathBuf,
    /// File whose first line is a passphrase to encrypt the key with.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
    /// Replace an existing key; what was encrypted with it can then no longer be decrypted.
    #[arg(long)]
    pub force: bool,
}

/// `tacit encrypt`.
#[derive(Debug, ClapArgs)]
pub struct Encrypt {
    /// The artifact or client artifact.
    pub artifact: PathBuf,
    /// The client's key.
    #[arg(long)]
    pub key: PathBuf,
    /// File whose first line is the key's passphrase.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
    /// Inputs (.npy, .npz, .csv or .parquet).
    #[arg(long)]
    pub input: PathBuf,
    /// Where to write the query.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// `tacit run`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// The artifact or server artifact.
    pub artifact: PathBuf,
    /// The query.
    #[arg(long)]
    pub query: PathBuf,
    /// The evaluation key, for circuits that bootstrap.
    #[arg(long)]
    pub evaluation_key: Option<PathBuf>,
    /// Where to write the result.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Threads; all cores by default.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// `tacit decrypt`.
#[derive(Debug, ClapArgs)]
pub struct Decrypt {
    /// The artifact or client artifact.
    pub artifact: PathBuf,
    /// The client's key.
    #[arg(long)]
    pub key: PathBuf,
    /// File whose first line is the key's passphrase.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
    /// The result.
    #[arg(long)]
    pub result: PathBuf,
    /// The inputs again, for models whose outputs depend on clear inputs too.
    #[arg(long)]
    pub input: Option<PathBuf>,
    /// Where to write the outputs (.npz).
    #[arg(short, long)]
    pub output: PathBuf,
}

/// `tacit client-artifact`.
#[derive(Debug, ClapArgs)]
pub struct ClientArtifact {
    /// The artifact.
    pub artifact: PathBuf,
    /// Where to write the client's part.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// `tacit server-artifact`.
#[derive(Debug, ClapArgs)]
pub struct ServerArtifact {
    /// The artifact.
    pub artifact: PathBuf,
    /// Where to write the server's part.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// `tacit serve`.
#[derive(Debug, ClapArgs)]
pub struct Serve {
    /// The artifact or server artifact.
    pub artifact: PathBuf,
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// The address to listen on; 0.0.0.0 for all of this machine's.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// An evaluation key to hold for good, so that requests need not bring it; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub evaluation_key: Vec<PathBuf>,
    /// Threads that evaluate; all cores by default.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// Where a deployment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// SageMaker: CloudFormation templates and scripts around an image.
    Sagemaker,
    /// Docker on one machine: a compose file.
    Docker,
    /// Kubernetes: an image with the model, and manifests.
    Kubernetes,
    /// The compiler itself, for training jobs of SageMaker; takes no artifact.
    Training,
}

/// How SageMaker serves a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServingMode {
    /// Requests through S3, scaling to zero.
    Async,
    /// Calls of at most 60 s.
    Realtime,
    /// Jobs over stored requests, without an endpoint.
    Batch,
}

/// `tacit bundle`.
#[derive(Debug, ClapArgs)]
pub struct Bundle {
    /// The artifact; none for --target training.
    #[arg(required_if_eq_any = [("target", "sagemaker"), ("target", "docker"), ("target", "kubernetes")])]
    pub artifact: Option<PathBuf>,
    /// Where it is to run.
    #[arg(long, value_enum)]
    pub target: Target,
    /// Folder to write.
    #[arg(short, long)]
    pub output: PathBuf,
    /// How SageMaker serves it.
    #[arg(long, value_enum, default_value = "async")]
    pub mode: ServingMode,
    /// Name of the deployment; the artifact's file name when left out.
    #[arg(long)]
    pub name: Option<String>,
    /// The statically linked program for the image; the `tacit-server` (for training: the `tacit`) beside this program when left out.
    #[arg(long, value_name = "FILE")]
    pub server_binary: Option<PathBuf>,
    /// SageMaker's instance type, such as ml.c7i.xlarge.
    #[arg(long)]
    pub instance_type: Option<String>,
    /// The evaluation key of the only client, for the server to hold.
    #[arg(long, value_name = "FILE")]
    pub evaluation_key: Option<PathBuf>,
    /// What `tacit profile` wrote on such an instance, for the predictions.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Prices of instance types, TOML or JSON (`spec/deployment.md`); without it a dated table, to be verified before relying on it.
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Replace a folder that an earlier bundle wrote.
    #[arg(long)]
    pub force: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `tacit train`.
#[derive(Debug, ClapArgs)]
pub struct Train {
    /// The folder that SageMaker prepares.
    #[arg(long, default_value = "/opt/ml")]
    pub folder: PathBuf,
}

/// `tacit invoke`.
#[derive(Debug, ClapArgs)]
pub struct Invoke {
    /// The client artifact (or artifact).
    pub artifact: PathBuf,
    /// The client's key.
    #[arg(long, required_unless_present = "query")]
    pub key: Option<PathBuf>,
    /// File whose first line is the key's passphrase.
    #[arg(long)]
    pub passphrase_file: Option<PathBuf>,
    /// The evaluation key, for circuits that bootstrap; by default evaluation.key beside the client's key.
    #[arg(long)]
    pub evaluation_key: Option<PathBuf>,
    /// Inputs, one row a prediction (.npy, .npz, .csv or .parquet).
    #[arg(long, required_unless_present = "query")]
    pub input: Option<PathBuf>,
    /// A query that `tacit encrypt` wrote, in place of inputs and key; the output is then its result, for `tacit decrypt`.
    #[arg(long, conflicts_with_all = ["input", "key", "passphrase_file"])]
    pub query: Option<PathBuf>,
    /// Where to write the outputs (.npz); what is unfinished is kept beside it, in OUTPUT.job.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Address of a server, such as http://localhost:8080.
    #[arg(long, required_unless_present = "endpoint", conflicts_with = "endpoint")]
    pub url: Option<String>,
    /// Name of a SageMaker endpoint, asynchronous unless --realtime is given.
    #[arg(long)]
    pub endpoint: Option<String>,
    /// The endpoint answers at once.
    #[arg(long, requires = "endpoint", conflicts_with_all = ["bucket", "prefix", "client_id", "s3_endpoint", "inline", "ttl"])]
    pub realtime: bool,
    /// Bucket for keys and requests.
    #[arg(long, required_unless_present_any = ["url", "realtime"], requires = "endpoint")]
    pub bucket: Option<String>,
    /// What the names of objects begin with, such as models/scores/.
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// This client's folder in the bucket; by default made from the client's key.
    #[arg(long)]
    pub client_id: Option<String>,
    /// AWS region; by default that of the environment or the profile.
    #[arg(long)]
    pub region: Option<String>,
    /// Address of another S3, or file:///FOLDER for a folder that a local stand-in reads.
    #[arg(long, value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Address of another SageMaker runtime.
    #[arg(long, value_name = "URL")]
    pub sagemaker_endpoint: Option<String>,
    /// Rows of a request; by default what is predicted to take a minute on one core (ten of asynchronous endpoints).
    #[arg(long)]
    pub rows_per_request: Option<usize>,
    /// Asynchronous requests under way at a time.
    #[arg(long, default_value_t = 8)]
    pub in_flight: usize,
    /// Seconds an asynchronous request may wait for its turn, 60 to 21600.
    #[arg(long, default_value_t = 21_600, value_parser = clap::value_parser!(u64).range(60..=21_600))]
    pub ttl: u64,
    /// Seconds a request may run, at most 3600.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Seconds to wait for everything.
    #[arg(long, default_value_t = 86_400)]
    pub deadline: u64,
    /// Further attempts after an error in transit.
    #[arg(long, default_value_t = 5)]
    pub retries: usize,
    /// Send asynchronous requests of at most 128,000 bytes with the call, without an object.
    #[arg(long)]
    pub inline: bool,
    /// Drop an unfinished job of another run beside the output.
    #[arg(long)]
    pub restart: bool,
    /// Print times and sizes as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `tacit profile`.
#[derive(Debug, ClapArgs)]
pub struct Profile {
    /// Where to write the profile, a file for `compile --spec`; printed when absent.
    #[arg(short, long)]
    pub output: Option<PathBuf>,
}

/// `tacit explain`.
#[derive(Debug, ClapArgs)]
pub struct Explain {
    /// The code, such as E0101, or the model.
    pub what: String,
    /// Typical inputs of a network (.npy, .npz, .csv or .parquet), for its bits and times.
    #[arg(long)]
    pub calibration: Option<PathBuf>,
    /// A compile option, such as precision-bits=10; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `tacit inspect`.
#[derive(Debug, ClapArgs)]
pub struct Inspect {
    /// The artifact or client artifact; with --toml a model.
    pub artifact: PathBuf,
    /// Print a model as one in TOML, which compiles to the same circuit.
    #[arg(long, conflicts_with_all = ["json", "ir", "report"])]
    pub toml: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the IR of a stage: tensor, quant or circuit.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["json", "report"])]
    pub ir: Option<String>,
    /// Write all of it, with the parameter and security cards, as one HTML page.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

/// `tacit opt`.
#[derive(Debug, ClapArgs)]
pub struct Opt {
    /// IR text; `-` for standard input.
    pub file: PathBuf,
    /// Passes, separated by commas; the default pipeline's rest when left out.
    #[arg(long, value_delimiter = ',')]
    pub passes: Vec<String>,
    /// Print the IR after this pass (or `all`); may be repeated.
    #[arg(long, value_name = "PASS")]
    pub print_after: Vec<String>,
    /// Stop after this pass.
    #[arg(long, value_name = "PASS")]
    pub stop_after: Option<String>,
    /// Print the time and the counters of every pass.
    #[arg(long)]
    pub time_passes: bool,
    /// A compile option, such as precision-bits=10; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}
