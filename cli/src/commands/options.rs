//! Compile options: from a TOML file, from `--set key=value`, or from both.

use crate::files;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tacit_compiler::options::Options;
use tacit_ir::diag::{Code, Diagnostic, Result};
use toml_edit::{Document, Item, TableLike};

/// Options of a model in TOML, and of files, each overriding those before it, overridden by settings.
pub(super) fn read(model: Option<&Path>, specs: &[PathBuf], settings: &[String]) -> Result<Options> {
    let mut object = Map::new();
    if let Some(model) = model.filter(|path| super::models::is_toml(path)) {
        let found = parse(&files::read_text(model)?, Some("options")).map_err(|why| files::within(why, model))?;
        object.extend(found);
    }
    for path in specs {
        object.extend(parse(&files::read_text(path)?, None).map_err(|why| files::within(why, path))?);
    }
    for setting in settings {
        let expected = || invalid(format!("--set {setting}: expected key=value"));
        let (key, value) = setting.split_once('=').ok_or_else(expected)?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let (key, value) = (key.trim().to_owned(), value);
        check(&key, &value).map_err(|why| invalid(format!("--set {setting}: {why}")))?;
        object.insert(key, value);
    }
    serde_json::from_value(Value::Object(object)).map_err(|why| invalid(why.to_string()))
}

/// Settings and a flag that means the same as one of them.
///
/// # Errors
/// [`Code::OptionInvalid`] where a setting says otherwise.
pub(super) fn with_flag(settings: &[String], key: &str, value: Option<f64>) -> Result<Vec<String>> {
    let mut all = settings.to_vec();
    let Some(value) = value else { return Ok(all) };
    for setting in settings {
        let same = |(own, text): (&str, &str)| own.trim() != key || text.trim().parse() == Ok(value);
        if !setting.split_once('=').is_none_or(same) {
            return Err(Diagnostic::new(Code::OptionInvalid, format!("--{key} {value} contradicts --set {setting}"))
                .help(format!("give one of them: --{key} {value} means --set {key}={value}")));
        }
    }
    all.push(format!("{key}={value}"));
    Ok(all)
}

fn invalid(why: String) -> Diagnostic {
    Diagnostic::new(Code::OptionInvalid, why).help(format!("options are: {}", known().join(", ")))
}

