//! Convolution, pooling and padding of `[rows, channels, ...]`, in double precision as all sums here.

use super::Fault;
use super::value::{Data, TensorValue};
use crate::stage::tensor::{PoolKind, window::Window};

/// Positions in an index space, the last axis fastest.
fn indices(sizes: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let count: usize = sizes.iter().product();
    (0..count).map(move |mut flat| {
        let mut index = vec![0; sizes.len()];
        for (at, size) in index.iter_mut().zip(sizes).rev() {
            *at = flat % size;
            flat /= size;
        }
        index
    })
}

/// `(element of the window, position in the input)` pairs, and the number of elements inside the padded input.
type Taps = (Vec<(usize, usize)>, usize);

/// For each position of a window the `(element of the window, position in the input)` pairs inside the input, and how many
/// elements lie inside the padded input.
fn taps(window: &Window, sizes: &[usize]) -> Result<Vec<Taps>, Fault> {
    let positions = window.positions(sizes)?;
    let rank = sizes.len();
    let one = |position: Vec<usize>| {
        let mut pairs = Vec::new();
        let mut padded = 0;
        for (element, offset) in indices(&window.kernel).enumerate() {
            let mut flat = 0;
            let mut inside = true;
            let mut in_padding = true;
            for axis in 0..rank {
                let at = position[axis] * window.strides[axis] + offset[axis] * window.dilations[axis];
                let (before, after) = (window.pads[axis], window.pads[axis + rank]);
                in_padding &= at < before + sizes[axis] + after;
                inside &= at >= before && at < before + sizes[axis];
                flat = flat * sizes[axis] + at.saturating_sub(before).min(sizes[axis].saturating_sub(1));
            }
            padded += usize::from(in_padding);
            if inside {
                pairs.push((element, flat));
            }
        }
        (pairs, padded)
    };
    Ok(indices(&positions).map(one).collect())
}

fn floats(x: &TensorValue) -> Result<Vec<f64>, Fault> {
    match x.data {
        Data::F32(_) | Data::F64(_) => Ok(x.to_f64().unwrap_or_default()),
        _ => Err(Fault::Shape("a window over values that are not floats".to_owned())),
    }
}

fn like(x: &TensorValue, shape: Vec<usize>, values: Vec<f64>) -> TensorValue {
    let data = match x.data {
        Data::F64(_) => Data::F64(values),
        _ => Data::F32(values.into_iter().map(|x| x as f32).collect()),
    };
    TensorValue { shape, data }
}

fn image(x: &TensorValue) -> Result<(usize, usize, &[usize]), Fault> {
    match x.shape.as_slice() {
        [rows, channels, sizes @ ..] => Ok((*rows, *channels, sizes)),
        _ => Err(Fault::Shape("expected [rows, channels, ...]".to_owned())),
    }
}

pub(super) fn conv(
    x: &TensorValue,
    w: &TensorValue,
    bias: Option<&TensorValue>,
    (strides, dilations, pads): (&[usize], &[usize], &[usize]),
    group: usize,
) -> Result<TensorValue, Fault> {
    let (rows, channels, sizes) = image(x)?;
    let (outputs, per_group, kernel) = image(w)?;
    let window = Window {
        kernel: kernel.to_vec(),
        strides: strides.to_vec(),
        dilations: dilations.to_vec(),
        pads: pads.to_vec(),
        ceil: false,
    };
    let taps = taps(&window, sizes)?;
    let (values, weights) = (floats(x)?, floats(w)?);
    let biases = bias.map(floats).transpose()?;
    let (area, cells): (usize, usize) = (sizes.iter().product(), kernel.iter().product());
    let mut out = Vec::with_capacity(rows * outputs * taps.len());
    for row in 0..rows {
        for output in 0..outputs {
            let first_channel = output / (outputs / group) * per_group;
            let start = biases.as_ref().map_or(0.0, |biases| biases[output]);
            for (pairs, _) in &taps {
                let mut sum = start;
                for channel in 0..per_group {
                    let image = &values[(row * channels + first_channel + channel) * area..][..area];
                    let kernel = &weights[(output * per_group + channel) * cells..][..cells];
                    sum += pairs.iter().map(|&(element, at)| kernel[element] * image[at]).sum::<f64>();
                }
                out.push(sum);
            }
        }
    }
    let shape = [rows, outputs].into_iter().chain(window.positions(sizes)?).collect();
    Ok(like(x, shape, out))
}

pub(super) fn pool(x: &TensorValue, kind: PoolKind, window: &Window, count_pads: bool) -> Result<TensorValue, Fault> {
    let (rows, channels, sizes) = image(x)?;
    let taps = taps(window, sizes)?;
    let values = floats(x)?;
    let area: usize = sizes.iter().product();
    let mut out = Vec::with_capacity(rows * channels * taps.len());
    for image in values.chunks_exact(area.max(1)) {
        for (pairs, padded) in &taps {
            let inside = pairs.iter().map(|&(_, at)| image[at]);
            out.push(match kind {
                PoolKind::Max => inside.fold(f64::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a }),
                PoolKind::Average => inside.sum::<f64>() / if count_pads { *padded } else { pairs.len() }.max(1) as f64,
            });
        }
    }
    let shape = [rows, channels].into_iter().chain(window.positions(sizes)?).collect();
    Ok(like(x, shape, out))
}

pub(super) fn pad(x: &TensorValue, pads: &[usize], value: f64) -> Result<TensorValue, Fault> {
    let rank = x.shape.len();
    let shape: Vec<usize> = (0..rank).map(|axis| x.shape[axis] + pads[axis] + pads[axis + rank]).collect();
    let values = floats(x)?;
    let at = |index: Vec<usize>| {
        let mut flat = 0;
        for axis in 0..rank {
            let inner = index[axis].checked_sub(pads[axis]).filter(|at| *at < x.shape[axis])?;
            flat = flat * x.shape[axis] + inner;
        }
        values.get(flat).copied()
    };
    let out = indices(&shape).map(|index| at(index).unwrap_or(value)).collect();
    Ok(like(x, shape.clone(), out))
}
