//! How often models are asked for, by how long they have been silent: a hazard that is learnt,
//! and slowly forgotten.

use std::time::Duration;

use super::ModelKey;

/// Silences are told apart by doublings, from this many seconds.
const FIRST_SILENCE: f64 = 0.25;
const SILENCES: usize = 18;
/// Gaps that the experience with all models is worth, beside a model's own.
const PRIOR: f64 = 1.0;
/// What a remembered gap is worth after one more.
const FADE: f64 = 0.97;
const FADE_ALL: f64 = 0.999;
/// Models asked for most recently that are candidates to be held.
const RECENT: usize = 64;

/// Requests and time at risk, by length of silence: a hazard, piecewise constant.
#[derive(Debug, Clone, Copy, Default)]
struct Hazard {
    events: [f32; SILENCES],
    seconds: [f32; SILENCES],
}

impl Hazard {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "durations, to seven digits"
    )]
    fn add(&mut self, gap: f64, fade: f64) {
        let fade = fade as f32;
        let (mut from, mut to) = (0.0, FIRST_SILENCE);
        for at in 0..SILENCES {
            let last = at == SILENCES - 1 || gap <= to;
            // Only what this gap tells about is renewed.
            self.events[at] *= fade;
            self.seconds[at] *= fade;
            self.seconds[at] += (if last { gap } else { to } - from).max(0.0) as f32;
            if last {
                self.events[at] += 1.0;
                return;
            }
            (from, to) = (to, to * 2.0);
        }
    }
}

/// The class of a silence, and where it begins.
fn silence(seconds: f64) -> (usize, f64) {
    let (mut at, mut from, mut to) = (0, 0.0, FIRST_SILENCE);
    while seconds > to && at < SILENCES - 1 {
        (from, to) = (to, to * 2.0);
        at += 1;
    }
    (at, from)
}

#[derive(Debug, Clone, Copy, Default)]
struct Model {
    last: Option<f64>,
    hazard: Hazard,
}

/// What was asked for so far.
#[derive(Debug, Default)]
pub(super) struct Demand {
    models: Vec<Model>,
    all: Hazard,
    /// The most recent first.
    recent: Vec<ModelKey>,
}

impl Demand {
    /// A request for `model` arrives.
    pub(super) fn arrived(&mut self, model: ModelKey, now: Duration) {
        let now = now.as_secs_f64();
        if self.models.len() <= model.index() {
            self.models.resize(model.index() + 1, Model::default());
        }
        let own = &mut self.models[model.index()];
        if let Some(last) = own.last {
            let gap = (now - last).max(0.0);
            own.hazard.add(gap, FADE);
            self.all.add(gap, FADE_ALL);
        }
        own.last = Some(now);
        match self.recent.iter().position(|recent| *recent == model) {
            Some(at) => self.recent[..=at].rotate_right(1),
            None => {
                self.recent.truncate(RECENT - 1);
                self.recent.insert(0, model);
            }
        }
    }

    /// Requests per second to expect for a model, after its present silence.
    pub(super) fn rate(&self, model: ModelKey, now: Duration) -> f64 {
        let Some(own) = self.models.get(model.index()) else {
            return 0.0;
        };
        let Some(last) = own.last else { return 0.0 };
        let silent = now.as_secs_f64() - last;
        let (at, from) = silence(silent);
        // Who knows nothing expects a silence to last as long again; then all models speak, then
        // this one, with what it is silent now.
        let ignorance = from.max(FIRST_SILENCE) * 1.5;
        let all =
            (f64::from(self.all.events[at]) + 1.0) / (f64::from(self.all.seconds[at]) + ignorance);
        let events = f64::from(own.hazard.events[at]);
        let seconds = f64::from(own.hazard.seconds[at]) + silent - from;
        (events + PRIOR) / (seconds + PRIOR / all)
    }

    /// Requests per second to expect for all models together.
    pub(super) fn rate_of_all(&self, now: Duration) -> f64 {
        self.recent.iter().map(|model| self.rate(*model, now)).sum()
    }

    /// The models asked for most recently.
    pub(super) fn recent(&self) -> &[ModelKey] {
        &self.recent
    }

    pub(super) fn forgotten(&mut self, model: ModelKey) {
        if let Some(own) = self.models.get_mut(model.index()) {
            *own = Model::default();
        }
        self.recent.retain(|recent| *recent != model);
    }
}
