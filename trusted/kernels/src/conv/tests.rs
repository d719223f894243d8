//! Convolutions against their definition, on every instruction set, alone and in a team.

use super::*;
use crate::image::Border;
use crate::layout::{conv_weights, per_channel, rgb_weights};
use crate::testing::{Planes, assert_image, meets, numbers};
use crate::{Alone, Team};

/// Sizes that leave rests: pixels, rows, channels and blocks.
struct Case {
    ins: usize,
    outs: usize,
    size: (usize, usize),
    window: Window,
    out: (usize, usize),
}

fn window(kernel: (usize, usize), stride: (usize, usize), before: (usize, usize)) -> Window {
    Window {
        kernel,
        stride,
        dilation: (1, 1),
        before,
    }
}

fn cases() -> Vec<Case> {
    let dilated = Window {
        dilation: (2, 2),
        ..window((3, 3), (1, 1), (2, 2))
    };
    let all = [
        (16, 16, (1, 1), Window::PIXEL, (1, 1)),
        (32, 48, (7, 7), Window::PIXEL, (7, 7)),
        (20, 40, (5, 9), Window::PIXEL, (5, 9)),
        (16, 32, (3, 29), Window::PIXEL, (3, 29)),
        (24, 33, (7, 15), window((3, 3), (1, 1), (1, 1)), (7, 15)),
        (16, 16, (9, 9), window((3, 3), (2, 2), (0, 0)), (4, 4)),
        (17, 16, (8, 12), window((3, 3), (2, 2), (0, 0)), (4, 6)),
        (16, 64, (6, 6), window((1, 1), (2, 2), (0, 0)), (3, 3)),
        (16, 16, (4, 5), window((4, 5), (1, 1), (0, 0)), (1, 1)),
        (16, 16, (9, 8), dilated, (9, 8)),
        (3, 40, (17, 19), window((7, 7), (2, 2), (3, 3)), (9, 10)),
        (3, 16, (9, 31), window((3, 2), (1, 1), (1, 0)), (9, 30)),
    ];
    let case = |(ins, outs, size, window, out)| Case {
        ins,
        outs,
        size,
        window,
        out,
    };
    all.into_iter().map(case).collect()
}

