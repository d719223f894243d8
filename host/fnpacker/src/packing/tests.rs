//! Packing in virtual time: the published algorithm's consequences, and the books' invariants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn published() -> Box<dyn Policy> {
    Box::new(Published::new(Search::FirstFit, WhenBusy::Wait))
}

fn affinity() -> Box<dyn Policy> {
    Box::new(Published::new(Search::Affinity, WhenBusy::Wait))
}

fn user(id: u8) -> PrincipalId {
    PrincipalId::new([id; 32])
}

fn served(instance: &str, start: StartKind, duration: Duration) -> Report {
    Report {
        outcome: Outcome::Served,
        duration,
        instance: Some(instance.parse().unwrap()),
        start: Some(start),
        spent: Spent {
            exec: duration,
            ..Spent::default()
        },
    }
}

/// Whose the models of random drivers are, and what company they keep: of m0 to m8 the first four
/// are shared, two owners have one and two for themselves, and two are alone.
fn household(model: &ModelId) -> (Option<PrincipalId>, Company) {
    match model.as_str() {
        "m4" | "m5" => (Some(user(101)), Company::SameOwner),
        "m6" => (Some(user(102)), Company::SameOwner),
        "m7" => (Some(user(101)), Company::Alone),
        // Nobody said whose it is, so there is nobody to share with.
        "m8" => (None, Company::SameOwner),
        _ => (Some(user(103)), Company::Shared),
    }
}

/// Drives one packing by hand, and keeps what it was told to do.
struct Driver {
    packing: Packing,
    out: Vec<Action>,
}

impl Driver {
    fn new(policy: Box<dyn Policy>, endpoints: usize) -> Self {
        Self::bounded(policy, endpoints, Limits::default())
    }

    fn bounded(policy: Box<dyn Policy>, endpoints: usize, limits: Limits) -> Self {
        Self {
            packing: Packing::new(policy, endpoints, limits),
            out: Vec::new(),
        }
    }

    fn arrive_as(
        &mut self,
        now: Duration,
        model: &str,
        by: u8,
        deadline: Option<Duration>,
    ) -> Ticket {
        let model: ModelId = model.parse().unwrap();
        let (owner, company) = household(&model);
        let arrival = Arrival {
            model: &model,
            user: user(by),
            owner,
            company,
            bytes: 1,
            deadline,
        };
        self.packing.arrive(now, &arrival, &mut self.out)
    }

    fn arrive(&mut self, now: Duration, model: &str) -> Ticket {
        self.arrive_as(now, model, 0, None)
    }

    /// Ends a request that ran for `duration` until now.
    fn end(&mut self, now: Duration, ticket: Ticket, duration: Duration) {
        let report = served("i", StartKind::Hot, duration);
        assert!(self.packing.finish(now, ticket, &report, &mut self.out));
    }

    fn end_badly(&mut self, now: Duration, ticket: Ticket, outcome: Outcome) {
        assert!(
            self.packing
                .finish(now, ticket, &Report::bare(outcome), &mut self.out)
        );
    }

    /// Where a request went; panics if it went nowhere.
    fn at(&self, ticket: Ticket) -> u32 {
        self.placed(ticket).expect("dispatched")
    }

    fn placed(&self, ticket: Ticket) -> Option<u32> {
        self.out.iter().find_map(|action| match action {
            Action::Dispatch {
                ticket: t,
                endpoint,
                ..
            } if *t == ticket => Some(endpoint.0),
            _ => None,
        })
    }

    fn rejected(&self, ticket: Ticket) -> Option<Rejection> {
        self.out.iter().find_map(|action| match action {
            Action::Reject {
                ticket: t,
                rejection,
            } if *t == ticket => Some(*rejection),
            _ => None,
        })
    }

    /// Sends one request and ends it: where did it go?
    fn once(&mut self, now: Duration, model: &str, duration: Duration) -> u32 {
        let ticket = self.arrive(now, model);
        let at = self.at(ticket);
        self.end(now + duration, ticket, duration);
        at
    }
}

// The consequences (1) to (4) of the published algorithm.

#[test]
fn published_1_sequential_requests_all_use_function_0() {
    let mut driver = Driver::new(published(), 5);
    for (i, model) in ["a", "b", "a", "c", "b", "a"].into_iter().enumerate() {
        let now = ms(1000 * i as u64);
        assert_eq!(driver.once(now, model, ms(100)), 0, "{model} at {now:?}");
    }
}

#[test]
fn published_2_a_claim_needs_two_overlapping_requests() {
    let mut driver = Driver::new(published(), 5);
    // One request only: no claim, and another model takes the function right away.
    assert_eq!(driver.once(ms(0), "a", ms(100)), 0);
    assert_eq!(driver.once(ms(101), "b", ms(100)), 0);
    // Two at once: a claim, which keeps others out for twice the last execution time.
    let (first, second) = (driver.arrive(ms(300), "a"), driver.arrive(ms(310), "a"));
    assert_eq!(
        (driver.at(first), driver.at(second)),
        (0, 0),
        "sticks to its function"
    );
    driver.end(ms(400), first, ms(100));
    driver.end(ms(410), second, ms(100));
    assert_eq!(driver.once(ms(420), "b", ms(10)), 1, "claimed by a");
    assert_eq!(driver.once(ms(590), "b", ms(1)), 1, "still claimed");
    assert_eq!(driver.once(ms(700), "b", ms(1)), 0, "the claim lapsed");
}

