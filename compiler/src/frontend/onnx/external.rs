//! Tensors whose bytes are in files beside the model, as torch writes larger ones.

use super::ImportLimits;
use crate::frontend::leaves_folder;
use onnx_protobuf::TensorProto;
use tacit_ir::diag::{Code, Diagnostic, Result};

/// Reads a part of a file that a model names: its offset and, where the model says it, its length.
pub type External<'a> = dyn Fn(&str, (u64, Option<u64>)) -> Result<Vec<u8>> + 'a;

/// Puts a tensor's bytes into it.
///
/// # Errors
/// [`Code::AttributeInvalid`] for a location outside the model's folder or a malformed offset, [`Code::ModelTooLarge`], those
/// of `read`.
pub(super) fn load(tensor: &mut TensorProto, limits: &ImportLimits, read: &External<'_>) -> Result<()> {
    if tensor.data_location.value() == 0 && tensor.external_data.is_empty() {
        return Ok(());
    }
    let entry =
        |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let wrong = |why: String| Diagnostic::new(Code::AttributeInvalid, why);
    let location = entry("location").ok_or_else(|| wrong("external data without a location".to_owned()))?;
    if leaves_folder(location) {
        return Err(wrong(format!("external data in `{location}`, which is not below the model's folder")).help(
            "move that file beside the model and save the model again: onnx.save_model(.., location=\"weights.data\")",
        ));
    }
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| wrong(format!("external data: `{key}` is `{text}`"))),
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    if length.is_some_and(|length| length > limits.max_bytes as u64) {
        let message = format!("{} bytes of external data, the limit is {}", length.unwrap_or(0), limits.max_bytes);
        return Err(
            Diagnostic::new(Code::ModelTooLarge, message).help("export a smaller model, or the part that is used")
        );
    }
    tensor.raw_data = read(location, (offset, length))?;
    tensor.data_location = Default::default();
    tensor.external_data.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnx_protobuf::StringStringEntryProto;

    fn tensor(entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            ..Default::default()
        };
        TensorProto { external_data: entries.iter().map(entry).collect(), ..Default::default() }
    }

    fn read(location: &str, part: (u64, Option<u64>)) -> Result<Vec<u8>> {
        assert_eq!(location, "weights/a.data");
        Ok(vec![u8::try_from(part.0).unwrap(); part.1.unwrap_or(1) as usize])
    }

    #[test]
    fn bytes_come_from_the_named_part() {
        let mut found = tensor(&[("location", "weights/a.data"), ("offset", "7"), ("length", "3")]);
        load(&mut found, &ImportLimits::default(), &read).unwrap();
        assert_eq!(found.raw_data, [7, 7, 7]);
        assert!(found.external_data.is_empty());
    }

    #[test]
    fn only_files_below_the_model_and_within_the_limit_are_read() {
        let limits = ImportLimits { max_bytes: 10, ..Default::default() };
        for (entries, code) in [
            (vec![("location", "../a.data")], Code::AttributeInvalid),
            (vec![("location", "/etc/passwd")], Code::AttributeInvalid),
            (vec![("location", "C:\\a.data")], Code::AttributeInvalid),
            (vec![("offset", "0")], Code::AttributeInvalid),
            (vec![("location", "weights/a.data"), ("offset", "-1")], Code::AttributeInvalid),
            (vec![("location", "weights/a.data"), ("length", "11")], Code::ModelTooLarge),
        ] {
            assert_eq!(load(&mut tensor(&entries), &limits, &read).unwrap_err().code, code, "{entries:?}");
        }
    }
}
