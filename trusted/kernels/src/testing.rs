//! Images and answers for tests: the definition of each operation, pixel by pixel, in f64.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers of tests"
)]

use crate::image::{Border, Image, Window};
use crate::layout::read_planes;

/// Numbers between -1 and 1 that look random.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A plain image: `[channels][height][width]`.
#[derive(Clone)]
pub(crate) struct Planes {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) values: Vec<f32>,
}

impl Planes {
    pub(crate) fn random([channels, height, width]: [usize; 3], seed: u64) -> Self {
        let values = numbers(channels * height * width, seed);
        Self {
            channels,
            height,
            width,
            values,
        }
    }

    pub(crate) fn at(&self, c: usize, y: i64, x: i64) -> Option<f64> {
        let inside = (0..self.height as i64).contains(&y) && (0..self.width as i64).contains(&x);
        inside.then(|| {
            f64::from(self.values[(c * self.height + y as usize) * self.width + x as usize])
        })
    }

    pub(crate) fn inside(&self, c: usize, y: usize, x: usize) -> f64 {
        self.at(c, y as i64, x as i64).unwrap()
    }

    /// In a blocked image with this border.
    pub(crate) fn blocked(&self, border: Border) -> (Image, Vec<f32>) {
        let blocks = self.channels.div_ceil(16);
        let image = Image::blocked(blocks, self.height, self.width, border).unwrap();
        (image, self.fill(&image))
    }

    pub(crate) fn rgb(&self, border: Border) -> (Image, Vec<f32>) {
        let image = Image::rgb(self.height, self.width, border).unwrap();
        (image, self.fill(&image))
    }

    fn fill(&self, image: &Image) -> Vec<f32> {
        let bytes: Vec<u8> = self.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut held = vec![0.0; image.len()];
        read_planes(&bytes, self.channels, image, &mut held).unwrap();
        held
    }
}

/// What a window over one channel meets: `(ky, kx, value)`, border pixels as `None`.
pub(crate) fn meets(
    from: &Planes,
    window: &Window,
    channel: usize,
    (y, x): (usize, usize),
) -> Vec<(usize, usize, Option<f64>)> {
    let mut met = Vec::new();
    for ky in 0..window.kernel.0 {
        for kx in 0..window.kernel.1 {
            let row =
                (y * window.stride.0 + ky * window.dilation.0) as i64 - window.before.0 as i64;
            let column =
                (x * window.stride.1 + kx * window.dilation.1) as i64 - window.before.1 as i64;
            met.push((ky, kx, from.at(channel, row, column)));
        }
    }
    met
}

/// Panics unless `got` is the blocked image of `want(channel, y, x)`, within 1e-5 of `scale`.
pub(crate) fn assert_image(
    image: &Image,
    got: &[f32],
    channels: usize,
    scale: f64,
    want: impl Fn(usize, usize, usize) -> f64,
) {
    for c in 0..channels {
        for y in 0..image.height() {
            for x in 0..image.width() {
                let at = c / 16 * image.plane() + image.at(y, x) + c % 16;
                let (got, want) = (f64::from(got[at]), want(c, y, x));
                assert!(
                    (got - want).abs() <= 1e-5 * scale,
                    "channel {c}, ({y}, {x}): {got} instead of {want}"
                );
            }
        }
    }
}
