//! What every instance did, for a picture of it.

use protocol::invoke::StartKind;

/// One invocation, in microseconds since the start.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Counts instances in the order of their births, from 1.
    pub instance: u64,
    /// Absent for a start that served nobody.
    pub model: Option<u32>,
    pub from: u64,
    pub to: u64,
    pub start: StartKind,
}

/// From birth to end, in microseconds since the start.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    pub instance: u64,
    pub from: u64,
    pub to: u64,
}

/// One run, instance by instance.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// In the order of their ends.
    pub spans: Vec<Span>,
    pub lives: Vec<Life>,
}

impl Timeline {
    pub(super) fn lived(&mut self, instance: u64, from: u64, to: u64) {
        self.lives.push(Life { instance, from, to });
    }
}
