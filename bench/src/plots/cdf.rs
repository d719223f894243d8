//! How latencies are distributed, with the slowest requests in sight.

use fnpacker::config::PolicyName;
use plotters::coord::combinators::BindKeyPoints as _;
use plotters::prelude::*;

use super::{FAINT_GRID, FONT, GRID, INK, PlotError, colour, decades, legend, millis, svg};

/// The latencies of one policy.
#[derive(Debug, Clone)]
pub struct Curve {
    pub policy: PolicyName,
    /// Milliseconds, in ascending order.
    pub latencies: Vec<f64>,
}

/// Up to the slowest of so many requests is shown.
const SLOWEST_OF: f64 = 2000.0;
/// Points of a curve.
const STEPS: u32 = 400;

/// Shares of requests answered within each time. Its axis gives the slowest hundredth as
/// much room as the tenth before it.
pub fn cdf(title: &str, curves: &[Curve]) -> Result<String, PlotError> {
    let drawn = curves.iter().filter(|curve| !curve.latencies.is_empty());
    let lines: Vec<_> = drawn.map(|curve| (curve.policy, line(curve))).collect();
    let all = || {
        lines
            .iter()
            .flat_map(|(_, line)| line.iter().map(|(x, _)| *x))
    };
    let from = all().fold(f64::INFINITY, f64::min).max(1e-3) * 0.8;
    let to = all().fold(1.0, f64::max) * 1.2;
    svg((860, 520), |root| {
        let (chart_area, legend_area) = root.split_vertically(480);
        let y = (1.0..SLOWEST_OF).log_scale();
        let y = y.with_key_points(vec![1.0, 2.0, 10.0, 20.0, 100.0, 1000.0]);
        let x = (from..to).log_scale().with_key_points(decades(from, to));
        let mut chart = ChartBuilder::on(&chart_area)
            .caption(title, (FONT, 19).into_font().color(&INK))
            .margin(10)
            .margin_right(24)
            .x_label_area_size(46)
            .y_label_area_size(66)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(FAINT_GRID)
            .axis_style(INK)
            .label_style((FONT, 14).into_font().color(&INK))
            .x_desc("latency, from the intended time of sending (logarithmic)")
            .y_desc("requests answered within it")
            .x_label_formatter(&|value| millis(*value))
            .y_label_formatter(&|slowest_of| percent(*slowest_of))
            .draw()?;
        for (policy, line) in &lines {
            let width = if *policy == PolicyName::default() {
                3
            } else {
                2
            };
            let style = colour(*policy).stroke_width(width);
            chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
        }
        let names: Vec<_> = lines
            .iter()
            .map(|(policy, _)| (colour(*policy), policy.name().to_owned()))
            .collect();
        legend(&legend_area, &names)
    })
}

/// All but the slowest of so many, as a share.
fn percent(slowest_of: f64) -> String {
    let share = 100.0 * (1.0 - 1.0 / slowest_of);
    format!("{} %", (share * 10.0).round() / 10.0)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index, positive and below 2^53"
)]
fn line(curve: &Curve) -> Vec<(f64, f64)> {
    let last = curve.latencies.len() - 1;
    let shown = SLOWEST_OF.min(curve.latencies.len() as f64);
    (0..=STEPS)
        .map(|step| {
            let slowest_of = shown.powf(f64::from(step) / f64::from(STEPS));
            let rank = (1.0 - 1.0 / slowest_of) * last as f64;
            (curve.latencies[rank.round() as usize].max(1e-3), slowest_of)
        })
        .collect()
}