#[test]
fn published_overlapping_ends_do_not_renew_a_claim() {
    let mut driver = Driver::new(published(), 2);
    let (first, second) = (driver.arrive(ms(0), "a"), driver.arrive(ms(0), "a"));
    driver.end(ms(100), first, ms(100));
    // It ends at 150 but began before 100: the last end stays 100, the last execution is 150.
    driver.end(ms(150), second, ms(150));
    assert_eq!(driver.once(ms(399), "b", ms(1)), 1);
    assert_eq!(driver.once(ms(400), "b", ms(1)), 0);
}

#[test]
fn published_3_models_never_share_a_function_at_one_time() {
    let mut driver = Driver::new(published(), 3);
    let tickets: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|m| driver.arrive(ms(0), m))
        .collect();
    let at: Vec<_> = tickets.iter().map(|t| driver.at(*t)).collect();
    assert_eq!(at, [0, 1, 2]);
}

#[test]
fn published_4_all_busy_waits_and_the_strict_variant_fails() {
    let mut driver = Driver::new(published(), 2);
    let (a, b) = (driver.arrive(ms(0), "a"), driver.arrive(ms(0), "b"));
    let c = driver.arrive(ms(1), "c");
    assert_eq!(
        (driver.placed(c), driver.rejected(c)),
        (None, None),
        "waits"
    );
    driver.end(ms(50), b, ms(50));
    assert_eq!(driver.at(c), 1);
    driver.end(ms(60), a, ms(60));

    let strict = Box::new(Published::new(Search::FirstFit, WhenBusy::Refuse));
    let mut driver = Driver::new(strict, 2);
    driver.arrive(ms(0), "a");
    driver.arrive(ms(0), "b");
    let c = driver.arrive(ms(1), "c");
    assert_eq!(
        driver.rejected(c),
        Some(Rejection::Shed {
            retry_after: ms(100)
        })
    );
}

// What the published code gets wrong.

#[test]
fn a_failure_releases_as_a_success_does() {
    for outcome in [
        Outcome::InstanceFailed,
        Outcome::Unreached,
        Outcome::Abandoned,
    ] {
        let mut driver = Driver::new(published(), 1);
        let a = driver.arrive(ms(0), "a");
        let b = driver.arrive(ms(0), "b");
        assert_eq!(driver.placed(b), None);
        driver.end_badly(ms(10), a, outcome);
        assert_eq!(driver.at(b), 0, "{outcome:?}");
        driver.end_badly(ms(20), b, outcome);
        assert_eq!(driver.packing.fleet().in_flight(), 0);
        assert_eq!(driver.once(ms(30), "c", ms(1)), 0, "{outcome:?}");
    }
}

#[test]
fn the_pool_has_the_size_that_was_asked_for() {
    let mut driver = Driver::new(published(), 7);
    let at: BTreeSet<_> = (0..7)
        .map(|i| {
            let ticket = driver.arrive(ms(0), &format!("m{i}"));
            driver.at(ticket)
        })
        .collect();
    assert_eq!(at.len(), 7);
}

#[test]
fn a_claim_that_lapses_wakes_who_waits_for_it() {
    let mut driver = Driver::new(published(), 1);
    let (first, second) = (driver.arrive(ms(0), "a"), driver.arrive(ms(0), "a"));
    driver.end(ms(100), first, ms(100));
    driver.end(ms(100), second, ms(100));
    let b = driver.arrive(ms(110), "b");
    assert_eq!(driver.placed(b), None, "claimed until 300 ms");
    assert_eq!(driver.packing.next_wake(), Some(ms(300)));
    driver.packing.wake(ms(299), &mut driver.out);
    assert_eq!(driver.placed(b), None);
    driver.packing.wake(ms(300), &mut driver.out);
    assert_eq!(driver.at(b), 0);
    assert_eq!(driver.packing.next_wake(), None);
}

#[test]
fn affinity_goes_home_then_to_the_function_unused_longest() {
    let mut driver = Driver::new(affinity(), 2);
    assert_eq!(driver.once(ms(0), "a", ms(10)), 0);
    assert_eq!(driver.once(ms(100), "b", ms(10)), 1);
    assert_eq!(driver.once(ms(200), "b", ms(10)), 1);
    assert_eq!(driver.once(ms(300), "a", ms(10)), 0);
    assert_eq!(
        driver.once(ms(400), "c", ms(10)),
        1,
        "a used 0 after b used 1"
    );
}

