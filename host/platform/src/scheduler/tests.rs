//! The scheduler's rules one by one, and then all together under random events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    capacity_mb: 1000,
    idle_timeout: Duration::from_secs(60),
    patience: Duration::from_secs(1),
};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn demand(function: &str, memory_mb: u64, concurrency: u32) -> Demand {
    Demand {
        function: function.into(),
        memory_mb,
        concurrency,
        retired: false,
    }
}

fn started(decisions: &[Decision]) -> InstanceId {
    match decisions {
        [.., Decision::Start { instance, .. }] => *instance,
        other => panic!("no start in {other:?}"),
    }
}

#[test]
fn a_function_that_can_never_fit_is_refused() {
    let mut s = Scheduler::new(BOUNDS);
    let refused = s.submit(&demand("a", 1001, 1), None, at(0)).unwrap_err();
    assert_eq!(
        refused,
        TooBig {
            needed_mb: 1001,
            capacity_mb: 1000
        }
    );
    assert_eq!((s.waiting(), s.used_mb()), (0, 0));
}

#[test]
fn a_full_instance_is_not_given_more_than_its_concurrency() {
    let mut s = Scheduler::new(BOUNDS);
    let d = demand("a", 600, 2);
    let (_, first) = s.submit(&d, None, at(0)).unwrap();
    let instance = started(&first);
    let (second, given) = s.submit(&d, None, at(0)).unwrap();
    assert_eq!(
        given,
        [Decision::Assign {
            instance,
            job: second
        }]
    );
    let (third, waits) = s.submit(&d, None, at(0)).unwrap();
    assert_eq!((waits, s.waiting()), (vec![], 1));
    let freed = s.finished(instance, second, true, at(5));
    assert_eq!(
        freed,
        [Decision::Assign {
            instance,
            job: third
        }]
    );
}

#[test]
fn another_function_shares_no_instance_even_if_one_idles() {
    let mut s = Scheduler::new(BOUNDS);
    let (job, first) = s.submit(&demand("a@1", 100, 1), None, at(0)).unwrap();
    let a = started(&first);
    s.ready(a);
    assert_eq!(s.finished(a, job, true, at(1)), []);
    let (_, second) = s.submit(&demand("a@2", 100, 1), None, at(2)).unwrap();
    assert_ne!(started(&second), a);
    assert_eq!((s.instances(), s.idle()), (2, 1));
}

#[test]
fn idle_instances_make_room_longest_idle_first_and_only_as_many_as_needed() {
    let mut s = Scheduler::new(BOUNDS);
    let mut instances = Vec::new();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (job, start) = s.submit(&demand(name, 300, 1), None, at(0)).unwrap();
        let instance = started(&start);
        s.ready(instance);
        s.finished(instance, job, true, at(10 - i as u64));
        instances.push(instance);
    }
    let (job, evict) = s.submit(&demand("d", 700, 1), None, at(20)).unwrap();
    let [_, b, c] = instances[..] else { panic!() };
    assert_eq!(
        evict,
        [
            Decision::Destroy { instance: c },
            Decision::Destroy { instance: b }
        ]
    );
    // Not before the memory is really free, and nobody else is evicted meanwhile.
    assert_eq!(s.tick(at(21)), []);
    assert_eq!(s.gone(c, at(22)), []);
    let start = s.gone(b, at(23));
    assert!(
        matches!(start[..], [Decision::Start { job: j, .. }] if j == job),
        "{start:?}"
    );
    assert_eq!(s.used_mb(), 1000);
}

#[test]
fn nothing_is_evicted_if_that_would_not_be_enough() {
    let mut s = Scheduler::new(BOUNDS);
    let (job, start) = s.submit(&demand("a", 300, 1), None, at(0)).unwrap();
    let a = started(&start);
    s.ready(a);
    s.submit(&demand("b", 600, 1), None, at(0)).unwrap();
    s.finished(a, job, true, at(1));
    let (_, waits) = s.submit(&demand("c", 900, 1), None, at(2)).unwrap();
    assert_eq!(waits, []);
    assert_eq!(s.idle(), 1);
}