struct Ready {
    from: Planes,
    input: (Image, Vec<f32>),
    output: Image,
    plain: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

fn ready(case: &Case) -> Ready {
    let from = Planes::random([case.ins, case.size.0, case.size.1], 1);
    let border = case.window.border(case.size, case.out).unwrap();
    let (kh, kw) = case.window.kernel;
    let shape = [case.outs, case.ins, kh, kw];
    let plain = numbers(shape.iter().product(), 2);
    let (input, weights) = match case.ins {
        3 => (from.rgb(border), rgb_weights(&plain, shape)),
        _ => (from.blocked(border), conv_weights(&plain, shape)),
    };
    let gap = Border {
        top: 0,
        left: 1,
        bottom: 0,
        right: 1,
    };
    let output = Image::blocked(case.outs.div_ceil(16), case.out.0, case.out.1, gap).unwrap();
    let bias = numbers(case.outs, 3);
    Ready {
        from,
        input,
        output,
        plain,
        weights,
        bias: per_channel(&bias),
    }
}

/// The definition, of what `pixel` makes of the input.
fn sum(
    case: &Case,
    ready: &Ready,
    (o, y, x): (usize, usize, usize),
    pixel: impl Fn(usize, f64) -> f64,
) -> f64 {
    let (kh, kw) = case.window.kernel;
    let mut sum = f64::from(ready.bias[o]);
    for c in 0..case.ins {
        for (ky, kx, value) in meets(&ready.from, &case.window, c, (y, x)) {
            let weight = ready.plain[((o * case.ins + c) * kh + ky) * kw + kx];
            sum += value.map_or(0.0, |v| pixel(c, v)) * f64::from(weight);
        }
    }
    sum
}

#[test]
fn every_instruction_set_gives_what_the_definition_says() {
    let team = Team::new(3);
    let lease = team.lease().unwrap();
    for case in cases() {
        let ready = ready(&case);
        let (input, x) = &ready.input;
        let conv = Conv::new(*input, ready.output, case.window, false).unwrap();
        let more = Planes::random([case.outs, case.out.0, case.out.1], 4);
        let (more_image, more_held) = more.blocked(Border {
            top: 1,
            left: 0,
            bottom: 1,
            right: 2,
        });
        for isa in Isa::available() {
            for (crew, residual) in [(&Alone as &dyn Crew, true), (&lease, true), (&lease, false)] {
                let mut y = vec![f32::NAN; ready.output.len()];
                let mut args = ConvArgs {
                    input: x,
                    weights: &ready.weights,
                    bias: &ready.bias,
                    residual: residual.then_some((&more_held[..], more_image)),
                    prologue: None,
                    clamp: Clamp {
                        low: -1.0,
                        high: 2.0,
                    },
                    output: &mut y,
                };
                conv.run(isa, crew, &mut args).unwrap();
                assert_image(&ready.output, &y, case.outs, 10.0, |o, py, px| {
                    let extra = more.inside(o, py, px);
                    let extra = if residual { extra } else { 0.0 };
                    let all = sum(&case, &ready, (o, py, px), |_, v| v) + extra;
                    all.clamp(-1.0, 2.0)
                });
                let border = y.iter().filter(|v| v.is_nan()).count();
                assert_eq!(
                    border,
                    y.len() - ready.output.blocks() * ready.output.pixels() * 16,
                    "the border of the output was written, or a pixel was not"
                );
            }
        }
    }
}

#[test]
fn scaled_inputs_are_as_if_scaled_before() {
    let team = Team::new(2);
    let lease = team.lease().unwrap();
    for (ins, outs, size) in [(16, 16, (1, 1)), (48, 33, (13, 11)), (1040, 32, (12, 9))] {
        let window = Window::PIXEL;
        let case = Case {
            ins,
            outs,
            size,
            window,
            out: size,
        };
        let mut ready = ready(&case);
        // With a border, rows do not follow each other.
        for border in [
            Border::default(),
            Border {
                top: 1,
                left: 1,
                bottom: 0,
                right: 2,
            },
        ] {
            ready.input = ready.from.blocked(border);
            let (input, x) = &ready.input;
            let (scale, shift) = (numbers(ins, 5), numbers(ins, 6));
            let (padded_scale, padded_shift) = (per_channel(&scale), per_channel(&shift));
            let conv = Conv::new(*input, ready.output, window, true).unwrap();
            let buffer = || Mutex::new(Buffer::zeroed(conv.scratch()).unwrap());
            let scratch = [buffer(), buffer()];
            for isa in Isa::available() {
                for crew in [&Alone as &dyn Crew, &lease] {
                    let mut y = vec![0.0; ready.output.len()];
                    let mut args = ConvArgs {
                        input: x,
                        weights: &ready.weights,
                        bias: &ready.bias,
                        residual: None,
                        prologue: Some(Prologue {
                            scale: &padded_scale,
                            shift: &padded_shift,
                            clamp: Clamp::RELU,
                            scratch: &scratch,
                        }),
                        clamp: Clamp::NONE,
                        output: &mut y,
                    };
                    conv.run(isa, crew, &mut args).unwrap();
                    assert_image(&ready.output, &y, outs, 10.0, |o, py, px| {
                        sum(&case, &ready, (o, py, px), |c, v| {
                            (v * f64::from(scale[c]) + f64::from(shift[c])).max(0.0)
                        })
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
    let tight = Image::blocked(1, 6, 6, Border::default()).unwrap();
    let roomy = Image::blocked(1, 6, 6, border).unwrap();
    let three = window((3, 3), (1, 1), (1, 1));
    let refused = |i, o, w, scaled| Conv::new(i, o, w, scaled).unwrap_err();
    assert!(Conv::new(roomy, tight, three, false).is_ok());
    assert_eq!(refused(tight, tight, three, false), ShapeError::Border);
    let shifted = Window {
        before: (2, 1),
        ..three
    };
    assert_eq!(refused(roomy, tight, shifted, false), ShapeError::Border);
    let seven = Image::blocked(1, 7, 6, Border::default()).unwrap();
    assert_eq!(refused(roomy, seven, three, false), ShapeError::Border);
    for odd in [
        Window {
            kernel: (0, 3),
            ..three
        },
        Window {
            stride: (1, 0),
            ..three
        },
        Window {
            dilation: (usize::MAX, 1),
            ..three
        },
        Window {
            before: (usize::MAX, 1),
            ..three
        },
    ] {
        assert_eq!(refused(roomy, tight, odd, false), ShapeError::Extent);
    }
    assert!(Conv::new(roomy, tight, three, true).is_err());
    let rgb = Image::rgb(6, 6, border).unwrap();
    assert!(Conv::new(roomy, rgb, three, false).is_err());
    let narrow = Image::blocked(1, 6, 5, Border::default()).unwrap();
    assert!(Conv::new(tight, narrow, Window::PIXEL, false).is_err());
    assert_eq!(
        Image::blocked(1 << 14, 1 << 14, 1 << 14, border),
        Err(ShapeError::TooLarge)
    );
    assert_eq!(Image::blocked(0, 1, 1, border), Err(ShapeError::Extent));
}

#[test]
fn parts_of_other_sizes_are_refused() {
    let image = Image::blocked(2, 4, 4, Border::default()).unwrap();
    let small = Image::blocked(1, 4, 4, Border::default()).unwrap();
    let conv = Conv::new(image, image, Window::PIXEL, false).unwrap();
    let (x, w, b) = (vec![0.0; 512], vec![0.0; 1024], vec![0.0; 32]);
    let run = |lens: [usize; 4], residual: Option<Image>| {
        let mut y = vec![0.0; 512];
        let mut args = ConvArgs {
            input: &x[..lens[0]],
            weights: &w[..lens[1]],
            bias: &b[..lens[2]],
            residual: residual.map(|image| (&x[..image.len()], image)),
            prologue: None,
            clamp: Clamp::NONE,
            output: &mut y[..lens[3]],
        };
        conv.run(Isa::detect(), &Alone, &mut args)
    };
    assert!(run([512, 1024, 32, 512], Some(image)).is_ok());
    assert!(run([512, 1024, 32, 512], Some(small)).is_err());
    for index in 0..4 {
        let mut lens = [512, 1024, 32, 512];
        lens[index] -= 1;
        assert!(run(lens, None).is_err(), "part {index}");
    }
}