#[test]
fn one_to_one_keeps_models_apart_and_takes_over_the_idlest_when_there_are_too_many() {
    let mut driver = Driver::new(Box::new(OneToOne::default()), 2);
    let (a1, a2, b) = (
        driver.arrive(ms(0), "a"),
        driver.arrive(ms(0), "a"),
        driver.arrive(ms(0), "b"),
    );
    assert_eq!((driver.at(a1), driver.at(a2), driver.at(b)), (0, 0, 1));
    let c = driver.arrive(ms(1), "c");
    assert_eq!(driver.placed(c), None, "both are busy");
    driver.end(ms(5), a1, ms(5));
    assert_eq!(driver.placed(c), None, "a has another one in flight");
    driver.end(ms(6), b, ms(5));
    assert_eq!(driver.at(c), 1);
    driver.end(ms(7), a2, ms(5));
    driver.end(ms(8), c, ms(1));
    assert_eq!(driver.once(ms(10), "c", ms(1)), 1);
    assert_eq!(driver.once(ms(20), "a", ms(1)), 0);
    assert_eq!(
        driver.once(ms(30), "b", ms(1)),
        1,
        "c's function is the idlest"
    );
    assert_eq!(driver.once(ms(40), "c", ms(1)), 0, "now a's is");
}

// The books: queue, deadlines, users, bounds.

#[test]
fn the_queue_is_bounded_and_says_when_to_come_back() {
    let limits = Limits {
        queue: 2,
        ..Limits::default()
    };
    let mut driver = Driver::bounded(published(), 1, limits);
    assert_eq!(driver.once(ms(0), "a", ms(400)), 0);
    driver.arrive(ms(500), "a");
    driver.arrive(ms(500), "b");
    driver.arrive(ms(500), "c");
    let refused = driver.arrive(ms(500), "d");
    // Three times the mean execution of 400 ms on one endpoint with one slot.
    let expected = Rejection::QueueFull {
        retry_after: ms(1200),
    };
    assert_eq!(driver.rejected(refused), Some(expected));
    assert_eq!(driver.packing.queued(), 2);
}

