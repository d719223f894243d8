//! Pictures as tensors, by named preprocessing, on the user's own machine.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, ImageReader, Limits, RgbImage};
use protocol::Tensor;
use protocol::tensor::TensorError;

use crate::args::Preprocess;

/// Largest picture file that is read, in bytes.
pub(crate) const FILE_MAX: usize = 64 * 1024 * 1024;
/// Largest side of a picture, in pixels.
const SIDE_MAX: u32 = 16_384;
/// Most memory that decoding may take, in bytes.
const DECODE_MAX: u64 = 512 * 1024 * 1024;
/// Side of what ImageNet classifiers take, in pixels.
const CLASSIFIER_SIDE: u32 = 224;

/// Why a file is not a picture that can be sent.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("cannot decode the picture")]
    Decode(#[source] image::ImageError),
    #[error("picture has no pixels")]
    Empty,
    #[error("preprocessed picture is not a tensor")]
    Tensor(#[from] TensorError),
}

/// Decodes a PNG or JPEG and turns it into the tensor `name`.
pub fn read(name: &str, file: &[u8], preprocess: Preprocess) -> Result<Tensor, PictureError> {
    let mut reader = ImageReader::new(Cursor::new(file))
        .with_guessed_format()
        .map_err(|error| PictureError::Decode(error.into()))?;
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODE_MAX);
    reader.limits(limits);
    let picture = reader.decode().map_err(PictureError::Decode)?;
    if picture.width() == 0 || picture.height() == 0 {
        return Err(PictureError::Empty);
    }
    match preprocess {
        Preprocess::EfficientnetLite => {
            // Source: the EfficientNet-Lite release, mean 127 and deviation 128 on bytes.
            planes(name, &classifier_crop(&picture), |byte, _| {
                (f32::from(byte) - 127.0) / 128.0
            })
        }
        Preprocess::Tensorflow => {
            // Source: keras.applications.imagenet_utils.preprocess_input, mode "tf".
            planes(name, &classifier_crop(&picture), |byte, _| {
                f32::from(byte) / 127.5 - 1.0
            })
        }
        Preprocess::Imagenet => {
            // Source: torchvision's ImageNet normalisation, on values from 0 to 1.
            const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
            const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
            planes(name, &classifier_crop(&picture), |byte, channel| {
                (f32::from(byte) / 255.0 - MEAN[channel]) / DEVIATION[channel]
            })
        }
        Preprocess::Digits8x8 => digit(name, &picture),
    }
}

/// The largest square in the middle of the picture, at 224×224.
fn classifier_crop(picture: &DynamicImage) -> RgbImage {
    let rgb = on_white(picture);
    let side = rgb.width().min(rgb.height());
    let (x, y) = ((rgb.width() - side) / 2, (rgb.height() - side) / 2);
    let crop = imageops::crop_imm(&rgb, x, y, side, side).to_image();
    imageops::resize(
        &crop,
        CLASSIFIER_SIDE,
        CLASSIFIER_SIDE,
        FilterType::CatmullRom,
    )
}

/// RGB with transparency laid over white, as a viewer shows it.
fn on_white(picture: &DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let rgba = picture.to_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0;
        let alpha = u32::from(alpha);
        let over = |c: u8| {
            u8::try_from((u32::from(c) * alpha + 255 * (255 - alpha) + 127) / 255).unwrap_or(255)
        };
        image::Rgb([over(red), over(green), over(blue)])
    })
}

/// NCHW with a batch of one: all of red, then green, then blue.
fn planes(
    name: &str,
    rgb: &RgbImage,
    value: impl Fn(u8, usize) -> f32,
) -> Result<Tensor, PictureError> {
    let values: Vec<f32> = (0..3)
        .flat_map(|c| rgb.pixels().map(move |p| (p.0[c], c)))
        .map(|(b, c)| value(b, c))
        .collect();
    let shape = vec![1, 3, u64::from(rgb.height()), u64::from(rgb.width())];
    Ok(Tensor::from_f32(name, shape, &values)?)
}

/// As scikit-learn's digits: light ink on dark ground, 8×8, values from 0 to 16, flattened.
///
/// A picture with a light border is dark ink on paper and is inverted first.
fn digit(name: &str, picture: &DynamicImage) -> Result<Tensor, PictureError> {
    let mut grey = DynamicImage::ImageRgb8(on_white(picture)).to_luma8();
    if border_mean(&grey) > 127 {
        imageops::invert(&mut grey);
    }
    let values: Vec<f32> = (0..64)
        .map(|i| cell_mean(&grey, i % 8, i / 8) / 255.0 * 16.0)
        .collect();
    Ok(Tensor::from_f32(name, vec![1, 64], &values)?)
}

fn border_mean(grey: &GrayImage) -> u64 {
    let (right, bottom) = (grey.width() - 1, grey.height() - 1);
    let (mut sum, mut count) = (0_u64, 0_u64);
    for (x, y, pixel) in grey.enumerate_pixels() {
        if x == 0 || y == 0 || x == right || y == bottom {
            sum += u64::from(pixel.0[0]);
            count += 1;
        }
    }
    sum / count.max(1)
}