/// The keys, in alphabetical order.
fn known() -> Vec<String> {
    match serde_json::to_value(Options::default()) {
        Ok(Value::Object(object)) => object.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Whether a key is known and takes this value.
fn check(key: &str, value: &Value) -> std::result::Result<(), String> {
    let single = Map::from_iter([(key.to_owned(), value.clone())]);
    let options: Options = serde_json::from_value(Value::Object(single)).map_err(|why| why.to_string())?;
    options.check()
}

/// The settings of a TOML file: plain values at its top, or in one of its tables, each checked where it stands.
fn parse(text: &str, within: Option<&str>) -> Result<Map<String, Value>> {
    let at = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        format!("line {}, column {column}", before.matches('\n').count() + 1)
    };
    let document = Document::parse(text)
        .map_err(|why| invalid(why.message().to_owned()).at(at(why.span().map_or(0, |span| span.start))))?;
    let table: &dyn TableLike = match within {
        None => document.as_table(),
        Some(name) => match document.get(name) {
            None => return Ok(Map::new()),
            Some(item) => item.as_table_like().ok_or_else(|| invalid(format!("`{name}` is a table")))?,
        },
    };
    let mut object = Map::new();
    for (name, item) in table.iter() {
        let key = table.key(name);
        let start = key.and_then(|key| key.span()).or_else(|| item.span()).map_or(0, |span| span.start);
        let value = plain(item).and_then(|value| check(name, &value).map(|()| value));
        object.insert(name.to_owned(), value.map_err(|why| invalid(format!("`{name}`: {why}")).at(at(start)))?);
    }
    Ok(object)
}

/// The values of a TOML file that has no options of the compiler.
pub(super) fn values(text: &str) -> Result<Value> {
    let invalid = |why: String| Diagnostic::new(Code::OptionInvalid, why);
    let document: Document<&str> = Document::parse(text).map_err(|why| invalid(format!("is no TOML: {why}")))?;
    let entry = |(name, item): (&str, &Item)| {
        plain(item).map(|value| (name.to_owned(), value)).map_err(|why| invalid(format!("`{name}`: {why}")))
    };
    document.iter().map(entry).collect::<Result<Map<_, _>>>().map(Value::Object)
}

fn plain(item: &Item) -> std::result::Result<Value, String> {
    let value = match item {
        Item::Value(toml_edit::Value::Boolean(value)) => Some(Value::from(*value.value())),
        Item::Value(toml_edit::Value::Integer(value)) => Some(Value::from(*value.value())),
        Item::Value(toml_edit::Value::Float(value)) => serde_json::Number::from_f64(*value.value()).map(Value::Number),
        Item::Value(toml_edit::Value::String(value)) => Some(Value::from(value.value().as_str())),
        Item::Table(table) => {
            let entries = table.iter().map(|(name, item)| Ok((name.to_owned(), plain(item)?)));
            Some(Value::Object(entries.collect::<std::result::Result<_, String>>()?))
        }
        _ => None,
    };
    value.ok_or_else(|| "is not a boolean, a finite number or a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tacit_compiler::options::Encoding;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn read_text(text: &str, settings: &[&str]) -> Result<Options> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        read(None, &[file(text).path().to_owned()], &settings)
    }

    #[test]
    fn settings_win_over_the_file() {
        let text = "# comment\nprecision-bits = 9\nencoding = \"grid\"\nserver-weight = 2\ntables = false\n";
        let options = read_text(text, &["precision-bits=11"]).unwrap();
        let expected = Options {
            precision_bits: 11,
            encoding: Encoding::Grid,
            server_weight: 2.0,
            tables: false,
            ..Options::default()
        };
        assert_eq!(options, expected);
        assert_eq!(read(None, &[], &[]).unwrap(), Options::default());
    }

    #[test]
    fn errors_say_where_and_what_is_known() {
        for (text, place, message) in [
            ("tables = true\nprecision = 9\n", "line 2, column 1", "unknown field `precision`"),
            ("\n\n  tables = 3\n", "line 3, column 3", "expected a boolean"),
            ("precision-bits = 31\n", "line 1, column 1", "precision-bits is 1 to 30"),
            ("precision-bits = -1\n", "line 1, column 1", "expected u32"),
            ("server-weight = nan\n", "line 1, column 1", "finite"),
            ("[options]\ntables = true\n", "line 1, column 2", "unknown field `options`"),
            ("[cost-profile]\nterm = 3\n", "line 1, column 2", "unknown field `term`"),
            ("\n[cost-profile]\nterm-ns = -3\n", "line 2, column 2", "positive"),
            ("weight-bits = 1\n", "line 1, column 1", "weight-bits is 2 to 16"),
            ("tables = true\ntables = false\n", "line 2, column 1", "duplicate key"),
            ("tables =\n", "line 1, column 9", ""),
        ] {
            let why = read_text(text, &[]).unwrap_err();
            assert_eq!(why.code, Code::OptionInvalid);
            assert!(why.place.as_ref().is_some_and(|found| found.ends_with(place)), "{text:?}: {why}");
            assert!(why.message.contains(message), "{text:?}: {why}");
            assert!(
                why.help.as_ref().is_some_and(|help| help.contains("encoding, encrypt-head, failure-bits")),
                "{why}"
            );
        }
        assert_eq!(read(None, &["no such file".into()], &[]).unwrap_err().code, Code::FileUnreadable);
        assert_eq!(read(None, &[], &["tables".to_owned()]).unwrap_err().code, Code::OptionInvalid);
    }
}