#[test]
fn in_flight_is_bounded_whatever_the_policy_says() {
    let limits = Limits {
        in_flight: 2,
        ..Limits::default()
    };
    let mut driver = Driver::bounded(Box::new(AllInOne), 1, limits);
    let tickets: Vec<_> = (0..3).map(|_| driver.arrive(ms(0), "a")).collect();
    assert_eq!(driver.placed(tickets[2]), None);
    driver.end(ms(1), tickets[0], ms(1));
    assert_eq!(driver.at(tickets[2]), 0);
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_at_once_or_when_it_is_clear() {
    let mut driver = Driver::new(published(), 1);
    let past = driver.arrive_as(ms(10), "a", 0, Some(ms(10)));
    assert_eq!(driver.rejected(past), Some(Rejection::Deadline));
    assert_eq!(driver.once(ms(20), "a", ms(100)), 0);
    let hopeless = driver.arrive_as(ms(200), "a", 0, Some(ms(299)));
    assert_eq!(
        driver.rejected(hopeless),
        Some(Rejection::Deadline),
        "it never took under 100 ms"
    );

    driver.arrive(ms(300), "b");
    let tight = driver.arrive_as(ms(300), "a", 0, Some(ms(450)));
    let loose = driver.arrive_as(ms(300), "a", 0, Some(ms(900)));
    assert_eq!(driver.packing.next_wake(), Some(ms(350)));
    driver.packing.wake(ms(350), &mut driver.out);
    assert_eq!(driver.rejected(tight), Some(Rejection::Deadline));
    assert_eq!(driver.rejected(loose), None);
    assert!(driver.packing.is_waiting(loose));
}

#[test]
fn one_flooding_user_delays_another_by_one_request_each() {
    let mut driver = Driver::new(published(), 1);
    let mut running = driver.arrive_as(ms(0), "x", 9, None);
    let flood: Vec<_> = (0..20)
        .map(|i| driver.arrive_as(ms(1), &format!("f{i}"), 1, None))
        .collect();
    let late = driver.arrive_as(ms(2), "late", 2, None);
    let mut order = Vec::new();
    for i in 3..10 {
        driver.end_badly(ms(i), running, Outcome::Unreached);
        running = *flood
            .iter()
            .chain([&late])
            .find(|t| driver.placed(**t).is_some() && !order.contains(*t))
            .unwrap();
        order.push(running);
    }
    assert!(order[..2].contains(&late), "{order:?}");
    assert_eq!(order[2..], flood[1..6], "first in, first out for one user");
}

#[test]
fn one_user_may_not_fill_the_queue() {
    let limits = Limits {
        queue: 10,
        queue_per_user: 3,
        ..Limits::default()
    };
    let mut driver = Driver::bounded(published(), 1, limits);
    driver.arrive(ms(0), "x");
    for i in 0..3 {
        let ticket = driver.arrive_as(ms(1), &format!("f{i}"), 1, None);
        assert_eq!(driver.rejected(ticket), None);
    }
    let refused = driver.arrive_as(ms(1), "f4", 1, None);
    assert!(matches!(
        driver.rejected(refused),
        Some(Rejection::UserQueueFull { .. })
    ));
    let other = driver.arrive_as(ms(1), "g", 2, None);
    assert_eq!(driver.rejected(other), None);
}

#[test]
fn who_withdraws_is_not_served_and_what_was_not_dispatched_cannot_end() {
    let mut driver = Driver::new(published(), 1);
    let a = driver.arrive(ms(0), "a");
    let b = driver.arrive(ms(0), "b");
    assert!(!driver.packing.withdraw(ms(1), a), "in flight");
    assert!(driver.packing.withdraw(ms(1), b));
    assert!(!driver.packing.withdraw(ms(1), b), "once only");
    let ghost = Report::bare(Outcome::Served);
    assert!(!driver.packing.finish(ms(1), b, &ghost, &mut driver.out));
    driver.end(ms(2), a, ms(2));
    assert!(
        !driver.packing.finish(ms(2), a, &ghost, &mut driver.out),
        "once only"
    );
    assert_eq!(driver.placed(b), None);
}

#[test]
fn an_endpoint_that_is_not_ready_gets_nothing() {
    let mut driver = Driver::new(published(), 2);
    driver
        .packing
        .set_ready(ms(0), EndpointId(0), false, &mut driver.out);
    let a = driver.arrive(ms(0), "a");
    assert_eq!(driver.at(a), 1);
    driver
        .packing
        .set_ready(ms(0), EndpointId(1), false, &mut driver.out);
    let (again, b) = (driver.arrive(ms(1), "a"), driver.arrive(ms(1), "b"));
    assert_eq!((driver.placed(again), driver.placed(b)), (None, None));
    driver
        .packing
        .set_ready(ms(2), EndpointId(0), true, &mut driver.out);
    assert_eq!(
        driver.placed(again),
        None,
        "the model is bound to the other one"
    );
    assert_eq!(driver.at(b), 0);
}

#[test]
fn residency_and_kinds_follow_what_instances_tell() {
    let limits = Limits {
        models_per_instance: 2,
        keep_alive: ms(1000),
        ..Limits::default()
    };
    let mut driver = Driver::bounded(published(), 1, limits);
    let names = |driver: &Driver| -> Vec<(String, Vec<String>)> {
        let fleet = driver.packing.fleet();
        fleet
            .endpoint(EndpointId(0))
            .unwrap()
            .instances
            .iter()
            .map(|i| {
                let model = |m: &ModelKey| driver.packing.model_name(*m).unwrap().to_string();
                (i.id.to_string(), i.resident.iter().map(model).collect())
            })
            .collect()
    };
    for (at, model, start) in [
        (0, "a", StartKind::Cold),
        (10, "b", StartKind::Warm),
        (20, "a", StartKind::Hot),
        (30, "c", StartKind::Warm),
    ] {
        let ticket = driver.arrive(ms(at), model);
        let report = served("one", start, ms(1));
        driver
            .packing
            .finish(ms(at + 1), ticket, &report, &mut driver.out);
    }
    assert_eq!(
        names(&driver),
        [("one".into(), vec!["c".into(), "a".into()])]
    );
    let counts = driver
        .packing
        .fleet()
        .endpoint(EndpointId(0))
        .unwrap()
        .counts;
    assert_eq!((counts.cold, counts.warm, counts.hot), (1, 2, 1));
    let ticket = driver.arrive(ms(50), "a");
    driver.end_badly(ms(60), ticket, Outcome::InstanceFailed);
    assert_eq!(names(&driver).len(), 0, "nothing survives a failure");
    driver.once(ms(70), "a", ms(1));
    driver.packing.wake(ms(1071), &mut driver.out);
    assert_eq!(names(&driver).len(), 1);
    driver.packing.wake(ms(1072), &mut driver.out);
    assert_eq!(names(&driver).len(), 0, "let go for idleness");
}

#[test]
fn telemetry_tells_what_time_was_spent_on() {
    let mut telemetry = Telemetry {
        instance: "i".parse().unwrap(),
        seq: 1,
        path: StartKind::Cold,
        phases_us: protocol::invoke::Phases {
            attest: 1,
            keys: 20,
            fetch: 300,
            open: 4000,
            load: 50_000,
            run: 600_000,
            seal: 7_000_000,
        },
    };
    let us = Duration::from_micros;
    let spent = Spent::from_telemetry(&telemetry, us(10));
    assert_eq!(
        spent,
        Spent {
            start: us(11),
            switch: us(54_320),
            exec: us(7_600_000)
        }
    );
    telemetry.path = StartKind::Hot;
    let spent = Spent::from_telemetry(&telemetry, us(0));
    assert_eq!(spent.exec, us(7_604_300), "what was fetched is the request");
    assert_eq!(spent.switch, us(50_020));
    telemetry.phases_us.run = u64::MAX;
    let spent = Spent::from_telemetry(&telemetry, us(0));
    assert_eq!(spent.exec, us(u64::MAX), "a lie does not overflow");
}

/// What a random driver does next.
#[derive(Debug, Clone)]
enum Step {
    Arrive {
        model: u8,
        user: u8,
        deadline: Option<u16>,
    },
    Finish {
        which: usize,
        outcome: u8,
        duration: u16,
    },
    Withdraw {
        which: usize,
    },
    Pass {
        ms: u16,
    },
    Ready {
        endpoint: u8,
        ready: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..9_u8, 0..4_u8, proptest::option::of(0..2000_u16))
            .prop_map(|(model, user, deadline)| Step::Arrive { model, user, deadline }),
        4 => (any::<usize>(), 0..5_u8, 0..1000_u16)
            .prop_map(|(which, outcome, duration)| Step::Finish { which, outcome, duration }),
        1 => any::<usize>().prop_map(|which| Step::Withdraw { which }),
        2 => (0..500_u16).prop_map(|ms| Step::Pass { ms }),
        1 => (0..4_u8, any::<bool>()).prop_map(|(endpoint, ready)| Step::Ready { endpoint, ready }),
    ]
}

