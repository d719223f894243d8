//! Depthwise convolutions against their definition.

use super::*;
use crate::image::Border;
use crate::layout::{depthwise_weights, per_channel};
use crate::testing::{Planes, assert_image, meets, numbers};
use crate::{Alone, Team};

#[test]
fn every_instruction_set_gives_what_the_definition_says() {
    let team = Team::new(2);
    let lease = team.lease().unwrap();
    for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)] {
        for (channels, height, width) in [(16_usize, 1_usize, 1_usize), (24, 9, 12), (40, 7, 23)] {
            let window = Window {
                kernel: (kernel, kernel),
                stride: (stride, stride),
                dilation: (1, 1),
                before: (kernel / 2, kernel / 2),
            };
            let out = (height.div_ceil(stride), width.div_ceil(stride));
            let from = Planes::random([channels, height, width], 1);
            let (input, x) = from.blocked(window.border((height, width), out).unwrap());
            let output = Image::blocked(input.blocks(), out.0, out.1, Border::default()).unwrap();
            let plain = numbers(channels * kernel * kernel, 2);
            let weights = depthwise_weights(&plain, channels, kernel * kernel);
            let bias = per_channel(&numbers(channels, 3));
            let conv = Depthwise::new(input, output, window).unwrap();
            for isa in Isa::available() {
                for crew in [&Alone as &dyn Crew, &lease] {
                    let mut y = vec![0.0; output.len()];
                    let mut args = DepthwiseArgs {
                        input: &x,
                        weights: &weights,
                        bias: &bias,
                        clamp: Clamp::RELU,
                        output: &mut y,
                    };
                    conv.run(isa, crew, &mut args).unwrap();
                    assert_image(&output, &y, channels, 10.0, |c, py, px| {
                        let products = meets(&from, &window, c, (py, px));
                        let sum = products.into_iter().map(|(ky, kx, v)| {
                            let weight = plain[(c * kernel + ky) * kernel + kx];
                            v.unwrap_or(0.0) * f64::from(weight)
                        });
                        (sum.sum::<f64>() + f64::from(bias[c])).max(0.0)
                    });
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let border = Border {
        top: 1,
        left: 1,
        bottom: 1,
        right: 1,
    };
    let tight = Image::blocked(2, 6, 6, Border::default()).unwrap();
    let roomy = Image::blocked(2, 6, 6, border).unwrap();
    let other = Image::blocked(1, 6, 6, Border::default()).unwrap();
    let window = Window {
        kernel: (3, 3),
        stride: (1, 1),
        dilation: (1, 1),
        before: (1, 1),
    };
    assert!(Depthwise::new(roomy, tight, window).is_ok());
    assert!(Depthwise::new(tight, tight, window).is_err());
    assert!(Depthwise::new(roomy, other, window).is_err());
    for odd in [
        Window {
            kernel: (1, 3),
            ..window
        },
        Window {
            kernel: (9, 9),
            ..window
        },
        Window {
            stride: (3, 3),
            ..window
        },
        Window {
            dilation: (2, 2),
            ..window
        },
    ] {
        assert!(Depthwise::new(roomy, tight, odd).is_err());
    }
    let conv = Depthwise::new(roomy, tight, window).unwrap();
    let (x, w) = (vec![0.0; roomy.len()], vec![0.0; conv.weights()]);
    let run = |input: &[f32], weights: &[f32], bias: &[f32], len: usize| {
        let mut y = vec![0.0; len];
        let mut args = DepthwiseArgs {
            input,
            weights,
            bias,
            clamp: Clamp::NONE,
            output: &mut y,
        };
        conv.run(Isa::detect(), &Alone, &mut args)
    };
    let (bias, len) = ([0.0; 32], tight.len());
    assert!(run(&x, &w, &bias, len).is_ok());
    assert!(run(&x[1..], &w, &bias, len).is_err());
    assert!(run(&x, &w[1..], &bias, len).is_err());
    assert!(run(&x, &w, &bias[1..], len).is_err());
    assert!(run(&x, &w, &bias, len - 1).is_err());
}
