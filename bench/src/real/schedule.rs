//! A workload as it is played on one small machine: faster, shorter, of fewer models.

use std::time::Duration;

use crate::workload::{Arrival, Workload};

/// How a workload is cut to size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Times are divided by this.
    pub speed: f64,
    /// Requests after this, in real time, are left out.
    pub duration: Option<Duration>,
    /// Model `i` becomes model `i` modulo this.
    pub models: Option<u32>,
}

impl Cut {
    /// The workload that is left.
    #[must_use]
    pub fn of(&self, whole: &Workload) -> Workload {
        let count = whole.models.len();
        let keep = self.models.map_or(count, |n| count.min(n.max(1) as usize));
        let fold = u32::try_from(keep).unwrap_or(u32::MAX).max(1);
        let end = self.duration.map_or(u64::MAX, protocol::invoke::micros);
        let arrivals = whole.arrivals.iter().map(|arrival| Arrival {
            at: self.faster(arrival.at),
            model: arrival.model % fold,
        });
        Workload {
            name: whole.name.clone(),
            models: whole.models.iter().take(keep).cloned().collect(),
            arrivals: arrivals.filter(|arrival| arrival.at < end).collect(),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time, positive and below 2^53 microseconds"
    )]
    fn faster(&self, at: u64) -> u64 {
        (at as f64 / self.speed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_cut_in_time_and_in_models() {
        let model = |name: &str| name.parse().unwrap();
        let arrival = |at, model| Arrival { at, model };
        let whole = Workload {
            name: "w".into(),
            models: vec![model("m0-a"), model("m1-b"), model("m2-c")],
            arrivals: vec![arrival(0, 2), arrival(4_000_000, 1), arrival(8_000_000, 0)],
        };
        let cut = Cut {
            speed: 4.0,
            duration: Some(Duration::from_secs(2)),
            models: Some(2),
        };
        let left = cut.of(&whole);
        assert_eq!(left.models.len(), 2);
        assert_eq!(left.arrivals, [arrival(0, 0), arrival(1_000_000, 1)]);
        let nothing = Cut {
            speed: 1.0,
            duration: None,
            models: Some(99),
        };
        assert_eq!(nothing.of(&whole).arrivals, whole.arrivals);
    }
}