#[test]
fn memory_goes_to_who_waited_first() {
    let mut s = Scheduler::new(BOUNDS);
    let (first, start) = s.submit(&demand("a", 800, 1), None, at(0)).unwrap();
    let a = started(&start);
    let (_, big) = s.submit(&demand("big", 900, 1), None, at(1)).unwrap();
    let (_, small) = s.submit(&demand("small", 100, 1), None, at(2)).unwrap();
    assert_eq!(
        (big, small),
        (vec![], vec![]),
        "small must not take what big waits for"
    );
    assert_eq!(
        s.finished(a, first, false, at(3)),
        [Decision::Destroy { instance: a }]
    );
    let freed = s.gone(a, at(4));
    assert_eq!(freed.len(), 2, "{freed:?}");
}

#[test]
fn a_busy_function_cannot_starve_one_that_waits_for_memory() {
    let mut s = Scheduler::new(BOUNDS);
    let busy = demand("busy", 600, 1);
    let (mut running, start) = s.submit(&busy, None, at(0)).unwrap();
    let instance = started(&start);
    s.ready(instance);
    let (starved, _) = s.submit(&demand("starved", 600, 1), None, at(0)).unwrap();
    // Within its patience others go on; afterwards the busy one runs dry and makes room.
    for ms in [100, 500, 999] {
        let (next, _) = s.submit(&busy, None, at(ms)).unwrap();
        let freed = s.finished(instance, running, true, at(ms));
        assert_eq!(
            freed,
            [Decision::Assign {
                instance,
                job: next
            }],
            "at {ms} ms"
        );
        running = next;
    }
    let (late, _) = s.submit(&busy, None, at(1000)).unwrap();
    assert_eq!(
        s.finished(instance, running, true, at(1001)),
        [Decision::Destroy { instance }]
    );
    let freed = s.gone(instance, at(1002));
    assert!(
        matches!(freed[..], [Decision::Start { job, .. }] if job == starved),
        "{freed:?}"
    );
    assert_eq!(s.waiting(), 1, "{late:?} waits now");
}

#[test]
fn an_instance_without_keep_takes_no_other_and_ends_when_its_last_job_does() {
    let mut s = Scheduler::new(BOUNDS);
    let d = demand("a", 400, 2);
    let (first, start) = s.submit(&d, None, at(0)).unwrap();
    let instance = started(&start);
    let (second, _) = s.submit(&d, None, at(0)).unwrap();
    assert_eq!(s.finished(instance, first, false, at(1)), []);
    let (_, third) = s.submit(&d, None, at(2)).unwrap();
    assert_ne!(started(&third), instance);
    assert_eq!(
        s.finished(instance, second, true, at(3)),
        [Decision::Destroy { instance }]
    );
}

#[test]
fn an_instance_that_dies_frees_its_memory_while_its_jobs_still_notice() {
    let mut s = Scheduler::new(BOUNDS);
    let (job, start) = s.submit(&demand("a", 600, 1), None, at(0)).unwrap();
    let instance = started(&start);
    s.submit(&demand("b", 600, 1), None, at(0)).unwrap();
    let freed = s.gone(instance, at(1));
    assert!(matches!(freed[..], [Decision::Start { .. }]), "{freed:?}");
    assert_eq!((s.used_mb(), s.busy_mb()), (600, 600));
    assert_eq!(s.gone(instance, at(1)), []);
    assert_eq!(s.finished(instance, job, false, at(2)), []);
}

#[test]
fn a_job_handed_back_is_served_before_later_ones() {
    let mut s = Scheduler::new(Bounds {
        capacity_mb: 500,
        ..BOUNDS
    });
    let d = demand("a", 500, 1);
    let (first, start) = s.submit(&d, None, at(0)).unwrap();
    let instance = started(&start);
    let (second, _) = s.submit(&d, None, at(1)).unwrap();
    let ended = s.handed_back(instance, first, &d, at(2));
    assert_eq!(ended, [Decision::Destroy { instance }]);
    let again = s.gone(instance, at(3));
    assert!(
        matches!(again[..], [Decision::Start { job, .. }] if job == first),
        "{again:?}"
    );
    assert_eq!(s.waiting(), 1, "{second:?} waits");
}

