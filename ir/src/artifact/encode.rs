//! Integer codes to what is encrypted: shared by the client and by the compiler's simulation.

use super::{CodedColumn, Samples, Thermometer};
use crate::interp::network::Messages;

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

/// A real number of turns on the 64-bit torus.
fn torus(turns: f64) -> u64 {
    ((turns - turns.round()) * 64f64.exp2()).round() as i128 as u64
}
