//! What every instance did: a row for each, with cold, warm and hot requests on it.

use plotters::prelude::*;
use protocol::invoke::StartKind;

use super::{BLUE, FAINT_GRID, FONT, GRID, INK, ORANGE, PlotError, SKY, VERMILLION, legend, svg};
use crate::simulation::timeline::Timeline;

/// Rows that are shown.
const ROWS: usize = 40;
const WIDTH: u32 = 1100;

/// One part of a run.
#[derive(Debug, Clone, Copy)]
pub struct Strip {
    /// Seconds since the start.
    pub from: f64,
    pub to: f64,
}

impl Strip {
    /// About this many seconds in which most is asked for.
    #[must_use]
    pub fn busiest(timeline: &Timeline, seconds: f64) -> Self {
        let starts: Vec<f64> = timeline.spans.iter().map(|span| secs(span.from)).collect();
        let within = |from: f64| {
            let range = from..from + seconds;
            starts.iter().filter(|start| range.contains(start)).count()
        };
        let last = starts.iter().copied().fold(0.0, f64::max);
        let places = std::iter::successors(Some(0.0), |from| Some(from + seconds / 2.0));
        let from = places
            .take_while(|from| *from <= last)
            .take(2000)
            .max_by_key(|from| within(*from))
            .unwrap_or(0.0);
        Self {
            from,
            to: from + seconds,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time below 2^53 microseconds")]
fn secs(micros: u64) -> f64 {
    micros as f64 / 1e6
}

const fn mark(start: StartKind, serves: bool) -> (RGBColor, f64) {
    match start {
        _ if !serves => (SKY, 0.36),
        StartKind::Cold => (VERMILLION, 0.42),
        StartKind::Warm => (ORANGE, 0.36),
        StartKind::Hot => (BLUE, 0.26),
    }
}

/// A row for each instance of that time, in the order of their births.
pub fn timeline(title: &str, timeline: &Timeline, strip: Strip) -> Result<String, PlotError> {
    let seen = |from: u64, to: u64| secs(to) >= strip.from && secs(from) <= strip.to;
    let lives = timeline
        .lives
        .iter()
        .filter(|life| seen(life.from, life.to));
    let mut lives: Vec<_> = lives.collect();
    lives.sort_by_key(|life| life.instance);
    let all = lives.len();
    lives.truncate(ROWS);
    #[expect(clippy::cast_precision_loss, reason = "rows of a picture")]
    let row = |instance: u64| {
        let at = lives.iter().position(|life| life.instance == instance)?;
        Some(at as f64)
    };
    let rows = u32::try_from(lives.len()).unwrap_or(0).max(1);
    let more = if all > ROWS {
        format!(" (the first {ROWS} of {all} instances)")
    } else {
        String::new()
    };
    let size = (WIDTH, 140 + 16 * rows.max(6));
    svg(size, |root| {
        let (chart_area, legend_area) = root.split_vertically(size.1 - 30);
        let mut chart = ChartBuilder::on(&chart_area)
            .caption(format!("{title}{more}"), (FONT, 18).into_font().color(&INK))
            .margin(8)
            .margin_right(20)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(strip.from..strip.to, f64::from(rows) - 0.5..-0.5)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .bold_line_style(GRID)
            .light_line_style(FAINT_GRID)
            .axis_style(INK)
            .label_style((FONT, 13).into_font().color(&INK))
            .x_desc("seconds since the start")
            .y_desc("instances")
            .y_labels(usize::try_from(rows.min(10)).unwrap_or(1))
            .y_label_formatter(&|row| format!("{:.0}", row + 1.0))
            .draw()?;
        let clip = |at: u64| secs(at).clamp(strip.from, strip.to);
        let life = |instance, from, to| {
            let y = row(instance)?;
            let corners = [(clip(from), y - 0.12), (clip(to), y + 0.12)];
            Some(Rectangle::new(corners, RGBColor(205, 205, 205).filled()))
        };
        let all = lives.iter();
        chart.draw_series(all.filter_map(|l| life(l.instance, l.from, l.to)))?;
        let spans = timeline.spans.iter().filter(|s| seen(s.from, s.to));
        chart.draw_series(spans.filter_map(|span| {
            let y = row(span.instance)?;
            let (colour, half) = mark(span.start, span.model.is_some());
            let corners = [(clip(span.from), y - half), (clip(span.to), y + half)];
            Some(Rectangle::new(corners, colour.filled()))
        }))?;
        legend(
            &legend_area,
            &[
                (VERMILLION, "cold request".to_owned()),
                (ORANGE, "warm: the model is switched".to_owned()),
                (BLUE, "hot".to_owned()),
                (SKY, "started ahead of need".to_owned()),
                (RGBColor(190, 190, 190), "idle, in memory".to_owned()),
            ],
        )
    })
}
