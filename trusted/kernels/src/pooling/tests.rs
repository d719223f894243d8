//! Pooling against its definition.

use super::*;
use crate::image::Border;
use crate::testing::{Planes, assert_image, meets};
use crate::{Alone, Team};

#[test]
fn every_instruction_set_gives_what_the_definition_says() {
    let team = Team::new(2);
    let lease = team.lease().unwrap();
    let cases = [
        ((3, 3), (2, 2), (1, 1), (4, 6)),
        ((2, 2), (2, 2), (0, 0), (3, 5)),
        ((1, 1), (2, 2), (0, 0), (4, 6)),
        ((7, 11), (1, 1), (0, 0), (1, 1)),
        ((3, 2), (1, 3), (2, 1), (9, 4)),
    ];
    let from = Planes::random([40, 7, 11], 1);
    for (kernel, stride, before, out) in cases {
        let window = Window {
            kernel,
            stride,
            dilation: (1, 1),
            before,
        };
        let border = Border {
            top: 1,
            left: 0,
            bottom: 2,
            right: 1,
        };
        let (input, mut x) = from.blocked(border);
        // What the border holds must not matter.
        for (i, value) in x.iter_mut().enumerate() {
            let (row, column) = (i % input.plane() / input.row(), i % input.row() / LANES);
            if !(1..8).contains(&row) || column > 10 {
                *value = f32::NAN;
            }
        }
        let output = Image::blocked(3, out.0, out.1, Border::default()).unwrap();
        for (pooling, isa) in [Pooling::Maximum, Pooling::Mean, Pooling::MeanWithBorder]
            .into_iter()
            .flat_map(|p| Isa::available().into_iter().map(move |isa| (p, isa)))
        {
            for crew in [&Alone as &dyn Crew, &lease] {
                let mut y = vec![0.0; output.len()];
                pool(isa, crew, (input, output, window), pooling, &x, &mut y).unwrap();
                assert_image(&output, &y, 40, 1.0, |c, py, px| {
                    let met = meets(&from, &window, c, (py, px));
                    let inside: Vec<f64> = met.iter().filter_map(|(_, _, v)| *v).collect();
                    let sum: f64 = inside.iter().sum();
                    match pooling {
                        Pooling::Maximum => inside.iter().copied().fold(f64::MIN, f64::max),
                        Pooling::Mean => sum / inside.len() as f64,
                        Pooling::MeanWithBorder => sum / met.len() as f64,
                    }
                });
            }
        }
    }
}

#[test]
fn windows_that_meet_nothing_are_refused() {
    let image = |blocks, size| Image::blocked(blocks, size, size, Border::default()).unwrap();
    let window = |kernel, stride, before| Window {
        kernel: (kernel, kernel),
        stride: (stride, stride),
        dilation: (1, 1),
        before: (before, before),
    };
    assert!(check(&image(1, 8), &image(1, 4), &window(2, 2, 0)).is_ok());
    assert!(check(&image(1, 8), &image(1, 5), &window(2, 2, 0)).is_err());
    assert!(check(&image(1, 8), &image(1, 4), &window(2, 2, 2)).is_err());
    assert!(check(&image(1, 8), &image(2, 4), &window(2, 2, 0)).is_err());
    assert!(check(&image(1, 8), &image(1, 4), &window(0, 2, 0)).is_err());
    let (input, output) = (image(1, 8), image(1, 4));
    let sides = (input, output, window(2, 2, 0));
    let (x, mut y) = (vec![0.0; input.len()], vec![0.0; output.len()]);
    let (isa, max) = (Isa::detect(), Pooling::Maximum);
    assert!(pool(isa, &Alone, sides, max, &x, &mut y).is_ok());
    assert!(pool(isa, &Alone, sides, max, &x[1..], &mut y).is_err());
    assert!(pool(isa, &Alone, sides, max, &x, &mut y[1..]).is_err());
}
