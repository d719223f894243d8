//! The instances that live, with the idle ones in the order in which they fell idle.
//!
//! All keep-alives are alike, so that order is the order of expiry and of eviction too; and the
//! youngest of one endpoint is the one that a platform uses next. Each question is one link away,
//! with ten thousand instances as with ten.

use fnpacker::packing::EndpointId;
use protocol::id::InstanceId;

const NONE: u32 = u32::MAX;

/// One sandbox.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) number: u64,
    pub(super) endpoint: EndpointId,
    pub(super) born: u64,
    pub(super) last_use: u64,
    /// Models, the most recently used first.
    pub(super) resident: Vec<u32>,
    among_all: Links,
    in_endpoint: Links,
}

#[derive(Debug, Clone, Copy)]
struct Links {
    older: u32,
    younger: u32,
}

impl Links {
    const APART: Self = Self {
        older: NONE,
        younger: NONE,
    };
}

/// A list's ends.
#[derive(Debug, Clone, Copy)]
struct Ends {
    oldest: u32,
    youngest: u32,
}

impl Ends {
    const EMPTY: Self = Self {
        oldest: NONE,
        youngest: NONE,
    };
}

#[derive(Debug)]
pub(super) struct Instances {
    slots: Vec<Option<Instance>>,
    free: Vec<u32>,
    idle: Ends,
    idle_of: Vec<Ends>,
    live: usize,
    born: u64,
}

type Pick = fn(&mut Instance) -> &mut Links;

fn among_all(instance: &mut Instance) -> &mut Links {
    &mut instance.among_all
}

fn in_endpoint(instance: &mut Instance) -> &mut Links {
    &mut instance.in_endpoint
}

impl Instances {
    pub(super) fn new(endpoints: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            idle: Ends::EMPTY,
            idle_of: vec![Ends::EMPTY; endpoints],
            live: 0,
            born: 0,
        }
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }

    pub(super) fn of(&mut self, at: u32) -> Option<&mut Instance> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// A new one, busy from the start.
    pub(super) fn create(&mut self, now: u64, endpoint: EndpointId) -> Option<u32> {
        let number = self.born + 1;
        let instance = Instance {
            id: format!("i{number}").parse().ok()?,
            number,
            endpoint,
            born: now,
            last_use: now,
            resident: Vec::new(),
            among_all: Links::APART,
            in_endpoint: Links::APART,
        };
        self.born = number;
        self.live += 1;
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = Some(instance);
            return Some(at);
        }
        self.slots.push(Some(instance));
        u32::try_from(self.slots.len() - 1).ok()
    }

    /// It has nothing to do from now on.
    pub(super) fn rest(&mut self, now: u64, at: u32) {
        let Some(instance) = self.of(at) else { return };
        instance.last_use = now;
        let endpoint = instance.endpoint.index();
        let mut ends = self.idle;
        self.append(&mut ends, at, among_all);
        self.idle = ends;
        let mut ends = self.idle_of[endpoint];
        self.append(&mut ends, at, in_endpoint);
        self.idle_of[endpoint] = ends;
    }

    /// The idle one of an endpoint that was used last, busy from now on.
    pub(super) fn engage(&mut self, endpoint: EndpointId) -> Option<u32> {
        let at = self.idle_of.get(endpoint.index())?.youngest;
        (at != NONE).then(|| self.take(at)).map(|()| at)
    }

    /// The one that is idle longest, and since when.
    pub(super) fn oldest_idle(&self) -> Option<(u32, u64)> {
        let at = self.idle.oldest;
        let instance = self.slots.get(at as usize)?.as_ref()?;
        Some((at, instance.last_use))
    }

    /// Takes out one that is idle.
    pub(super) fn remove_idle(&mut self, at: u32) -> Option<Instance> {
        self.take(at);
        let instance = self.slots.get_mut(at as usize)?.take()?;
        self.free.push(at);
        self.live -= 1;
        Some(instance)
    }

    /// Out of both lists.
    fn take(&mut self, at: u32) {
        let Some(instance) = self.of(at) else { return };
        let endpoint = instance.endpoint.index();
        let mut ends = self.idle;
        self.unlink(&mut ends, at, among_all);
        self.idle = ends;
        let mut ends = self.idle_of[endpoint];
        self.unlink(&mut ends, at, in_endpoint);
        self.idle_of[endpoint] = ends;
    }

    fn append(&mut self, ends: &mut Ends, at: u32, links: Pick) {
        if let Some(last) = self.of(ends.youngest) {
            links(last).younger = at;
        } else {
            ends.oldest = at;
        }
        if let Some(instance) = self.of(at) {
            *links(instance) = Links {
                older: ends.youngest,
                younger: NONE,
            };
        }
        ends.youngest = at;
    }

    fn unlink(&mut self, ends: &mut Ends, at: u32, links: Pick) {
        let Some(instance) = self.of(at) else { return };
        let Links { older, younger } = std::mem::replace(links(instance), Links::APART);
        match self.of(older) {
            Some(other) => links(other).younger = younger,
            None => ends.oldest = younger,
        }
        match self.of(younger) {
            Some(other) => links(other).older = older,
            None => ends.youngest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_youngest_of_an_endpoint_works_and_the_oldest_of_all_goes() {
        let mut instances = Instances::new(2);
        let [a, b, c] =
            [0, 1, 0].map(|endpoint| instances.create(0, EndpointId(endpoint)).unwrap());
        assert_eq!(instances.oldest_idle(), None);
        assert_eq!(instances.engage(EndpointId(0)), None);
        for (now, at) in [(1, b), (2, a), (3, c)] {
            instances.rest(now, at);
        }
        assert_eq!(instances.oldest_idle(), Some((b, 1)));
        assert_eq!(instances.engage(EndpointId(0)), Some(c));
        assert_eq!(instances.engage(EndpointId(1)), Some(b));
        assert_eq!(instances.oldest_idle(), Some((a, 2)));
        instances.rest(4, b);
        instances.rest(5, c);
        // From the middle of the order.
        assert_eq!(instances.remove_idle(b).unwrap().number, 2);
        assert_eq!(instances.engage(EndpointId(1)), None);
        assert_eq!(instances.engage(EndpointId(0)), Some(c));
        assert_eq!(instances.remove_idle(a).unwrap().number, 1);
        assert_eq!(
            (instances.oldest_idle(), instances.engage(EndpointId(0))),
            (None, None)
        );
        assert_eq!(instances.live(), 1);
        let again = instances.create(6, EndpointId(1)).unwrap();
        assert!(again == a || again == b, "a slot is used again");
    }
}