#[test]
fn a_job_handed_back_still_comes_first_for_memory() {
    let mut s = Scheduler::new(BOUNDS);
    let d = demand("a", 600, 1);
    let (job, start) = s.submit(&d, None, at(0)).unwrap();
    let instance = started(&start);
    let (_, later) = s.submit(&demand("b", 500, 1), None, at(10)).unwrap();
    assert_eq!(later, []);
    assert_eq!(
        s.handed_back(instance, job, &d, at(5000)),
        [Decision::Destroy { instance }]
    );
    let (_, idle) = s.submit(&demand("c", 400, 1), None, at(5001)).unwrap();
    assert_eq!(idle, [], "memory is free for c, but a comes first");
    let freed = s.gone(instance, at(5002));
    assert!(
        matches!(freed[0], Decision::Start { job: j, .. } if j == job),
        "{freed:?}"
    );
}

#[test]
fn idle_instances_expire_and_the_next_tick_says_when() {
    let mut s = Scheduler::new(BOUNDS);
    let (job, start) = s.submit(&demand("a", 100, 1), None, at(0)).unwrap();
    let instance = started(&start);
    assert_eq!(s.next_tick(), None);
    s.ready(instance);
    s.finished(instance, job, true, at(500));
    let due = at(60_500);
    assert_eq!(s.next_tick(), Some(due));
    assert_eq!(s.tick(due.saturating_sub(at(1))), []);
    assert_eq!(s.tick(due), [Decision::Destroy { instance }]);
    assert_eq!(s.next_tick(), None);
}

#[test]
fn a_retired_function_keeps_no_idle_instance() {
    let mut s = Scheduler::new(BOUNDS);
    let d = demand("a", 100, 1);
    let (one, start) = s.submit(&d, None, at(0)).unwrap();
    let idle = started(&start);
    let (two, start) = s.submit(&d, None, at(0)).unwrap();
    let busy = started(&start);
    s.ready(idle);
    s.ready(busy);
    s.finished(idle, one, true, at(1));
    assert_eq!(
        s.retire(&d.function, at(2)),
        [Decision::Destroy { instance: idle }]
    );
    assert_eq!(
        s.finished(busy, two, true, at(3)),
        [Decision::Destroy { instance: busy }]
    );
}

#[test]
fn a_job_that_finds_its_function_retired_leaves_nothing_idle() {
    let mut s = Scheduler::new(BOUNDS);
    let d = demand("a", 100, 1);
    s.retire(&d.function, at(0));
    // It was found before it was retired, and comes after.
    let late = Demand { retired: true, ..d };
    let (job, start) = s.submit(&late, None, at(1)).unwrap();
    let instance = started(&start);
    s.ready(instance);
    assert_eq!(
        s.finished(instance, job, true, at(2)),
        [Decision::Destroy { instance }]
    );
    assert_eq!(s.prewarm(&late, at(3)), None);
}

#[test]
fn a_wish_for_an_instance_counts_only_if_it_is_there_and_free() {
    let mut s = Scheduler::new(BOUNDS);
    let d = demand("a", 100, 1);
    let (one, start) = s.submit(&d, None, at(0)).unwrap();
    let first = started(&start);
    let (two, start) = s.submit(&d, None, at(0)).unwrap();
    let second = started(&start);
    let (other, start) = s.submit(&demand("b", 100, 1), None, at(0)).unwrap();
    let strange = started(&start);
    for (instance, job) in [(first, one), (second, two), (strange, other)] {
        s.ready(instance);
        s.finished(instance, job, true, at(1));
    }
    let assigned = |s: &mut Scheduler, wish: u64| {
        let (job, decisions) = s.submit(&d, Some(InstanceId(wish)), at(2)).unwrap();
        match decisions.as_slice() {
            [Decision::Assign { instance, .. }] => (*instance, job),
            other => panic!("{other:?}"),
        }
    };
    // Without a wish it is the one that was used last.
    for (wish, expected) in [
        (first, first),
        (second, second),
        (strange, second),
        (InstanceId(999), second),
    ] {
        let (instance, job) = assigned(&mut s, wish.0);
        assert_eq!(instance, expected, "{wish:?}");
        if instance == first {
            let (busy, waiting) = assigned(&mut s, first.0);
            assert_eq!(busy, second, "the wished one is busy");
            s.finished(busy, waiting, true, at(2));
        }
        s.finished(instance, job, true, at(2));
        let (_, job) = assigned(&mut s, second.0);
        s.finished(second, job, true, at(3));
    }
}