fn policies() -> Vec<Box<dyn Policy>> {
    vec![
        published(),
        affinity(),
        Box::new(Published::new(Search::FirstFit, WhenBusy::Refuse)),
        Box::new(OneToOne::default()),
        Box::new(AllInOne),
        Box::new(ChBl::default()),
        Box::new(EctG::default()),
        // Memory is cheap, at a price, and dear.
        Box::new(EctP::new(0.002)),
        Box::new(EctP::new(0.01)),
        Box::new(EctP::new(10.0)),
    ]
}

/// What a policy promises beyond the books.
#[derive(Clone, Copy)]
struct Rules {
    /// Never two models on an endpoint at one time.
    apart: bool,
    /// Never more requests on an endpoint than one instance takes (here one).
    single: bool,
}

/// The plain model that a packing is held against.
#[derive(Default)]
struct Books {
    waiting: BTreeMap<Ticket, (u8, Option<Duration>)>,
    flying: VecDeque<(Ticket, u8, u32)>,
    starting: VecDeque<(Ticket, u32)>,
    ended: BTreeSet<Ticket>,
    /// The models that the instances of an endpoint served, since they were let go.
    tenants: BTreeMap<u32, BTreeSet<u8>>,
    retiring: VecDeque<u32>,
}

impl Books {
    fn take(&mut self, now: Duration, out: &mut Vec<Action>, ready: &[bool], rules: Rules) {
        for action in out.drain(..) {
            match action {
                Action::Dispatch {
                    ticket, endpoint, ..
                } => {
                    let (model, deadline) = self.waiting.remove(&ticket).expect("waited");
                    assert!(
                        deadline.is_none_or(|at| at > now),
                        "dispatched after its deadline"
                    );
                    assert!(ready[endpoint.index()], "dispatched to what is not ready");
                    if rules.single {
                        let free = self.flying.iter().all(|(_, _, at)| *at != endpoint.0);
                        assert!(free, "more than one instance holds");
                    }
                    if rules.apart {
                        for (_, other, at) in &self.flying {
                            assert!(*at != endpoint.0 || *other == model, "two models at once");
                        }
                    }
                    assert!(
                        !self.retiring.contains(&endpoint.0),
                        "dispatched to what is to go"
                    );
                    let tenants = self.tenants.entry(endpoint.0).or_default();
                    tenants.insert(model);
                    assert!(may_live_together(tenants), "{tenants:?} in one instance");
                    self.flying.push_back((ticket, model, endpoint.0));
                }
                Action::Reject { ticket, .. } => {
                    self.waiting.remove(&ticket).expect("waited");
                    assert!(self.ended.insert(ticket));
                }
                Action::Start { ticket, endpoint } => {
                    assert!(
                        !self.retiring.contains(&endpoint.0),
                        "started what is to go"
                    );
                    self.starting.push_back((ticket, endpoint.0));
                }
                Action::Retire { endpoint } => {
                    let busy = |at: &u32| *at == endpoint.0;
                    assert!(!self.flying.iter().any(|(_, _, at)| busy(at)), "it is busy");
                    assert!(!self.starting.iter().any(|(_, at)| busy(at)), "it starts");
                    self.retiring.push_back(endpoint.0);
                }
            }
        }
    }
}

/// What the models' owners want, said plainly, for each pair.
fn may_live_together(models: &BTreeSet<u8>) -> bool {
    let of = |model: &u8| household(&format!("m{model}").parse().unwrap());
    models.iter().all(|a| {
        models
            .iter()
            .filter(|b| *b != a)
            .all(|b| match (of(a), of(b)) {
                ((_, Company::Shared), (_, Company::Shared)) => true,
                ((Some(a), Company::SameOwner), (Some(b), Company::SameOwner)) => a == b,
                _ => false,
            })
    })
}

/// The driver lets the instance go that it was told to first, or fails to.
fn retire_one(driver: &mut Driver, books: &mut Books, now: Duration, gone: bool) -> bool {
    let Some(at) = books.retiring.pop_front() else {
        return false;
    };
    if gone {
        books.tenants.remove(&at);
    }
    driver
        .packing
        .retired(now, EndpointId(at), gone, &mut driver.out);
    true
}

