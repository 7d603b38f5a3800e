//! Feed-forward networks: from a float graph to alternating affine maps and look-ups.
//!
//! [`trace`] reads any float graph made of affine operations, elementwise functions and maxima as *affine maps over atoms*,
//! where an atom is an input or the output of a function of one affine map. [`quantize`](quantize::quantize) gives every
//! atom integers with a sound interval, and every function a table.

pub(crate) mod calibrate;
mod function;
pub(crate) mod quantize;
mod rows;
pub(crate) mod trace;

pub(crate) use rows::Row;
pub(crate) use trace::{Activation, trace};
