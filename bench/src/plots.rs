//! Pictures of simulated runs, as SVG: latency distributions, what memory buys, and what every
//! instance did. Each is a pure function to the picture's text.

use fnpacker::config::PolicyName;
use plotters::coord::Shift;
use plotters::prelude::*;

mod cdf;
mod pareto;
mod timeline;

#[cfg(test)]
mod tests;

pub use cdf::{Curve, cdf};
pub use pareto::{Axis, Cloud, pareto};
pub use timeline::{Strip, timeline};

/// A picture could not be drawn; a bug of ours, or a range that is not finite.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw: {0}")]
pub struct PlotError(String);

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for PlotError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
const FAINT_GRID: RGBColor = RGBColor(243, 243, 243);

/// Okabe and Ito's palette, which people with any colour vision can tell apart (2008).
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const SKY: RGBColor = RGBColor(86, 180, 233);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILLION: RGBColor = RGBColor(213, 94, 0);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const GREY: RGBColor = RGBColor(140, 140, 140);

/// The same colour for a policy in every picture.
const fn colour(name: PolicyName) -> RGBColor {
    match name {
        PolicyName::Published => BLACK,
        PolicyName::PublishedStrict => GREY,
        PolicyName::Affinity => ORANGE,
        PolicyName::OneToOne => SKY,
        PolicyName::AllInOne => PURPLE,
        PolicyName::ChBl => GREEN,
        PolicyName::EctG => BLUE,
        _ => VERMILLION,
    }
}

fn svg(
    size: (u32, u32),
    draw: impl for<'a> FnOnce(&Canvas<'a>) -> Result<(), PlotError>,
) -> Result<String, PlotError> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
    }
    Ok(text)
}

/// 1, 2 and 5 times the powers of ten in a range: where a logarithmic axis has its labels.
fn decades(from: f64, to: f64) -> Vec<f64> {
    let range = from.log10().floor()..=to.log10().ceil();
    let powers = std::iter::successors(Some(*range.start()), |power| Some(power + 1.0));
    powers
        .take_while(|power| range.contains(power))
        .take(40)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powf(power)))
        .filter(|value| (from * 0.999..=to * 1.001).contains(value))
        .collect()
}

/// Milliseconds for a label.
fn millis(value: f64) -> String {
    if value >= 1000.0 {
        format!("{} s", (value / 100.0).round() / 10.0)
    } else {
        format!("{} ms", (value * 100.0).round() / 100.0)
    }
}

/// Coloured names side by side.
fn legend(area: &Canvas<'_>, entries: &[(RGBColor, String)]) -> Result<(), PlotError> {
    let mut x = 70;
    for (colour, text) in entries {
        area.draw(&Circle::new((x, 12), 5, colour.filled()))?;
        area.draw(&Text::new(
            text.clone(),
            (x + 10, 4),
            (FONT, 15).into_font().color(&INK),
        ))?;
        x += 34 + 8 * i32::try_from(text.chars().count()).unwrap_or(0);
    }
    Ok(())
}