fn run(policy: Box<dyn Policy>, steps: &[Step]) {
    let limits = Limits {
        queue: 12,
        queue_per_user: 5,
        in_flight: 8,
        models: 64,
        keep_alive: ms(20_000),
        ..Limits::default()
    };
    let name = policy.name();
    let rules = Rules {
        apart: ["published", "published-strict", "affinity"].contains(&name),
        single: ["ch-bl", "ect-g", "ect-p"].contains(&name),
    };
    let mut driver = Driver::bounded(policy, 4, limits);
    let (mut now, mut ready, mut books) = (Duration::ZERO, [true; 4], Books::default());
    for step in steps {
        match step {
            Step::Arrive {
                model,
                user,
                deadline,
            } => {
                let deadline = deadline.map(|d| now + ms(d.into()));
                let ticket = driver.arrive_as(now, &format!("m{model}"), *user, deadline);
                books.waiting.insert(ticket, (*model, deadline));
            }
            Step::Finish {
                which,
                outcome,
                duration,
            } => {
                end_one(&mut driver, &mut books, now, *which, *outcome, *duration);
            }
            Step::Withdraw { which } => {
                let Some(ticket) = books
                    .waiting
                    .keys()
                    .nth(which % (books.waiting.len().max(1)))
                else {
                    continue;
                };
                let ticket = *ticket;
                assert!(driver.packing.withdraw(now, ticket));
                books.waiting.remove(&ticket);
                books.ended.insert(ticket);
            }
            Step::Pass { ms: by } => {
                now += ms((*by).into());
                driver.packing.wake(now, &mut driver.out);
            }
            Step::Ready {
                endpoint,
                ready: is,
            } => {
                ready[usize::from(*endpoint)] = *is;
                driver
                    .packing
                    .set_ready(now, EndpointId((*endpoint).into()), *is, &mut driver.out);
            }
        }
        books.take(now, &mut driver.out, &ready, rules);
        check(&driver.packing, &books, &limits, name);
    }
    drain(&mut driver, books, now, rules);
}

/// Ends the oldest start, and one of the requests in flight.
fn end_one(
    driver: &mut Driver,
    books: &mut Books,
    now: Duration,
    which: usize,
    outcome: u8,
    duration: u16,
) {
    if let Some((ticket, _)) = books.starting.pop_front() {
        let report = served("i", StartKind::Cold, ms(1));
        assert!(driver.packing.finish(now, ticket, &report, &mut driver.out));
    }
    if retire_one(driver, books, now, !duration.is_multiple_of(4)) {
        return;
    }
    let Some((ticket, ..)) = books.flying.remove(which % books.flying.len().max(1)) else {
        return;
    };
    let outcome = [
        Outcome::Served,
        Outcome::Refused,
        Outcome::InstanceFailed,
        Outcome::Unreached,
        Outcome::Abandoned,
    ][usize::from(outcome)];
    let report = Report {
        outcome,
        ..served("i", StartKind::Warm, ms(duration.into()))
    };
    assert!(driver.packing.finish(now, ticket, &report, &mut driver.out));
    books.ended.insert(ticket);
}

fn check(packing: &Packing, books: &Books, limits: &Limits, policy: &str) {
    assert_eq!(
        packing.queued(),
        books.waiting.len(),
        "{policy}: lost from the queue"
    );
    assert!(packing.queued() <= limits.queue);
    assert_eq!(
        packing.fleet().in_flight() as usize,
        books.flying.len(),
        "{policy}: lost in flight"
    );
    assert!(packing.fleet().in_flight() <= limits.in_flight);
    for (id, endpoint) in packing.fleet().iter() {
        let here = books.flying.iter().filter(|(_, _, at)| *at == id.0).count();
        assert_eq!(endpoint.in_flight as usize, here);
    }
    check_index(packing.fleet());
}

/// The index says what a look at every endpoint says.
fn check_index(fleet: &Fleet) {
    let index = fleet.index();
    let (mut fresh, mut idle, mut busy) = (vec![], vec![], vec![]);
    let mut held: BTreeMap<ModelKey, Vec<EndpointId>> = BTreeMap::new();
    for (id, endpoint) in fleet.iter() {
        if endpoint.in_flight > 0 || endpoint.starting > 0 {
            busy.push(id);
        } else if endpoint.instances.is_empty() {
            fresh.push(id);
        } else {
            idle.push((endpoint.last_use.unwrap(), id));
        }
        for model in endpoint.instances.iter().flat_map(|one| &one.resident) {
            held.entry(*model).or_default().push(id);
        }
    }
    idle.sort_unstable();
    assert_eq!(index.fresh().collect::<Vec<_>>(), fresh);
    assert_eq!(index.busy().collect::<Vec<_>>(), busy);
    assert!(index.idle().eq(idle.iter().map(|(_, id)| *id)));
    assert_eq!(index.live(), idle.len() + busy.len());
    for model in (0..64).map(ModelKey) {
        let mut holders = index.holders(model).to_vec();
        holders.sort_unstable();
        assert_eq!(holders, held.remove(&model).unwrap_or_default());
    }
}

