//! What servers say when they refuse.

use serde::Deserialize;
use tacit_ir::diag::{Code, Diagnostic};

/// Characters of a server's text in a message.
const SHOWN: usize = 600;

/// A refusal by a container: as it answered, or as SageMaker quotes it.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    /// The container's status.
    pub(crate) status: Option<u16>,
    /// The code of the catalogue.
    pub(crate) code: Option<String>,
    /// What is wrong.
    pub(crate) message: String,
    help: Option<String>,
}

/// The body of a refusal, `spec/wire.md`.
#[derive(Deserialize)]
struct Body {
    code: Option<String>,
    message: Option<String>,
    help: Option<String>,
}

impl Refusal {
    /// Reads what a container answered.
    pub(crate) fn of_container(status: u16, body: &[u8]) -> Self {
        let mut refusal = Self::of_text(&String::from_utf8_lossy(body));
        refusal.status = Some(status);
        refusal
    }

    /// Reads a failure in SageMaker's words: `Received client error (409) from primary with message "..."`, where the message is
    /// the container's body; or the body alone.
    pub(crate) fn of_text(text: &str) -> Self {
        let status =
            text.find("error (").and_then(|at| text.get(at + 7..at + 10)).and_then(|digits| digits.parse().ok());
        // The body is the JSON object in it, as such or quoted once more.
        let object = text.find('{').zip(text.rfind('}')).and_then(|(start, end)| text.get(start..=end));
        let body = object.and_then(|object| {
            let quoted = || serde_json::from_str::<String>(&format!("\"{object}\"")).ok();
            let read = |object: &str| serde_json::from_str::<Body>(object).ok();
            read(object).or_else(|| read(&quoted()?))
        });
        match body {
            Some(Body { code, message: Some(message), help }) => Refusal { status, code, message, help },
            _ => Refusal { status, message: shortened(text), ..Refusal::default() },
        }
    }

    /// Whether the server lacks the evaluation key.
    pub(crate) fn wants_key(&self) -> bool {
        self.code.as_deref() == Some("E0704") || self.message.contains("KEY_NOT_FOUND")
    }

    /// Whether the same request may succeed later: not when the container found fault with it.
    pub(crate) fn is_transient(&self) -> bool {
        self.status.is_none_or(|status| status >= 500 || status == 429)
    }

    /// As an error of `who`.
    pub(crate) fn diagnostic(&self, who: &str) -> Diagnostic {
        let status = self.status.map_or(String::new(), |status| format!(" {status}"));
        let code = self.code.as_ref().map_or(String::new(), |code| format!(" {code}"));
        let why = Diagnostic::new(Code::RequestFailed, format!("the server answered{status}{code}: {}", self.message));
        let why = why.at(who.to_owned());
        match (&self.help, self.is_transient()) {
            (Some(help), _) => why.help(help.clone()),
            (None, true) => why.help("look into the server's log, then give the same command again"),
            (None, false) => why,
        }
    }
}

/// A text for a message: one line, not too long, nothing that drives a terminal.
pub(crate) fn shortened(text: &str) -> String {
    let clean: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.trim() {
        "" => "(no text)".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_as_containers_and_sagemaker_write_them() {
        let body =
            r#"{"code":"E0606","message":"the request is for circuit a, this server runs b","help":"encrypt anew"}"#;
        let quoted = serde_json::to_string(body).unwrap();
        let texts = [
            body.to_owned(),
            format!("Received client error (409) from primary with message {quoted}. See the log."),
            format!("Received client error (409) from primary with message \"{body}\". See the log."),
        ];
        for text in &texts {
            let mut refusal = Refusal::of_text(text);
            assert_eq!(refusal.code.as_deref(), Some("E0606"), "{text}");
            assert_eq!(refusal.status.is_some(), text.starts_with("Received"), "{text}");
            refusal.status = Some(409);
            assert!(!refusal.is_transient() && !refusal.wants_key());
            let shown = refusal.diagnostic("http://x").to_string();
            assert!(
                shown.contains("409 E0606: the request is for circuit a") && shown.contains("encrypt anew"),
                "{shown}"
            );
        }
        let other = Refusal::of_text("upstream\u{1b}[31m died");
        assert_eq!(other.message, "upstream [31m died");
        assert!(other.is_transient());
        assert!(Refusal::of_container(409, br#"{"code":"E0704","message":"no key"}"#).wants_key());
    }
}
