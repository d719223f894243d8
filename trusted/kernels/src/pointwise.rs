//! One pixel in, one pixel out: scale, shift, add, clamp, copy; and zeros around an image.

#![expect(
    unsafe_code,
    reason = "SIMD over checked chunks, and disjoint rows of one output"
)]

use crate::crew::Crew;
use crate::image::{Image, LANES, ShapeError};
use crate::isa::Isa;
use crate::lanes::{Lanes, for_each_isa};
use crate::out::Out;

/// Bounds of a result; infinite where there are none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clamp {
    pub low: f32,
    pub high: f32,
}

impl Clamp {
    /// No bounds.
    pub const NONE: Self = Self {
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
    };
    /// At least 0.
    pub const RELU: Self = Self {
        low: 0.0,
        high: f32::INFINITY,
    };
}

/// `clamp(input * scale + shift + residual)`.
#[derive(Debug)]
pub struct PointwiseArgs<'a> {
    pub input: &'a [f32],
    /// A factor and a summand for each channel.
    pub scale: Option<(&'a [f32], &'a [f32])>,
    pub residual: Option<(&'a [f32], Image)>,
    pub clamp: Clamp,
    pub output: &'a mut [f32],
}

/// Computes it for every pixel of an image.
pub fn pointwise(
    isa: Isa,
    crew: &dyn Crew,
    (input, output): (Image, Image),
    args: &mut PointwiseArgs<'_>,
) -> Result<(), ShapeError> {
    let channels = LANES * input.blocks();
    let scale = args
        .scale
        .is_none_or(|(a, b)| a.len() == channels && b.len() == channels);
    let residual = args.residual.is_none_or(|(from, image)| {
        from.len() == image.len() && image.lanes() == LANES && image.same_size(&output)
    });
    let fits = args.input.len() == input.len()
        && args.output.len() == output.len()
        && input.same_size(&output)
        && (input.lanes(), output.lanes()) == (LANES, LANES);
    if !(fits && scale && residual) {
        return Err(ShapeError::Mismatch("the parts of a pointwise operation"));
    }
    let out = Out::new(&mut *args.output);
    crew.each(input.blocks(), &|_, block| {
        let channels = block * LANES..(block + 1) * LANES;
        let (scale, shift) = match args.scale {
            Some((scale, shift)) => (&scale[channels.clone()], &shift[channels]),
            None => (&[1.0; LANES][..], &[0.0; LANES][..]),
        };
        for y in 0..input.height() {
            let place = |image: &Image| block * image.plane() + image.at(y, 0);
            let line = |image: &Image| place(image)..place(image) + image.width() * LANES;
            let from = &args.input[line(&input)];
            let more = args.residual.map(|(data, image)| &data[line(&image)]);
            row(
                isa,
                (scale, shift, args.clamp),
                from,
                more,
                &out,
                place(&output),
            );
        }
    });
    Ok(())
}

for_each_isa!(row<>, row_lanes, (
    scale: (&[f32], &[f32], Clamp),
    from: &[f32],
    more: Option<&[f32]>,
    out: &Out<'_>,
    at: usize
));

/// # Safety
///
/// The CPU has the instructions, and this row of this block is written by this task only.
#[inline(always)]
unsafe fn row_lanes<L: Lanes>(
    (scale, shift, clamp): (&[f32], &[f32], Clamp),
    from: &[f32],
    more: Option<&[f32]>,
    out: &Out<'_>,
    at: usize,
) {
    assert!(scale.len() >= LANES && shift.len() >= LANES, "16 factors");
    assert!(more.is_none_or(|m| m.len() >= from.len()), "as many");
    // SAFETY: the CPU by contract; bounds by the assertions and the loop's condition.
    unsafe {
        let (scale, shift) = (L::load(scale, 0), L::load(shift, 0));
        let (low, high) = (L::all(clamp.low), L::all(clamp.high));
        for i in (0..from.len() / LANES * LANES).step_by(LANES) {
            let mut y = L::load(from, i).fma(scale, shift);
            if let Some(more) = more {
                y = y.add(L::load(more, i));
            }
            high.min(low.max(y)).store(out.lanes(at + i));
        }
    }
}

/// Scales, shifts and clamps pixels that follow each other, of one block.
pub(crate) fn scale_run(isa: Isa, scale: (&[f32], &[f32], Clamp), from: &[f32], to: &mut [f32]) {
    row(isa, scale, from, None, &Out::new(to), 0);
}