/// Everybody who waits is served or given up once the world is well again.
fn drain(driver: &mut Driver, mut books: Books, mut now: Duration, rules: Rules) {
    for endpoint in 0..4 {
        driver
            .packing
            .set_ready(now, EndpointId(endpoint), true, &mut driver.out);
    }
    for _ in 0..2000 {
        books.take(now, &mut driver.out, &[true; 4], rules);
        if retire_one(driver, &mut books, now, true) {
            continue;
        }
        let started = books.starting.pop_front().map(|(ticket, _)| ticket);
        let next = started.or_else(|| books.flying.pop_front().map(|(ticket, ..)| ticket));
        if let Some(ticket) = next {
            let report = served("i", StartKind::Hot, ms(1));
            assert!(driver.packing.finish(now, ticket, &report, &mut driver.out));
        } else if let Some(at) = driver.packing.next_wake() {
            now = now.max(at);
            driver.packing.wake(now, &mut driver.out);
        } else {
            break;
        }
    }
    assert_eq!(books.waiting.len(), 0, "somebody waits for ever");
    for endpoint in driver.packing.fleet().iter().map(|(_, endpoint)| endpoint) {
        assert!(endpoint.is_idle(), "{endpoint:?}");
    }
    assert_eq!(driver.packing.next_wake(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_request_is_lost_and_every_bound_holds(steps in prop::collection::vec(step(), 0..120)) {
        for policy in policies() {
            run(policy, &steps);
        }
    }

    /// A function that is claimed goes to no other model while its owner was active lately.
    #[test]
    fn published_claims_are_honoured(steps in prop::collection::vec(step(), 0..120)) {
        let mut driver = Driver::new(published(), 4);
        let mut now = Duration::ZERO;
        let mut flying: Vec<(Ticket, u8, u32)> = Vec::new();
        let mut claims: BTreeMap<u32, u8> = BTreeMap::new();
        // Per model: its latest end (overlapping ones apart) and execution time.
        let mut last: BTreeMap<u8, (Option<Duration>, Duration)> = BTreeMap::new();
        let mut asked: BTreeMap<Ticket, u8> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Arrive { model, user, .. } => {
                    let ticket = driver.arrive_as(now, &format!("m{model}"), user, None);
                    asked.insert(ticket, model);
                }
                Step::Finish { which, duration, .. } if !flying.is_empty() => {
                    let (ticket, model, _) = flying.remove(which % flying.len());
                    let duration = ms(duration.into());
                    let (end, exec) = last.entry(model).or_default();
                    if end.is_none_or(|end| now.saturating_sub(duration) > end) {
                        *end = Some(now);
                    }
                    *exec = duration;
                    driver.end(now, ticket, duration);
                }
                Step::Pass { ms: by } => now += ms(by.into()),
                _ => {}
            }
            for action in driver.out.drain(..) {
                let Action::Dispatch { ticket, endpoint, .. } = action else { continue };
                let model = asked[&ticket];
                if let Some(owner) = claims.get(&endpoint.0).filter(|owner| **owner != model) {
                    let (end, exec) = last[owner];
                    let lapse = end.unwrap_or_default() + exec * 2;
                    prop_assert!(now >= lapse, "the claim of m{owner} was broken at {now:?}");
                    prop_assert!(flying.iter().all(|(_, m, at)| m != owner || *at != endpoint.0));
                }
                flying.push((ticket, model, endpoint.0));
                match flying.iter().filter(|(_, m, _)| *m == model).count() {
                    1 => {
                        claims.remove(&endpoint.0);
                    }
                    2 => {
                        claims.insert(endpoint.0, model);
                    }
                    _ => {}
                }
            }
        }
    }
}

// Policies that steer instances.

fn steered(policy: Box<dyn Policy>, endpoints: usize) -> Driver {
    let limits = Limits {
        models_per_instance: 2,
        keep_alive: ms(60_000),
        ..Limits::default()
    };
    Driver::bounded(policy, endpoints, limits)
}

/// An answer of the instance behind `at`, as one that takes 100 ms hot, 300 ms more to switch and
/// 1 s more to start.
fn answered(at: u32, start: StartKind) -> Report {
    let spent = Spent {
        start: if start == StartKind::Cold {
            ms(1000)
        } else {
            ms(0)
        },
        switch: if start == StartKind::Hot {
            ms(0)
        } else {
            ms(300)
        },
        exec: ms(100),
    };
    Report {
        spent,
        ..served(&format!("i{at}"), start, ms(100))
    }
}

impl Driver {
    fn starts(&self) -> Vec<(Ticket, u32)> {
        let start = |action: &Action| match action {
            Action::Start { ticket, endpoint } => Some((*ticket, endpoint.0)),
            _ => None,
        };
        self.out.iter().filter_map(start).collect()
    }

    fn answer(&mut self, now: Duration, ticket: Ticket, start: StartKind) -> u32 {
        let at = self.at(ticket);
        assert!(
            self.packing
                .finish(now, ticket, &answered(at, start), &mut self.out)
        );
        at
    }
}

#[test]
fn ect_waits_for_a_resident_model_rather_than_start_an_instance() {
    let mut driver = steered(Box::new(EctG::default()), 4);
    let first = driver.arrive(ms(0), "a");
    assert_eq!(driver.answer(ms(1400), first, StartKind::Cold), 0);
    let running = driver.arrive(ms(2000), "a");
    let waiting = driver.arrive(ms(2010), "a");
    assert_eq!(driver.at(running), 0);
    assert_eq!(
        driver.placed(waiting),
        None,
        "90 ms of waiting is less than a start"
    );
    assert_eq!(
        driver
            .packing
            .fleet()
            .endpoint(EndpointId(0))
            .unwrap()
            .awaited,
        1
    );
    driver.answer(ms(2100), running, StartKind::Hot);
    assert_eq!(driver.at(waiting), 0);
    assert!(driver.starts().is_empty());
}

