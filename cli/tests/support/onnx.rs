//! Small ONNX models, message by message.

use onnx_protobuf::{
    GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_shape_proto, type_proto,
};

/// ONNX's numbers of element types.
pub(crate) const F32: i32 = 1;
pub(crate) const U8: i32 = 2;
pub(crate) const I8: i32 = 3;
pub(crate) const STRING: i32 = 8;

pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: F32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

/// Integers of 8 bits, in a list that could hold others.
pub(crate) fn bytes(name: &str, dims: &[i64], data_type: i32, values: &[i32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type,
        int32_data: values.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let all = |names: &[&str]| names.iter().map(|own| (*own).to_owned()).collect();
    NodeProto {
        op_type: op.to_owned(),
        name: name.to_owned(),
        input: all(inputs),
        output: all(outputs),
        ..Default::default()
    }
}

/// A value; sizes that are no numbers are names.
pub(crate) fn value(name: &str, element: i32, sizes: &[&str]) -> ValueInfoProto {
    let dim = |size: &&str| {
        let mut dim = tensor_shape_proto::Dimension::default();
        match size.parse() {
            Ok(size) => dim.set_dim_value(size),
            Err(_) => dim.set_dim_param((*size).to_owned()),
        }
        dim
    };
    let shape = TensorShapeProto { dim: sizes.iter().map(dim).collect(), ..Default::default() };
    let mut ty = TypeProto::default();
    ty.set_tensor_type(type_proto::Tensor { elem_type: element, shape: Some(shape).into(), ..Default::default() });
    ValueInfoProto { name: name.to_owned(), type_: Some(ty).into(), ..Default::default() }
}

/// `y = v max(w x + b, 0)`, of four columns, three hidden values and two results.
pub(crate) fn network() -> GraphProto {
    let ramp = |count: usize| -> Vec<f32> { (0..count).map(|at| at as f32 / 8.0 - 0.5).collect() };
    GraphProto {
        name: "network".to_owned(),
        node: vec![
            node("MatMul", "product", &["x", "w"], &["p"]),
            node("Add", "hidden", &["p", "b"], &["h"]),
            node("Relu", "relu", &["h"], &["r"]),
            node("MatMul", "scores", &["r", "v"], &["y"]),
        ],
        initializer: vec![floats("w", &[4, 3], &ramp(12)), floats("b", &[3], &ramp(3)), floats("v", &[3, 2], &ramp(6))],
        input: vec![value("x", F32, &["rows", "4"])],
        output: vec![ValueInfoProto { name: "y".to_owned(), ..Default::default() }],
        ..Default::default()
    }
}

pub(crate) fn model(graph: GraphProto) -> ModelProto {
    let import =
        |domain: &str, version: i64| OperatorSetIdProto { domain: domain.to_owned(), version, ..Default::default() };
    ModelProto {
        ir_version: 8,
        opset_import: vec![import("", 17), import("ai.onnx.ml", 3)],
        graph: Some(graph).into(),
        ..Default::default()
    }
}

pub(crate) fn file(model: &ModelProto) -> Vec<u8> {
    model.write_to_bytes().unwrap()
}
