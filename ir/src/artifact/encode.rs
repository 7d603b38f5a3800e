//! Integer codes to what is encrypted, and values on the torus back to reals: shared by the client and by the compiler's simulation.

use super::{ClientSpec, CodedColumn, Decoder, Encoder, Samples, Thermometer};
use crate::diag::{Code, Diagnostic, Result};
use crate::interp::network::Messages;
use crate::stage::quant::{CodedFeature, Missing};

/// Writes the codes of one encoder, one a column, to the places that the encoder names.
///
/// # Panics
/// Where the encoder does not fit the messages; [`ClientSpec::check`](super::ClientSpec::check) makes sure that it does.
pub fn codes(
    codes: &[u32],
    columns: &[CodedColumn],
    thermometers: &[Thermometer],
    samples: &[Samples],
    out: &mut Messages,
) {
    for (column, &code) in columns.iter().zip(codes) {
        let interval = column.cuts.partition_point(|&cut| cut <= code);
        let pattern = column.patterns.get(interval).copied().unwrap_or(0);
        for bit in 0..column.bits {
            out.selectors[(column.first_selector + bit) as usize] = pattern >> bit & 1 == 1;
        }
    }
    for Samples { small, first, unit } in samples {
        let inputs = if *small { &mut out.small } else { &mut out.packed };
        let places = inputs.iter_mut().skip(*first as usize).flatten();
        for (place, &code) in places.zip(codes) {
            *place = torus(f64::from(code) * unit);
        }
    }
    for thermometer in thermometers {
        for &(feature, cut, packed, at) in &thermometer.positions {
            if codes[feature as usize] >= cut {
                out.packed[packed as usize][at as usize] = 1 << thermometer.log2_delta;
            }
        }
    }
}

/// The real values of an LWE result on the torus, where 1 is `unit` of a turn.
pub fn reals(decoder: &Decoder, unit: f64, values: &[u64]) -> impl Iterator<Item = f64> {
    let scales = decoder.step.iter().zip(&decoder.offset);
    scales.zip(values).map(move |((step, offset), &torus)| offset + step * (torus as i64 as f64 / 64f64.exp2() / unit))
}

impl ClientSpec {
    /// The coded features of each encoder; none for encoders of reals.
    ///
    /// # Errors
    /// [`Code::NotConformant`] for boundaries out of order.
    pub fn features(&self) -> Result<Vec<Vec<CodedFeature>>> {
        let of = |encoder: &Encoder| match encoder {
            Encoder::Codes { columns, .. } => columns.iter().map(feature).collect(),
            Encoder::Reals { .. } => Ok(Vec::new()),
        };
        self.encoders.iter().map(of).collect()
    }
}

fn feature(column: &CodedColumn) -> Result<CodedFeature> {
    let missing = Missing::from_name(&column.missing);
    let increasing = column.boundaries.windows(2).all(|pair| pair[0] < pair[1]);
    match missing {
        Some(missing) if increasing => {
            Ok(CodedFeature { column: column.column, boundaries: column.boundaries.clone(), missing })
        }
        _ => Err(Diagnostic::new(Code::NotConformant, "a column's encoding is inconsistent")),
    }
}

/// A real number of turns on the 64-bit torus.
fn torus(turns: f64) -> u64 {
    ((turns - turns.round()) * 64f64.exp2()).round() as i128 as u64
}