#[test]
fn ect_starts_a_spare_off_the_path_when_the_queue_is_longer_than_a_switch() {
    let mut driver = steered(Box::new(EctG::default()), 4);
    let first = driver.arrive(ms(0), "a");
    driver.answer(ms(1400), first, StartKind::Cold);
    let tickets: Vec<_> = (0..6).map(|_| driver.arrive(ms(2000), "a")).collect();
    let starts = driver.starts();
    assert_eq!(starts.len(), 1, "one at a time: {starts:?}");
    assert_ne!(starts[0].1, 0);
    assert!(
        tickets[1..]
            .iter()
            .all(|ticket| driver.placed(*ticket).is_none())
    );
    // The spare is there: the queue spreads.
    let report = Report {
        outcome: Outcome::Refused,
        ..answered(starts[0].1, StartKind::Cold)
    };
    driver
        .packing
        .finish(ms(2100), starts[0].0, &report, &mut driver.out);
    driver.answer(ms(2100), tickets[0], StartKind::Hot);
    let at: BTreeSet<_> = tickets
        .iter()
        .filter_map(|ticket| driver.placed(*ticket))
        .collect();
    assert!(at.contains(&0), "{at:?}");
}

#[test]
fn ect_throws_out_the_model_that_will_be_missed_least() {
    let mut driver = steered(Box::new(EctG::default()), 2);
    // Two instances with two models each: a and b often asked for, c and d once.
    let (a, c) = (driver.arrive(ms(0), "a"), driver.arrive(ms(0), "c"));
    driver.answer(ms(1400), a, StartKind::Cold);
    driver.answer(ms(1400), c, StartKind::Cold);
    let (at_a, at_c) = (driver.at(a), driver.at(c));
    assert_ne!(at_a, at_c);
    for i in 0..10 {
        let ticket = driver.arrive(ms(2000 + 200 * i), "a");
        assert_eq!(
            driver.answer(ms(2100 + 200 * i), ticket, StartKind::Hot),
            at_a
        );
    }
    let d = driver.arrive(ms(5000), "d");
    driver.answer(ms(5400), d, StartKind::Warm);
    let e = driver.arrive(ms(6000), "e");
    driver.answer(ms(6400), e, StartKind::Warm);
    let f = driver.arrive(ms(7000), "f");
    driver.answer(ms(7400), f, StartKind::Warm);
    let again = driver.arrive(ms(8000), "a");
    assert_eq!(driver.answer(ms(8100), again, StartKind::Hot), at_a);
    let holds = |at: u32, name: &str| {
        let fleet = driver.packing.fleet();
        let held: Vec<_> = fleet
            .instance(EndpointId(at))
            .into_iter()
            .flat_map(|instance| &instance.resident)
            .map(|key| driver.packing.model_name(*key).unwrap().to_string())
            .collect();
        held.iter().any(|held| held == name)
    };
    assert!(holds(at_a, "a"), "the busy model stays");
}

#[test]
fn hashing_finds_the_same_home_in_every_process() {
    let homes = |names: &[&str]| -> BTreeMap<String, u32> {
        let mut driver = steered(Box::new(ChBl::default()), 8);
        // Start all instances first, so that every home is live.
        for endpoint in 0..8 {
            let others = (0..8).filter(|other| *other != endpoint);
            for other in others.clone() {
                driver
                    .packing
                    .set_ready(ms(0), EndpointId(other), false, &mut driver.out);
            }
            let ticket = driver.arrive(ms(0), "warm-up");
            driver.answer(ms(1), ticket, StartKind::Hot);
            for other in others {
                driver
                    .packing
                    .set_ready(ms(1), EndpointId(other), true, &mut driver.out);
            }
        }
        let mut homes = BTreeMap::new();
        for name in names {
            let ticket = driver.arrive(ms(10), name);
            homes.insert(
                (*name).to_owned(),
                driver.answer(ms(10), ticket, StartKind::Warm),
            );
        }
        homes
    };
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut reversed = names;
    reversed.reverse();
    let there = homes(&names);
    assert_eq!(there, homes(&reversed), "whatever the order of arrival");
    let used: BTreeSet<_> = there.values().collect();
    assert!(used.len() >= 4, "{there:?}");
}

#[test]
fn hashing_walks_on_when_the_home_is_over_its_bound() {
    let mut driver = steered(Box::new(ChBl::default()), 2);
    let first = driver.arrive(ms(0), "a");
    let home = driver.answer(ms(1400), first, StartKind::Cold);
    let tickets: Vec<_> = (0..12).map(|_| driver.arrive(ms(2000), "a")).collect();
    let starts = driver.starts();
    assert_eq!(starts.len(), 1, "over every bound, the pool grows");
    assert_ne!(starts[0].1, home);
    let report = Report {
        outcome: Outcome::Refused,
        ..answered(starts[0].1, StartKind::Cold)
    };
    driver
        .packing
        .finish(ms(2050), starts[0].0, &report, &mut driver.out);
    let elsewhere = tickets
        .iter()
        .filter_map(|ticket| driver.placed(*ticket))
        .filter(|at| *at != home);
    assert!(elsewhere.count() > 0, "the next one on the ring helps");
}