#[test]
fn starting_ahead_of_need_takes_free_memory_only() {
    let mut s = Scheduler::new(BOUNDS);
    let d = demand("a", 400, 1);
    for expected in [true, true, false] {
        let made = s.prewarm(&d, at(0));
        assert_eq!(made.is_some(), expected);
        if let Some((job, decision)) = made {
            let instance = started(&[decision]);
            s.ready(instance);
            assert_eq!(s.finished(instance, job, true, at(1)), []);
        }
    }
    assert_eq!((s.idle(), s.used_mb()), (2, 800));
    let (_, given) = s.submit(&d, None, at(2)).unwrap();
    assert!(matches!(given.as_slice(), [Decision::Assign { .. }]));
    // Who waits for memory comes first.
    let (_, waits) = s.submit(&demand("big", 900, 1), None, at(3)).unwrap();
    assert!(!waits.iter().any(|it| matches!(it, Decision::Start { .. })));
    assert_eq!(s.prewarm(&demand("b", 100, 1), at(4)), None);
}

/// What may happen; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Event {
    Submit(usize),
    Finish(usize, bool),
    HandBack(usize),
    Gone(usize),
    Die(usize),
    Ready(usize),
    Retire(usize),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4_usize).prop_map(Event::Submit),
        5 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(i, k)| Event::Finish(i, k)),
        1 => any::<usize>().prop_map(Event::HandBack),
        3 => any::<usize>().prop_map(Event::Gone),
        1 => any::<usize>().prop_map(Event::Die),
        3 => any::<usize>().prop_map(Event::Ready),
        1 => (0..4_usize).prop_map(Event::Retire),
        2 => (1..90_000_u64).prop_map(Event::Wait),
    ]
}

/// A small model beside the scheduler: it believes only decisions, and checks each.
struct World {
    scheduler: Scheduler,
    demands: Vec<Demand>,
    now: Duration,
    /// Every job that was submitted, by function.
    function: BTreeMap<JobId, usize>,
    waiting: BTreeSet<JobId>,
    running: BTreeMap<JobId, InstanceId>,
    done: BTreeSet<JobId>,
    /// Memory that each instance holds, and its function; gone ones are removed.
    holding: BTreeMap<InstanceId, (u64, usize)>,
    ending: BTreeSet<InstanceId>,
    no_more: BTreeSet<InstanceId>,
}

impl World {
    fn new() -> Self {
        let demands = vec![
            demand("a", 200, 1),
            demand("b", 300, 2),
            demand("c", 700, 3),
            demand("d", 128, 1),
        ];
        Self {
            scheduler: Scheduler::new(BOUNDS),
            demands,
            now: Duration::ZERO,
            function: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeMap::new(),
            done: BTreeSet::new(),
            holding: BTreeMap::new(),
            ending: BTreeSet::new(),
            no_more: BTreeSet::new(),
        }
    }

    fn apply(&mut self, event: &Event) {
        let pick = |n: usize, len: usize| n.checked_rem(len);
        match event {
            Event::Submit(f) => {
                let demand = self.demands[*f].clone();
                let wish = Some(InstanceId(self.now.as_secs() % 8));
                let (job, decisions) = self.scheduler.submit(&demand, wish, self.now).unwrap();
                self.function.insert(job, *f);
                self.waiting.insert(job);
                self.check(&decisions);
            }
            Event::Finish(n, keep) => {
                let Some(at) = pick(*n, self.running.len()) else {
                    return;
                };
                let (job, instance) = self.running.iter().nth(at).map(|(j, i)| (*j, *i)).unwrap();
                self.finish(job, instance, *keep);
            }
            Event::HandBack(n) => {
                let Some(at) = pick(*n, self.running.len()) else {
                    return;
                };
                let (job, instance) = self.running.iter().nth(at).map(|(j, i)| (*j, *i)).unwrap();
                self.running.remove(&job);
                self.waiting.insert(job);
                self.no_more.insert(instance);
                let demand = self.demands[self.function[&job]].clone();
                let decisions = self.scheduler.handed_back(instance, job, &demand, self.now);
                self.check(&decisions);
            }
            Event::Gone(n) => {
                let Some(at) = pick(*n, self.ending.len()) else {
                    return;
                };
                let instance = *self.ending.iter().nth(at).unwrap();
                self.vanish(instance);
            }
            Event::Die(n) => {
                let Some(at) = pick(*n, self.holding.len()) else {
                    return;
                };
                let instance = *self.holding.keys().nth(at).unwrap();
                self.vanish(instance);
            }
            Event::Ready(n) => {
                if let Some(at) = pick(*n, self.holding.len()) {
                    let instance = *self.holding.keys().nth(at).unwrap();
                    self.scheduler.ready(instance);
                }
            }
            Event::Retire(f) => {
                let key = self.demands[*f].function.clone();
                let decisions = self.scheduler.retire(&key, self.now);
                self.check(&decisions);
            }
            Event::Wait(ms) => {
                self.now += at(*ms);
                let decisions = self.scheduler.tick(self.now);
                self.check(&decisions);
                let due = self.scheduler.next_tick();
                assert!(
                    due.is_none_or(|due| due > self.now),
                    "an idle instance overstayed"
                );
            }
        }
    }

