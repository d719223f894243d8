//! Times single kernels and prints how much of the CPU's measured multiply-add peak they reach.
//!
//! ```text
//! cargo run --release -p sesemi-kernels --example kernel_bench [THREADS]
//! ```

#![expect(
    clippy::print_stdout,
    reason = "a table for people is what this program is for"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures, and needs the real clock"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "durations and counts of a benchmark"
)]

use std::error::Error;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use kernels::image::Border;
use kernels::{
    Alone, Buffer, Clamp, Conv, ConvArgs, Crew, Depthwise, DepthwiseArgs, Image, Isa, Prologue,
    Team, Window,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Fastest of several rounds, in seconds.
fn fastest(mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..15 {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Multiply-adds per second of registers only, on this thread.
mod peak {
    #![expect(unsafe_code, reason = "intrinsics")]

    use super::{Instant, Isa, black_box};

    const ROUNDS: usize = 2_000_000;
    const CHAINS: usize = 16;

    macro_rules! chains {
        ($name:ident, $feature:literal, $set:ident, $fma:ident) => {
            #[target_feature(enable = $feature)]
            fn $name() {
                use std::arch::x86_64::{$fma, $set};
                let (by, plus) = ($set(black_box(0.999)), $set(black_box(0.001)));
                let mut sums = [$set(black_box(1.0)); CHAINS];
                for _ in 0..ROUNDS {
                    for sum in &mut sums {
                        *sum = $fma(*sum, by, plus);
                    }
                }
                black_box(sums);
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    chains!(avx512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps);
    #[cfg(target_arch = "x86_64")]
    chains!(avx2, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps);

    /// `None` where nothing is known of the instructions.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn measure(isa: Isa) -> Option<f64> {
        let mut best = f64::INFINITY;
        let mut lanes = 0;
        for _ in 0..5 {
            let start = Instant::now();
            match isa.name() {
                // SAFETY: the name says that the CPU has them.
                "avx512" => (lanes, ()) = (16, unsafe { avx512() }),
                // SAFETY: as above.
                "avx2" => (lanes, ()) = (8, unsafe { avx2() }),
                _ => return None,
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        Some((ROUNDS * CHAINS * lanes) as f64 / best)
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn measure(_: Isa) -> Option<f64> {
        None
    }
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    ins: usize,
    outs: usize,
    size: usize,
    kernel: usize,
    stride: usize,
}

const fn case(name: &'static str, [ins, outs, size, kernel, stride]: [usize; 5]) -> Case {
    Case {
        name,
        ins,
        outs,
        size,
        kernel,
        stride,
    }
}

const CASES: [Case; 20] = [
    case("stem 7x7/2 rgb", [3, 64, 224, 7, 2]),
    case("stem 3x3/2 rgb", [3, 32, 224, 3, 2]),
    case("1x1", [32, 64, 112, 1, 1]),
    case("1x1", [64, 256, 56, 1, 1]),
    case("1x1", [256, 64, 56, 1, 1]),
    case("1x1", [512, 512, 14, 1, 1]),
    case("1x1", [1024, 256, 14, 1, 1]),
    case("1x1", [256, 1024, 14, 1, 1]),
    case("1x1", [2048, 512, 7, 1, 1]),
    case("1x1", [512, 2048, 7, 1, 1]),
    case("3x3", [64, 64, 56, 3, 1]),
    case("3x3", [128, 128, 28, 3, 1]),
    case("3x3", [256, 256, 14, 3, 1]),
    case("3x3/2", [256, 256, 14, 3, 2]),
    case("3x3", [512, 512, 7, 3, 1]),
    case("3x3 dense", [128, 32, 28, 3, 1]),
    case("3x3 dense", [128, 32, 7, 3, 1]),
    case("1x1 24->144", [24, 144, 56, 1, 1]),
    case("1x1 144->24", [144, 24, 56, 1, 1]),
    case("fc", [1024, 1000, 1, 1, 1]),
];

fn input_image(case: Case) -> Outcome<(Image, Image, Window)> {
    let out = case.size.div_ceil(case.stride);
    let before = case.kernel / 2;
    let window = Window {
        kernel: (case.kernel, case.kernel),
        stride: (case.stride, case.stride),
        dilation: (1, 1),
        before: (before, before),
    };
    let border = window.border((case.size, case.size), (out, out))?;
    let input = match case.ins {
        3 => Image::rgb(case.size, case.size, border)?,
        n => Image::blocked(n.div_ceil(16), case.size, case.size, border)?,
    };
    let output = Image::blocked(case.outs.div_ceil(16), out, out, Border::default())?;
    Ok((input, output, window))
}

fn zeros(floats: usize) -> Outcome<Buffer> {
    Buffer::zeroed(floats).ok_or_else(|| "no memory".into())
}

fn convolution(isa: Isa, crew: &dyn Crew, case: Case, scaled: bool) -> Outcome<(f64, f64)> {
    let (input, output, window) = input_image(case)?;
    let conv = Conv::new(input, output, window, scaled)?;
    let (x, w, bias) = (
        zeros(input.len())?,
        zeros(conv.weights())?,
        zeros(output.blocks() * 16)?,
    );
    let scale = zeros(input.blocks() * 16)?;
    let scratch: Vec<_> = (0..crew.workers())
        .map(|_| Ok(Mutex::new(zeros(conv.scratch())?)))
        .collect::<Outcome<_>>()?;
    let mut y = zeros(output.len())?;
    let seconds = fastest(|| {
        let prologue = Prologue {
            scale: &scale,
            shift: &scale,
            clamp: Clamp::RELU,
            scratch: &scratch,
        };
        let mut args = ConvArgs {
            input: &x[..input.len()],
            weights: &w,
            bias: &bias,
            residual: None,
            prologue: scaled.then_some(prologue),
            clamp: Clamp::RELU,
            output: &mut y,
        };
        Ok(conv.run(isa, crew, &mut args)?)
    })?;
    let elements = case.ins * case.outs * case.kernel * case.kernel * output.pixels();
    Ok((seconds, elements as f64))
}

fn depthwise(isa: Isa, crew: &dyn Crew, case: Case) -> Outcome<(f64, f64)> {
    let (input, output, window) = input_image(case)?;
    let conv = Depthwise::new(input, output, window)?;
    let (x, w) = (zeros(input.len())?, zeros(conv.weights())?);
    let bias = zeros(output.blocks() * 16)?;
    let mut y = zeros(output.len())?;
    let seconds = fastest(|| {
        let mut args = DepthwiseArgs {
            input: &x[..input.len()],
            weights: &w,
            bias: &bias,
            clamp: Clamp::RELU,
            output: &mut y,
        };
        Ok(conv.run(isa, crew, &mut args)?)
    })?;
    let elements = case.outs * case.kernel * case.kernel * output.pixels();
    Ok((seconds, elements as f64))
}

fn print(name: &str, case: Case, (seconds, elements): (f64, f64), peak: f64) {
    println!(
        "{name:16} {:>4} -> {:>4}, {:>3} px  {:8.1} us  {:6.1} G/s  {:5.1} %",
        case.ins,
        case.outs,
        case.size,
        seconds * 1e6,
        elements / seconds / 1e9,
        100.0 * elements / seconds / peak
    );
}

fn main() -> Outcome<()> {
    let threads = std::env::args().nth(1).map_or(Ok(1), |n| n.parse())?;
    let team = Team::new(threads);
    let lease = team.lease().ok_or("the team is new")?;
    let crew: &dyn Crew = if threads == 1 { &Alone } else { &lease };
    for isa in Isa::available() {
        let Some(peak) = peak::measure(isa) else {
            continue;
        };
        println!(
            "{}: peak {:.1} G multiply-adds/s per core",
            isa.name(),
            peak / 1e9
        );
        let peak = peak * threads as f64;
        for case in CASES {
            print(case.name, case, convolution(isa, crew, case, false)?, peak);
        }
        for case in [CASES[4], CASES[6], case("", [512, 128, 28, 1, 1])] {
            print(
                "scaled 1x1",
                case,
                convolution(isa, crew, case, true)?,
                peak,
            );
        }
        for (size, channels, kernel, stride) in [
            (112, 32, 3, 1),
            (112, 64, 3, 2),
            (56, 128, 3, 1),
            (28, 256, 3, 1),
            (14, 512, 3, 1),
            (14, 512, 3, 2),
            (14, 480, 5, 1),
            (7, 1024, 3, 1),
        ] {
            let case = case("", [channels, channels, size, kernel, stride]);
            let name = format!("depthwise {kernel}x{kernel}/{stride}");
            print(&name, case, depthwise(isa, crew, case)?, peak);
        }
    }
    Ok(())
}
