//! What memory buys: every setting that was tried as a point, the best of each policy as a line.

use std::collections::BTreeSet;

use fnpacker::config::PolicyName;
use plotters::coord::combinators::BindKeyPoints as _;
use plotters::prelude::*;

use super::{Canvas, FAINT_GRID, FONT, GRID, INK, PlotError, colour, decades, legend, millis, svg};
use crate::compare::Tried;
use crate::report::Figures;

/// One workload's settings.
#[derive(Debug, Clone)]
pub struct Cloud {
    pub workload: String,
    pub published: Figures,
    pub tried: Vec<Tried>,
}

/// What is plotted against memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    P99,
    Mean,
}

/// Memory that is shown, as a share of what the published FnPacker needs.
const MEMORY: std::ops::Range<f64> = 0.1..2.0;
const PANEL: (u32, u32) = (540, 400);
const LEGEND: u32 = 34;

impl Axis {
    const fn of(self, figures: &Figures) -> f64 {
        match self {
            Self::P99 => figures.p99_ms,
            Self::Mean => figures.mean_ms,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::P99 => "p99 latency (logarithmic)",
            Self::Mean => "mean latency (logarithmic)",
        }
    }
}

/// A panel for each workload: latency against memory. Down and left is better.
pub fn pareto(clouds: &[Cloud], axis: Axis) -> Result<String, PlotError> {
    let columns = if clouds.len() > 1 { 2 } else { 1 };
    let rows = clouds.len().div_ceil(columns).max(1);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let size = (PANEL.0 * count(columns), PANEL.1 * count(rows) + LEGEND);
    let used = |name: &PolicyName| {
        let mut all = clouds.iter().flat_map(|cloud| &cloud.tried);
        all.any(|tried| tried.spec.name == *name)
    };
    let policies: Vec<_> = PolicyName::ALL.into_iter().filter(used).collect();
    svg(size, |root| {
        let (panels, legend_area) = root.split_vertically(size.1 - LEGEND);
        for (area, cloud) in panels.split_evenly((rows, columns)).iter().zip(clouds) {
            panel(area, cloud, axis, &policies)?;
        }
        let mut names: Vec<_> = policies
            .iter()
            .map(|name| (colour(*name), name.name().to_owned()))
            .collect();
        names.push((BLACK, "✕ as published".to_owned()));
        legend(&legend_area, &names)
    })
}

fn panel(
    area: &Canvas<'_>,
    cloud: &Cloud,
    axis: Axis,
    policies: &[PolicyName],
) -> Result<(), PlotError> {
    let of = |name: PolicyName| -> Vec<(f64, f64)> {
        let own = cloud.tried.iter().filter(|tried| tried.spec.name == name);
        let point = |tried: &Tried| {
            let memory = tried.figures.gb_seconds / cloud.published.gb_seconds;
            (memory, axis.of(&tried.figures))
        };
        own.map(point).collect()
    };
    let as_published = (1.0, axis.of(&cloud.published));
    let shown = |point: &(f64, f64)| MEMORY.contains(&point.0);
    let all: Vec<_> = policies.iter().flat_map(|name| of(*name)).collect();
    let low = all.iter().filter(|p| shown(p)).map(|p| p.1);
    let from = low.fold(as_published.1, f64::min) * 0.85;
    // What is much worse than the published is not worth the room.
    let to = as_published.1 * 2.2;
    let x = MEMORY.log_scale();
    let x = x.with_key_points(vec![0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0]);
    let y = (from..to).log_scale().with_key_points(decades(from, to));
    let mut chart = ChartBuilder::on(area)
        .caption(&cloud.workload, (FONT, 18).into_font().color(&INK))
        .margin(8)
        .margin_right(20)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(FAINT_GRID)
        .axis_style(INK)
        .label_style((FONT, 13).into_font().color(&INK))
        .x_desc("GB·s, as a share of FnPacker's as published (logarithmic)")
        .y_desc(axis.name())
        .x_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .y_label_formatter(&|value| millis(*value))
        .draw()?;
    chart.draw_series(DashedLineSeries::new(
        [(1.0, from), (1.0, to)],
        4,
        4,
        INK.mix(0.5).stroke_width(1),
    ))?;
    let inside = |point: &(f64, f64)| shown(point) && (from..to).contains(&point.1);
    for name in policies {
        let points = of(*name);
        let faint = colour(*name).mix(0.22).filled();
        let each = thinned(points.iter().copied().filter(inside));
        chart.draw_series(each.into_iter().map(|p| Circle::new(p, 2, faint)))?;
    }
    for name in policies {
        let best: Vec<_> = front(of(*name)).into_iter().filter(inside).collect();
        let style = colour(*name).stroke_width(2);
        chart.draw_series(LineSeries::new(best.iter().copied(), style))?;
        let dot = colour(*name).filled();
        chart.draw_series(best.into_iter().map(|p| Circle::new(p, 3, dot)))?;
    }
    let cross = Cross::new(as_published, 7, BLACK.stroke_width(3));
    chart.draw_series([cross])?;
    Ok(())
}

/// Those that no other is better than in both respects, by memory.
fn front(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut least = f64::INFINITY;
    points.retain(|(_, y)| {
        let better = *y < least;
        least = least.min(*y);
        better
    });
    points
}

/// One of those that would cover each other.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cell of the picture, some hundreds"
)]
fn thinned(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut cells = BTreeSet::new();
    let cell = |(x, y): (f64, f64)| ((x.ln() * 50.0) as i64, (y.ln() * 50.0) as i64);
    points.filter(|point| cells.insert(cell(*point))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_has_what_nothing_beats() {
        let points = vec![(3.0, 1.0), (1.0, 5.0), (2.0, 5.0), (2.0, 2.0), (4.0, 1.0)];
        assert_eq!(front(points), [(1.0, 5.0), (2.0, 2.0), (3.0, 1.0)]);
    }
}