    fn finish(&mut self, job: JobId, instance: InstanceId, keep: bool) {
        self.running.remove(&job);
        self.done.insert(job);
        if !keep {
            self.no_more.insert(instance);
        }
        let decisions = self.scheduler.finished(instance, job, keep, self.now);
        self.check(&decisions);
    }

    fn vanish(&mut self, instance: InstanceId) {
        self.holding.remove(&instance);
        self.ending.remove(&instance);
        self.no_more.insert(instance);
        let decisions = self.scheduler.gone(instance, self.now);
        self.check(&decisions);
    }

    fn check(&mut self, decisions: &[Decision]) {
        for decision in decisions {
            match *decision {
                Decision::Start { instance, job } => {
                    let f = self.function[&job];
                    let fresh = self
                        .holding
                        .insert(instance, (self.demands[f].memory_mb, f));
                    assert!(fresh.is_none(), "{instance:?} started twice");
                    self.place(instance, job);
                }
                Decision::Assign { instance, job } => {
                    assert!(
                        !self.no_more.contains(&instance),
                        "{instance:?} takes no more"
                    );
                    assert!(
                        !self.ending.contains(&instance),
                        "{instance:?} is told to end"
                    );
                    self.place(instance, job);
                }
                Decision::Destroy { instance } => {
                    let busy = self.running.values().any(|i| *i == instance);
                    assert!(!busy, "{instance:?} has a job");
                    assert!(self.ending.insert(instance), "{instance:?} destroyed twice");
                }
            }
        }
        let held: u64 = self.holding.values().map(|(mb, _)| mb).sum();
        assert!(held <= BOUNDS.capacity_mb, "{held} MB held");
        assert_eq!(self.scheduler.used_mb(), held);
        assert_eq!(self.scheduler.waiting(), self.waiting.len());
        let busy: BTreeSet<_> = self.running.values().collect();
        let busy_mb: u64 = busy
            .iter()
            .filter_map(|i| self.holding.get(i))
            .map(|(mb, _)| mb)
            .sum();
        assert_eq!(self.scheduler.busy_mb(), busy_mb);
        let total = self.waiting.len() + self.running.len() + self.done.len();
        assert_eq!(total, self.function.len(), "a job is lost");
    }

    fn place(&mut self, instance: InstanceId, job: JobId) {
        let f = self.function[&job];
        assert_eq!(
            self.holding[&instance].1, f,
            "a job in another function's instance"
        );
        let earlier = self
            .waiting
            .iter()
            .find(|j| **j < job && self.function[*j] == f);
        assert_eq!(
            earlier, None,
            "{job:?} overtook an earlier one of its function"
        );
        assert!(self.waiting.remove(&job), "{job:?} was not waiting");
        self.running.insert(job, instance);
        let inside = self.running.values().filter(|i| **i == instance).count();
        let most = usize::try_from(self.demands[f].concurrency).unwrap();
        assert!(inside <= most, "{inside} jobs in {instance:?}");
    }

    /// Everything ends; nobody may be left waiting.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            if self.waiting.is_empty() && self.running.is_empty() {
                return;
            }
            if let Some((job, instance)) = self.running.iter().next().map(|(j, i)| (*j, *i)) {
                self.finish(job, instance, true);
            } else if let Some(instance) = self.ending.iter().next().copied() {
                self.vanish(instance);
            } else {
                panic!(
                    "{} jobs wait though nothing runs or ends",
                    self.waiting.len()
                );
            }
        }
        panic!("the work does not end");
    }
}

proptest! {
    #[test]
    fn bounds_order_and_every_job_survive_any_sequence_of_events(
        events in prop::collection::vec(event(), 1..120)
    ) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        world.drain();
        prop_assert_eq!(world.done.len(), world.function.len());
    }
}