/// Mean of the pixels of one cell of an 8×8 grid; a picture below 8 pixels repeats pixels.
fn cell_mean(grey: &GrayImage, column: u32, row: u32) -> f32 {
    let span = |index: u32, side: u32| {
        let start = index * side / 8;
        start..((index + 1) * side / 8).max(start + 1).min(side.max(1))
    };
    let (mut sum, mut count) = (0.0_f32, 0.0_f32);
    for y in span(row, grey.height()) {
        for x in span(column, grey.width()) {
            sum += f32::from(grey.get_pixel(x, y).0[0]);
            count += 1.0;
        }
    }
    sum / count.max(1.0)
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Luma, Rgb, Rgba, RgbaImage};

    use super::*;

    fn png(picture: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn efficientnet_planes_are_red_green_blue() {
        let rgb = RgbImage::from_pixel(300, 500, Rgb([127, 255, 0]));
        let tensor = read("x", &png(&rgb.into()), Preprocess::EfficientnetLite).unwrap();
        assert_eq!(tensor.shape(), [1, 3, 224, 224]);
        let values = tensor.to_f32().unwrap();
        let plane = 224 * 224;
        assert!(values[..plane].iter().all(|v| *v == 0.0));
        assert!(values[plane..2 * plane].iter().all(|v| *v == 1.0));
        assert!(values[2 * plane..].iter().all(|v| *v == -127.0 / 128.0));
    }

    #[test]
    fn tensorflow_values_are_from_minus_one_to_one() {
        let rgb = RgbImage::from_pixel(8, 8, Rgb([0, 255, 0]));
        let values = read("x", &png(&rgb.into()), Preprocess::Tensorflow)
            .unwrap()
            .to_f32()
            .unwrap();
        assert_eq!((values[0], values[224 * 224]), (-1.0, 1.0));
    }

    #[test]
    fn imagenet_values_are_normalised_per_channel() {
        let rgb = RgbImage::from_pixel(8, 8, Rgb([255, 255, 255]));
        let values = read("x", &png(&rgb.into()), Preprocess::Imagenet)
            .unwrap()
            .to_f32()
            .unwrap();
        assert!((values[0] - (1.0 - 0.485) / 0.229).abs() < 1e-6);
        assert!((values[2 * 224 * 224] - (1.0 - 0.406) / 0.225).abs() < 1e-6);
    }

    #[test]
    fn a_digit_is_the_same_in_ink_on_paper_and_in_light_on_dark() {
        let draw = |ink: u8, ground: u8| {
            GrayImage::from_fn(64, 64, |x, _| {
                Luma([if (24..40).contains(&x) { ink } else { ground }])
            })
        };
        let light = read("x", &png(&draw(255, 0).into()), Preprocess::Digits8x8).unwrap();
        let dark = read("x", &png(&draw(0, 255).into()), Preprocess::Digits8x8).unwrap();
        assert_eq!(light, dark);
        assert_eq!(light.shape(), [1, 64]);
        let row = &light.to_f32().unwrap()[..8];
        assert_eq!(row, [0.0, 0.0, 0.0, 16.0, 16.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn an_8x8_picture_keeps_its_pixels_and_a_smaller_one_does_not_panic() {
        let grey = GrayImage::from_fn(8, 8, |x, y| Luma([if x == 3 && y == 4 { 255 } else { 0 }]));
        let values = read("x", &png(&grey.into()), Preprocess::Digits8x8)
            .unwrap()
            .to_f32()
            .unwrap();
        assert_eq!(values.iter().position(|v| *v == 16.0), Some(4 * 8 + 3));
        assert_eq!(values.iter().sum::<f32>(), 16.0);
        let tiny = GrayImage::from_pixel(1, 3, Luma([9]));
        assert!(read("x", &png(&tiny.into()), Preprocess::Digits8x8).is_ok());
    }

    #[test]
    fn transparency_is_white() {
        let clear = RgbaImage::from_pixel(9, 9, Rgba([0, 0, 0, 0]));
        assert_eq!(on_white(&clear.into()).get_pixel(4, 4).0, [255; 3]);
    }

    #[test]
    fn what_is_not_a_picture_is_refused() {
        let good = png(&RgbImage::from_pixel(16, 16, Rgb([1, 2, 3])).into());
        for bad in [
            &b""[..],
            b"GIF89a",
            b"\x89PNG\r\n\x1a\n",
            &good[..good.len() / 2],
        ] {
            let error = read("x", bad, Preprocess::EfficientnetLite).unwrap_err();
            assert!(matches!(error, PictureError::Decode(_)));
        }
        // A header that claims 100000 × 100000 pixels is refused before memory is taken.
        let mut huge = good;
        huge[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
        assert!(read("x", &huge, Preprocess::EfficientnetLite).is_err());
    }
}
