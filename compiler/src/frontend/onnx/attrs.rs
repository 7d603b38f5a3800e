//! Typed attributes. `onnx_protobuf`'s own accessor can panic on hostile files, so fields are read here.

use super::node::{Converted, Fail, Labels, NodeCx};
use super::tensors;
use onnx_protobuf::AttributeProto;
use onnx_protobuf::attribute_proto::AttributeType;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::PostTransform;

impl NodeCx<'_, '_> {
    pub(super) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// The attribute if present, checked to have one of these types (old files may leave the type out).
    fn typed(&self, name: &str, ty: AttributeType) -> Converted<Option<&AttributeProto>> {
        let Some(attribute) = self.attribute(name) else { return Ok(None) };
        match attribute.type_.enum_value() {
            Ok(found) if found == ty || found == AttributeType::UNDEFINED => Ok(Some(attribute)),
            Ok(found) => Err(Fail::attribute(format!("attribute `{name}` is {found:?}, expected {ty:?}"))),
            Err(unknown) => Err(Fail::attribute(format!("attribute `{name}` has the unknown type {unknown}"))),
        }
    }

    pub(super) fn int(&self, name: &str) -> Converted<Option<i64>> {
        Ok(self.typed(name, AttributeType::INT)?.map(|attribute| attribute.i))
    }

    pub(super) fn float(&self, name: &str) -> Converted<Option<f32>> {
        Ok(self.typed(name, AttributeType::FLOAT)?.map(|attribute| attribute.f))
    }

    pub(super) fn ints(&self, name: &str) -> Converted<Option<Vec<i64>>> {
        Ok(self.typed(name, AttributeType::INTS)?.map(|attribute| attribute.ints.clone()))
    }

    pub(super) fn floats(&self, name: &str) -> Converted<Option<Vec<f32>>> {
        Ok(self.typed(name, AttributeType::FLOATS)?.map(|attribute| attribute.floats.clone()))
    }

    pub(super) fn string(&self, name: &str) -> Converted<Option<String>> {
        let attribute = self.typed(name, AttributeType::STRING)?;
        attribute.map(|attribute| utf8(name, &attribute.s)).transpose()
    }

    pub(super) fn strings(&self, name: &str) -> Converted<Option<Vec<String>>> {
        let attribute = self.typed(name, AttributeType::STRINGS)?;
        attribute.map(|attribute| attribute.strings.iter().map(|text| utf8(name, text)).collect()).transpose()
    }

    /// A flag: an integer that is not zero.
    pub(super) fn flag(&self, name: &str, default: bool) -> Converted<bool> {
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    /// A constant tensor.
    pub(super) fn tensor_attribute(&self, name: &str) -> Converted<Option<TensorValue>> {
        match self.typed(name, AttributeType::TENSOR)?.map(|attribute| attribute.t.as_ref()) {
            None => Ok(None),
            Some(None) => Err(Fail::attribute(format!("attribute `{name}` holds no tensor"))),
            Some(Some(tensor)) => Ok(Some(tensors::value(tensor, &self.importer.limits)?)),
        }
    }

    /// Floats from `name`, or from the tensor attribute `name_as_tensor`; the flag tells whether they are doubles.
    pub(super) fn reals(&self, name: &str) -> Converted<Option<(Vec<f64>, bool)>> {
        if let Some(value) = self.tensor_attribute(&format!("{name}_as_tensor"))? {
            let double = matches!(value.data, Data::F64(_));
            let data = value.to_f64().ok_or_else(|| Fail::attribute(format!("`{name}_as_tensor` holds strings")))?;
            return Ok(Some((data, double)));
        }
        Ok(self.floats(name)?.map(|values| (values.into_iter().map(f64::from).collect(), false)))
    }

    /// Class labels from whichever attribute holds them.
    pub(super) fn class_labels(&self, ints: &str, strings: &str) -> Converted<Option<Labels>> {
        // Where a file has both, onnxruntime takes the strings.
        if let Some(values) = self.strings(strings)?.filter(|values| !values.is_empty()) {
            return Ok(Some(Labels::Strings(values)));
        }
        Ok(self.ints(ints)?.filter(|values| !values.is_empty()).map(Labels::Ints))
    }

    pub(super) fn post_transform(&self) -> Converted<PostTransform> {
        match self.string("post_transform")?.as_deref() {
            None | Some("NONE") => Ok(PostTransform::None),
            Some("LOGISTIC") => Ok(PostTransform::Logistic),
            Some("SOFTMAX") => Ok(PostTransform::Softmax),
            Some("SOFTMAX_ZERO") => Ok(PostTransform::SoftmaxZero),
            Some("PROBIT") => Ok(PostTransform::Probit),
            Some(other) => Err(Fail::attribute(format!("`post_transform` is `{other}`"))),
        }
    }
}

fn utf8(name: &str, bytes: &[u8]) -> Converted<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Fail::attribute(format!("attribute `{name}` is not UTF-8")))
}
