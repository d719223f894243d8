//! Plain tensors to blocked ones and back: images when a request comes and goes, weights when a model
//! is sealed.

use crate::image::{Image, LANES, ShapeError};

/// Fills an image (without its border) from little-endian planes `[channels][height][width]`. Lanes
/// of channels that there are none of become zeros.
pub fn read_planes(
    planes: &[u8],
    channels: usize,
    image: &Image,
    to: &mut [f32],
) -> Result<(), ShapeError> {
    let room = image.blocks() * image.lanes();
    let pixels = image.pixels();
    let fits = to.len() == image.len()
        && channels <= room
        && channels + image.lanes() > room
        && planes.len() == channels * pixels * 4;
    if !fits {
        return Err(ShapeError::Mismatch("an image and its memory"));
    }
    let (width, lanes) = (image.width(), image.lanes());
    for block in 0..image.blocks() {
        let here = lanes.min(channels - block * lanes);
        for y in 0..image.height() {
            let line = block * image.plane() + image.at(y, 0);
            let line = &mut to[line..line + width * lanes];
            let plane = |lane: usize| {
                let from = ((block * lanes + lane) * pixels + y * width) * 4;
                planes[from..from + width * 4].as_chunks::<4>().0
            };
            if lanes == 3 && here == 3 {
                let pixels = line.as_chunks_mut::<3>().0;
                let rgb = plane(0).iter().zip(plane(1)).zip(plane(2));
                for (pixel, ((r, g), b)) in pixels.iter_mut().zip(rgb) {
                    *pixel = [r, g, b].map(|v| f32::from_le_bytes(*v));
                }
                continue;
            }
            line.fill(0.0);
            for lane in 0..here {
                for (pixel, value) in line.chunks_exact_mut(lanes).zip(plane(lane)) {
                    pixel[lane] = f32::from_le_bytes(*value);
                }
            }
        }
    }
    Ok(())
}

/// Appends the little-endian planes `[channels][height][width]` of an image to `to`.
pub fn write_planes(
    image: &Image,
    from: &[f32],
    channels: usize,
    to: &mut Vec<u8>,
) -> Result<(), ShapeError> {
    if from.len() != image.len() || channels > image.blocks() * image.lanes() {
        return Err(ShapeError::Mismatch("an image and its memory"));
    }
    let lanes = image.lanes();
    for channel in 0..channels {
        for y in 0..image.height() {
            let line = channel / lanes * image.plane() + image.at(y, 0);
            let line = &from[line..line + image.width() * lanes];
            for pixel in line.chunks_exact(lanes) {
                to.extend_from_slice(&pixel[channel % lanes].to_le_bytes());
            }
        }
    }
    Ok(())
}

/// `[out][in][kh][kw]` as `[out / 16][in / 16][kh][kw][16 in][16 out]`, padded with zeros.
#[must_use]
pub fn conv_weights(weights: &[f32], [outs, ins, kh, kw]: [usize; 4]) -> Vec<f32> {
    let (in_blocks, window) = (ins.div_ceil(LANES), kh * kw);
    let mut packed = vec![0.0; outs.div_ceil(LANES) * in_blocks * window * LANES * LANES];
    for (row, kernels) in weights
        .chunks_exact((ins * window).max(1))
        .take(outs)
        .enumerate()
    {
        for (column, kernel) in kernels.chunks_exact(window).enumerate() {
            let block = (row / LANES * in_blocks + column / LANES) * window;
            for (at, value) in kernel.iter().enumerate() {
                packed[((block + at) * LANES + column % LANES) * LANES + row % LANES] = *value;
            }
        }
    }
    packed
}

/// `[out][3][kh][kw]` as `[out / 16][kh][kw][3][16 out]`, padded with zeros.
#[must_use]
pub fn rgb_weights(weights: &[f32], [outs, ins, kh, kw]: [usize; 4]) -> Vec<f32> {
    let window = kh * kw;
    let mut packed = vec![0.0; outs.div_ceil(LANES) * window * ins * LANES];
    for (row, kernels) in weights
        .chunks_exact((ins * window).max(1))
        .take(outs)
        .enumerate()
    {
        for (column, kernel) in kernels.chunks_exact(window).enumerate() {
            for (at, value) in kernel.iter().enumerate() {
                let place = (row / LANES * window + at) * ins + column;
                packed[place * LANES + row % LANES] = *value;
            }
        }
    }
    packed
}

/// `[channels][kh * kw]` as `[channels / 16][kh * kw][16]`, padded with zeros.
#[must_use]
pub fn depthwise_weights(weights: &[f32], channels: usize, window: usize) -> Vec<f32> {
    let mut packed = vec![0.0; channels.div_ceil(LANES) * window * LANES];
    for (channel, kernel) in weights
        .chunks_exact(window.max(1))
        .take(channels)
        .enumerate()
    {
        for (at, value) in kernel.iter().enumerate() {
            packed[(channel / LANES * window + at) * LANES + channel % LANES] = *value;
        }
    }
    packed
}

/// One value for each channel, padded with zeros to whole blocks.
#[must_use]
pub fn per_channel(values: &[f32]) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(values.len().next_multiple_of(LANES), 0.0);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Border;

    #[test]
    fn planes_come_back_as_they_went() {
        let border = Border {
            top: 1,
            left: 2,
            bottom: 3,
            right: 0,
        };
        let images = [
            (3, Image::rgb(4, 5, border).unwrap()),
            (17, Image::blocked(2, 4, 5, border).unwrap()),
            (16, Image::blocked(1, 4, 5, Border::default()).unwrap()),
        ];
        for (channels, image) in images {
            let planes: Vec<u8> = (0..channels * 20)
                .flat_map(|i| (i as f32 * 0.5).to_le_bytes())
                .collect();
            let mut held = vec![0.0; image.len()];
            read_planes(&planes, channels, &image, &mut held).unwrap();
            let mut back = Vec::new();
            write_planes(&image, &held, channels, &mut back).unwrap();
            assert_eq!(back, planes);
            assert!(read_planes(&planes[4..], channels, &image, &mut held).is_err());
            assert!(read_planes(&planes, channels, &image, &mut held[1..]).is_err());
            assert!(write_planes(&image, &held, 33, &mut back).is_err());
        }
    }

    #[test]
    fn weights_are_where_the_kernels_look() {
        let shape = [17, 18, 2, 3];
        let weights: Vec<f32> = (0..17 * 18 * 6).map(|i| i as f32 + 1.0).collect();
        let packed = conv_weights(&weights, shape);
        assert_eq!(packed.len(), 2 * 2 * 6 * 256);
        let at = |o: usize, i: usize, k: usize| weights[(o * 18 + i) * 6 + k];
        for (o, i, k) in [(0, 0, 0), (16, 17, 5), (3, 16, 2), (16, 2, 4)] {
            let place = (((o / 16 * 2 + i / 16) * 6 + k) * 16 + i % 16) * 16 + o % 16;
            assert_eq!(packed[place], at(o, i, k));
        }
        let some = packed.iter().filter(|v| **v != 0.0).count();
        assert_eq!(some, weights.len());
        assert_eq!(per_channel(&[1.0; 17]).len(), 32);
    }
}
