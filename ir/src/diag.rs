//! Diagnostics as plain data: a code, a message, where, and one way out. Rendering belongs to the binaries.

use std::fmt;

/// Who has to act on a diagnostic; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The input is wrong: exit code 1.
    Input,
    /// The command line is wrong: exit code 2.
    Usage,
    /// A bug of ours: exit code 101.
    Internal,
}

macro_rules! codes {
    ($($Variant:ident = $code:literal, $kind:ident, $summary:literal;)*) => {
        /// The catalogue of errors. Each has a page `spec/errors/CODE.md` and a test.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $summary] $Variant),* }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$Variant),*];
            /// The code as printed, such as `E0101`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$Variant => $code),* }
            }
            /// One line on what the code means.
            pub fn summary(self) -> &'static str {
                match self { $(Code::$Variant => $summary),* }
            }
            /// Who has to act.
            pub fn kind(self) -> Kind {
                match self { $(Code::$Variant => Kind::$kind),* }
            }
            /// The code printed as `text`.
            pub fn from_name(text: &str) -> Option<Code> {
                Code::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text))
            }
        }
    };
}

codes! {
    FileUnreadable = "E0001", Input, "a file cannot be read";
    NotOnnx = "E0002", Input, "the file is not an ONNX model";
    OnnxTruncated = "E0003", Input, "the ONNX file is truncated or corrupt";
    ModelTooLarge = "E0004", Input, "the model is over a limit of the importer";
    OutputUnwritable = "E0005", Input, "an output cannot be written";
    DataUnreadable = "E0006", Input, "a data file is not a readable array or table";
    TomlInvalid = "E0007", Input, "a mistake in a model written in TOML";
    WouldReplace = "E0008", Input, "refusing to replace an output that exists";
    ProgramUnusable = "E0009", Input, "a program cannot go into a container image";
    GraphCyclic = "E0010", Input, "the graph has a cycle or its nodes are out of order";
    ValueUndefined = "E0011", Input, "a node or output refers to a value that nothing defines";
    AttributeInvalid = "E0012", Input, "a node has a missing, mistyped or contradictory attribute";
    OpUnsupported = "E0101", Input, "operations that Tacit does not support";
    OpsetUnsupported = "E0102", Input, "an operator set that Tacit does not know";
    VariantUnsupported = "E0103", Input, "a form of a supported operation that Tacit does not support";
    NeedsBootstrapping = "E0104", Input, "trees that need the output of another encrypted operation";
    NothingToEncrypt = "E0105", Input, "the model has no operation to run encrypted";
    ShapeMismatch = "E0201", Input, "shapes do not fit together";
    ElementTypeMismatch = "E0202", Input, "an element type does not fit";
    ColumnCount = "E0203", Input, "the input data has another number of columns than the model";
    InputName = "E0204", Input, "an input of the model is not in the data, or the data names an unknown input";
    NanWithoutBranch = "E0205", Input, "a missing value (NaN) where the model has no branch for it";
    WeightNotFinite = "E0206", Input, "a weight, threshold or leaf value is NaN or infinite";
    ValueOutOfRange = "E0301", Input, "an input value cannot be encoded";
    NoParameters = "E0401", Input, "no encryption parameters meet the asked precision";
    NoiseTooHigh = "E0403", Input, "predicted noise is over the budget";
    IrSyntax = "E0404", Input, "a syntax error in the text form of the IR";
    IrInvalid = "E0405", Input, "the IR does not verify";
    PassUnknown = "E0406", Usage, "no pass of that name";
    CircuitTooLarge = "E0501", Input, "the circuit is over a limit of the lowering";
    NotTacitFile = "E0601", Input, "the file is not one of Tacit's";
    FormatVersion = "E0602", Input, "the file has a format version that this Tacit does not read";
    FileCorrupted = "E0603", Input, "the file is truncated or corrupted";
    FileTooLarge = "E0604", Input, "the file is over its size limit";
    WrongFileKind = "E0605", Input, "the file is one of Tacit's, but of another kind";
    OtherCircuit = "E0606", Input, "the file belongs to another circuit";
    NotConformant = "E0607", Input, "the file's contents do not fit the circuit's parameters";
    EnvelopeInvalid = "E0608", Input, "the request to a server is malformed";
    KeyUnusable = "E0701", Input, "the key cannot be used";
    WouldOverwrite = "E0702", Input, "refusing to overwrite a secret key";
    EvaluationKeyMissing = "E0703", Input, "the circuit needs an evaluation key";
    KeyNotFound = "E0704", Input, "the server does not have the evaluation key that a query names";
    RequestReplayed = "E0705", Input, "a request with this id was answered before";
    ServerBusy = "E0706", Input, "the server cannot take the request now";
    RequestTimeout = "E0707", Input, "a request arrived too slowly";
    ServerFailed = "E0708", Input, "the server cannot start";
    ServerUnreachable = "E0710", Input, "a server or endpoint cannot be reached";
    RequestFailed = "E0711", Input, "a request failed on the server";
    AccessDenied = "E0712", Input, "access was denied";
    DeadlinePassed = "E0713", Input, "a result did not arrive before its deadline";
    JobMismatch = "E0714", Input, "an unfinished job of another run is in the way";
    JobStopped = "E0715", Input, "a training job was stopped before it had finished";
    OptionInvalid = "E0801", Usage, "an option is unknown, malformed or contradicts another";
    Internal = "E0901", Internal, "an internal error";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The whole text.
    pub source: String,
    /// Bytes of it.
    pub span: std::ops::Range<usize>,
}

/// One error with everything a reader needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The catalogue entry.
    pub code: Code,
    /// What is wrong, in one sentence, with the numbers.
    pub message: String,
    /// Where: a file, a node of a model, a line of text. Empty when the message says it.
    pub place: Option<String>,
    /// Further facts, one a line.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Option<String>,
    /// The place in a text that the user wrote.
    pub excerpt: Option<Box<Excerpt>>,
}

impl Diagnostic {
    /// A diagnostic with a message and nothing else yet.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Diagnostic { code, message: message.into(), place: None, notes: Vec::new(), help: None, excerpt: None }
    }
    /// Says where; keeps an earlier, more precise place.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place.get_or_insert_with(|| place.into());
        self
    }
    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
    /// Shows where in a text it is.
    #[must_use]
    pub fn within(mut self, source: &str, span: std::ops::Range<usize>) -> Self {
        self.excerpt = Some(Box::new(Excerpt { source: source.to_owned(), span }));
        self
    }
    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
    /// Short for an internal error.
    pub fn internal(message: impl Into<String>) -> Self {
        Diagnostic::new(Code::Internal, message)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code)?;
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// One diagnostic is the rule; where errors do not depend on each other, `notes` lists them all.
pub type Result<T> = std::result::Result<T, Diagnostic>;