/// Zeros around an image, which stay until something else is written there.
pub fn clear_border(image: &Image, data: &mut [f32]) -> Result<(), ShapeError> {
    if data.len() != image.len() {
        return Err(ShapeError::Mismatch("an image and its memory"));
    }
    let (border, row) = (image.border(), image.row());
    let (left, right) = (border.left * image.lanes(), border.right * image.lanes());
    for plane in data.chunks_exact_mut(image.plane()) {
        let (above, rest) = plane.split_at_mut(border.top * row);
        let (rows, below) = rest.split_at_mut(image.height() * row);
        above.fill(0.0);
        below.fill(0.0);
        if left + right > 0 {
            for line in rows.chunks_exact_mut(row) {
                line[..left].fill(0.0);
                line[row - right..].fill(0.0);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Border;
    use crate::{Alone, Team};

    fn images() -> (Image, Image) {
        let border = Border {
            top: 1,
            left: 2,
            bottom: 0,
            right: 3,
        };
        (
            Image::blocked(2, 5, 4, Border::default()).unwrap(),
            Image::blocked(2, 5, 4, border).unwrap(),
        )
    }

    #[test]
    fn every_instruction_set_gives_what_the_formula_says() {
        let (plain, bordered) = images();
        let x: Vec<f32> = (0..plain.len()).map(|i| (i % 23) as f32 - 11.0).collect();
        let r: Vec<f32> = (0..bordered.len()).map(|i| (i % 7) as f32).collect();
        let scale: Vec<f32> = (0..32).map(|i| i as f32 / 8.0).collect();
        let shift: Vec<f32> = (0..32).map(|i| 1.0 - i as f32).collect();
        let team = Team::new(2);
        let lease = team.lease().unwrap();
        for isa in Isa::available() {
            for crew in [&Alone as &dyn Crew, &lease] {
                let mut out = vec![9.0; bordered.len()];
                let mut args = PointwiseArgs {
                    input: &x,
                    scale: Some((&scale, &shift)),
                    residual: Some((&r, bordered)),
                    clamp: Clamp {
                        low: -2.0,
                        high: 20.0,
                    },
                    output: &mut out,
                };
                pointwise(isa, crew, (plain, bordered), &mut args).unwrap();
                clear_border(&bordered, &mut out).unwrap();
                let mut inside = 0;
                for (block, (y, px)) in (0..2)
                    .flat_map(|b| (0..5).flat_map(move |y| (0..4).map(move |px| (b, (y, px)))))
                {
                    for lane in 0..LANES {
                        let from = block * plain.plane() + plain.at(y, px) + lane;
                        let to = block * bordered.plane() + bordered.at(y, px) + lane;
                        let c = block * LANES + lane;
                        let want = (x[from] * scale[c] + shift[c] + r[to]).clamp(-2.0, 20.0);
                        assert_eq!(out[to], want, "{}", isa.name());
                        out[to] = 0.0;
                        inside += 1;
                    }
                }
                assert_eq!(inside, plain.len());
                assert!(out.iter().all(|v| *v == 0.0), "the border is not clear");
            }
        }
    }

    #[test]
    fn parts_of_other_sizes_are_refused() {
        let (plain, bordered) = images();
        let x = vec![0.0; plain.len()];
        let mut out = vec![0.0; bordered.len()];
        let mut run = |input: &[f32], scale: &[f32], residual: Option<(&[f32], Image)>| {
            let mut args = PointwiseArgs {
                input,
                scale: Some((scale, scale)),
                residual,
                clamp: Clamp::NONE,
                output: &mut out,
            };
            pointwise(Isa::detect(), &Alone, (plain, bordered), &mut args)
        };
        assert!(run(&x, &[1.0; 32], None).is_ok());
        assert!(run(&x[1..], &[1.0; 32], None).is_err());
        assert!(run(&x, &[1.0; 31], None).is_err());
        assert!(run(&x, &[1.0; 32], Some((&x[1..], plain))).is_err());
        assert!(clear_border(&plain, &mut [0.0; 3]).is_err());
    }

    #[test]
    fn nan_stays_nan() {
        for isa in Isa::available() {
            let mut out = [0.0; LANES];
            let scale = (&[1.0; LANES][..], &[0.0; LANES][..], Clamp::RELU);
            scale_run(isa, scale, &[f32::NAN; LANES], &mut out);
            assert!(out.iter().all(|v| v.is_nan()), "{}", isa.name());
        }
    }
}
