//! Typing of operations that slide a window: convolution, pooling, padding.

use super::{Dim, TensorOp, TensorType};

/// Where a window goes along each spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Size of the window.
    pub kernel: Vec<usize>,
    /// From one position to the next.
    pub strides: Vec<usize>,
    /// From one element of the window to the next.
    pub dilations: Vec<usize>,
    /// Elements added before and, in the second half, after each axis.
    pub pads: Vec<usize>,
    /// A last window that lies only partly inside counts.
    pub ceil: bool,
}

impl Window {
    /// Positions along each axis of these sizes.
    ///
    /// # Errors
    /// Lists of different lengths, zeros, and a window larger than the padded input.
    pub fn positions(&self, sizes: &[usize]) -> Result<Vec<usize>, String> {
        let Window { kernel, strides, dilations, pads, ceil } = self;
        let rank = sizes.len();
        let ranks_fit = kernel.len() == rank && strides.len() == rank && dilations.len() == rank;
        if !ranks_fit || pads.len() != 2 * rank || rank == 0 {
            return Err(format!("a window of {} axes over {rank}", kernel.len()));
        }
        let positions = |axis: usize| {
            let extent = kernel[axis].checked_sub(1)?.checked_mul(dilations[axis])?.checked_add(1)?;
            let (before, after) = (pads[axis], pads[axis + rank]);
            let padded = sizes[axis].checked_add(before)?.checked_add(after)?;
            let free = padded.checked_sub(extent)?;
            let stride = Some(strides[axis]).filter(|stride| *stride > 0)?;
            let mut count = free / stride + 1;
            // A partial window must begin inside the input or the padding before it.
            if *ceil && !free.is_multiple_of(stride) && count.checked_mul(stride)? < sizes[axis].checked_add(before)? {
                count += 1;
            }
            Some(count)
        };
        let wrong = || format!("a window of {kernel:?} (dilations {dilations:?}, pads {pads:?}) over {sizes:?}");
        (0..rank).map(|axis| positions(axis).ok_or_else(wrong)).collect()
    }
}

/// Batch, channels and spatial sizes of `[rows, channels, ...]`.
fn image(x: &TensorType) -> Result<(Dim, usize, Vec<usize>), String> {
    let wrong = || format!("expected [rows, channels, ...], found {x}");
    let [rows, channels, spatial @ ..] = x.shape.as_slice() else { return Err(wrong()) };
    let fixed = |dim: &Dim| if let Dim::Fixed(size) = dim { Ok(*size) } else { Err(wrong()) };
    Ok((*rows, fixed(channels)?, spatial.iter().map(fixed).collect::<Result<_, _>>()?))
}

pub(super) fn infer(op: &TensorOp, operands: &[&TensorType]) -> Result<TensorType, String> {
    let x = operands[0];
    let shaped = |rows: Dim, channels: usize, sizes: Vec<usize>| TensorType {
        element: x.element,
        shape: [rows, Dim::Fixed(channels)].into_iter().chain(sizes.into_iter().map(Dim::Fixed)).collect(),
    };
    match (op, operands) {
        (TensorOp::Conv { strides, dilations, pads, group }, [_, w, rest @ ..]) => {
            let (rows, channels, sizes) = image(x)?;
            let weights: Option<Vec<usize>> =
                w.shape.iter().map(|dim| if let Dim::Fixed(size) = dim { Some(*size) } else { None }).collect();
            let Some([outputs, per_group, kernel @ ..]) = weights.as_deref() else {
                return Err(format!("weights {w}"));
            };
            let groups_fit = *group > 0 && per_group.checked_mul(*group) == Some(channels) && outputs % group == 0;
            let bias_fits = rest.iter().all(|bias| bias.shape == [Dim::Fixed(*outputs)] && bias.element == x.element);
            if !groups_fit || !bias_fits || rest.len() > 1 || w.element != x.element {
                return Err(format!("weights {w} in {group} groups for {x}"));
            }
            let window = Window {
                kernel: kernel.to_vec(),
                strides: strides.clone(),
                dilations: dilations.clone(),
                pads: pads.clone(),
                ceil: false,
            };
            Ok(shaped(rows, *outputs, window.positions(&sizes)?))
        }
        (TensorOp::Pool { window, .. }, [_]) => {
            let (rows, channels, sizes) = image(x)?;
            Ok(shaped(rows, channels, window.window().positions(&sizes)?))
        }
        (TensorOp::Pad { pads, .. }, [_]) => {
            let rank = x.shape.len();
            if pads.len() != 2 * rank {
                return Err(format!("{} pads for {x}", pads.len()));
            }
            let padded = |(axis, dim): (usize, &Dim)| match dim {
                Dim::Batch if pads[axis] == 0 && pads[axis + rank] == 0 => Ok(Dim::Batch),
                Dim::Batch => Err("padding of the batch".to_owned()),
                Dim::Fixed(size) => {
                    let size = size.checked_add(pads[axis]).and_then(|size| size.checked_add(pads[axis + rank]));
                    size.map(Dim::Fixed).ok_or_else(|| "pads overflow".to_owned())
                }
            };
            Ok(TensorType {
                element: x.element,
                shape: x.shape.iter().enumerate().map(padded).collect::<Result<_, _>>()?,
            })
        }
        _ => Err("operands of the wrong number".to_owned()),
    }
}
