//! The broker against a small model of what it should do, and single decisions by name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use protocol::id::LeaseId;
use protocol::keyservice::{
    GrantTerms, PolicyText, RegisterModel, RegisterRequestKey, Release, ReleaseRequest, WireKey,
};
use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId};

use super::*;

const TTL_S: u32 = 300;
const NOW: Duration = Duration::from_secs(1_700_000_000);

fn principal(n: u8) -> PrincipalId {
    PrincipalId::new([n; 32])
}

fn who(n: u8) -> Principal {
    Principal::for_test(principal(n))
}

fn enclave(n: u8) -> EnclaveId {
    EnclaveId::new([0xe0 | n; 48])
}

fn instance(n: u8) -> Instance {
    Instance::for_test(enclave(n))
}

fn model(n: u8) -> ModelId {
    format!("model-{n}").parse().unwrap()
}

fn key(n: u8) -> WireKey {
    WireKey::new(&[n; 32])
}

fn registration(content: u8) -> RegisterModel {
    RegisterModel {
        digest: Digest::new([content; 32]),
        key: key(content),
    }
}

fn lease() -> LeaseId {
    LeaseId::new([7; 16])
}

fn empty(limits: Limits) -> Broker {
    Broker::restore(Head::EMPTY, [], TTL_S, limits).unwrap()
}

fn asked(m: u8, user: u8) -> ReleaseRequest {
    ReleaseRequest {
        model: model(m),
        user: principal(user),
    }
}

/// One call, with small numbers in place of ids so that calls meet each other.
#[derive(Debug, Clone)]
enum Call {
    Register {
        who: u8,
        model: u8,
        version: u32,
        content: u8,
    },
    Grant {
        who: u8,
        model: u8,
        user: u8,
        enclave: u8,
    },
    Revoke {
        who: u8,
        model: u8,
        user: u8,
        enclave: u8,
    },
    Key {
        who: u8,
        model: u8,
        enclave: u8,
        owner: u8,
        content: u8,
    },
    Drop {
        who: u8,
        model: u8,
        enclave: u8,
    },
    Release {
        enclave: u8,
        model: u8,
        user: u8,
    },
    /// The process dies and comes back with what is durable.
    Restart,
}

fn call() -> impl Strategy<Value = Call> {
    let (p, m, e, c) = (0..3u8, 0..2u8, 0..2u8, 0..2u8);
    prop_oneof![
        3 => (p.clone(), m.clone(), 0..4u32, c.clone())
            .prop_map(|(who, model, version, content)| Call::Register {
                who, model, version, content
            }),
        4 => (p.clone(), m.clone(), p.clone(), e.clone())
            .prop_map(|(who, model, user, enclave)| Call::Grant { who, model, user, enclave }),
        2 => (p.clone(), m.clone(), p.clone(), e.clone())
            .prop_map(|(who, model, user, enclave)| Call::Revoke { who, model, user, enclave }),
        4 => (p.clone(), m.clone(), e.clone(), p.clone(), c)
            .prop_map(|(who, model, enclave, owner, content)| Call::Key {
                who, model, enclave, owner, content
            }),
        1 => (p.clone(), m.clone(), e.clone())
            .prop_map(|(who, model, enclave)| Call::Drop { who, model, enclave }),
        6 => (e, m, p).prop_map(|(enclave, model, user)| Call::Release { enclave, model, user }),
        1 => Just(Call::Restart),
    ]
}

/// What should be true, said as plainly as possible.
#[derive(Debug, Default)]
struct Reference {
    owners: BTreeMap<u8, u8>,
    versions: BTreeMap<(u8, u32), u8>,
    grants: BTreeSet<(u8, u8, u8)>,
    keys: BTreeMap<(u8, u8, u8), (u8, u8)>,
    revocations: u64,
    releases: u64,
}

impl Reference {
    fn register(&mut self, who: u8, model: u8, version: u32, content: u8) -> bool {
        let newest = self.newest(model).map_or(0, |(version, _)| version);
        let mine = self.owners.get(&model).is_none_or(|owner| *owner == who);
        let same = self.versions.get(&(model, version)) == Some(&content);
        let accepted = mine && (same || version > newest);
        if accepted {
            self.owners.insert(model, who);
            self.versions.insert((model, version), content);
        }
        accepted
    }

    fn newest(&self, model: u8) -> Option<(u32, u8)> {
        let newest = self
            .versions
            .range((model, 0)..=(model, u32::MAX))
            .next_back();
        newest.map(|((_, version), content)| (*version, *content))
    }

    /// Version, model key content and request key content, if all consent is there.
    fn release(&self, enclave: u8, model: u8, user: u8) -> Option<(u32, u8, u8)> {
        let owner = self.owners.get(&model)?;
        let (version, content) = self.newest(model)?;
        let (named_owner, request_key) = self.keys.get(&(user, model, enclave))?;
        let consent = self.grants.contains(&(model, user, enclave)) && named_owner == owner;
        consent.then_some((version, content, *request_key))
    }
}

/// What a vault would hold, and the whole log.
#[derive(Debug, Default)]
struct Durable {
    rows: BTreeMap<RowKey, Row>,
    log: Vec<Entry>,
}

impl Durable {
    fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put(row) => drop(self.rows.insert(row.key(), row)),
                Write::Remove(key) => assert!(self.rows.remove(&key).is_some(), "{key:?}"),
                Write::Append(entry) => self.log.push(entry),
            }
        }
    }
}

struct Bench {
    broker: Broker,
    durable: Durable,
    reference: Reference,
}

impl Bench {
    fn new() -> Self {
        Self {
            broker: empty(Limits::default()),
            durable: Durable::default(),
            reference: Reference::default(),
        }
    }

    fn written<T>(&mut self, decided: Decided<T>) -> T {
        self.durable.write(decided.writes);
        decided.answer
    }

    fn call(&mut self, call: &Call) {
        match *call {
            Call::Register {
                who,
                model,
                version,
                content,
            } => {
                self.register(who, model, version, content);
            }
            Call::Grant {
                who,
                model,
                user,
                enclave,
            } => self.grant(who, model, user, enclave),
            Call::Revoke {
                who,
                model,
                user,
                enclave,
            } => self.revoke(who, model, user, enclave),
            Call::Key {
                who,
                model,
                enclave,
                owner,
                content,
            } => {
                self.register_key(who, model, enclave, owner, content);
            }
            Call::Drop {
                who,
                model,
                enclave,
            } => self.drop_key(who, model, enclave),
            Call::Release {
                enclave,
                model,
                user,
            } => self.release(enclave, model, user),
            Call::Restart => {
                let rows = self.durable.rows.values().cloned();
                let head = self.broker.head();
                self.broker = Broker::restore(head, rows, TTL_S, Limits::default()).unwrap();
            }
        }
    }

    fn register(&mut self, w: u8, m: u8, version: u32, content: u8) {
        let body = registration(content);
        let got = self
            .broker
            .register_model(&who(w), &model(m), ModelVersion(version), &body, NOW);
        let accepted = version > 0 && self.reference.register(w, m, version, content);
        assert_eq!(got.is_ok(), accepted, "{got:?}");
        if let Ok(decided) = got {
            assert_eq!(self.written(decided).owner, principal(w));
        }
    }

    fn grant(&mut self, w: u8, m: u8, user: u8, e: u8) {
        let got = self.broker.grant(
            &who(w),
            &model(m),
            principal(user),
            enclave(e),
            &GrantTerms::NONE,
            NOW,
        );
        let mine = self.reference.owners.get(&m) == Some(&w);
        assert_eq!(got.is_ok(), mine, "{got:?}");
        if let Ok(decided) = got {
            self.written(decided);
            self.reference.grants.insert((m, user, e));
        }
    }

    fn revoke(&mut self, w: u8, m: u8, user: u8, e: u8) {
        let got = self
            .broker
            .revoke(&who(w), &model(m), principal(user), enclave(e), NOW);
        let mine = self.reference.owners.get(&m) == Some(&w);
        assert_eq!(got.is_ok(), mine, "{got:?}");
        if let Ok(decided) = got {
            let removed = self.reference.grants.remove(&(m, user, e));
            let answer = self.written(decided);
            assert_eq!(answer.revoked, removed);
            assert_eq!(answer.effective_within_s, u64::from(TTL_S));
            self.reference.revocations += u64::from(removed);
        }
    }

    fn register_key(&mut self, w: u8, m: u8, e: u8, owner: u8, content: u8) {
        let body = RegisterRequestKey {
            owner: principal(owner),
            key: key(0x80 | content),
            policy: None,
        };
        let got = self
            .broker
            .register_request_key(&who(w), &model(m), enclave(e), &body, NOW);
        let held = self.reference.keys.get(&(w, m, e));
        let accepted = held.is_none_or(|held| *held == (owner, content));
        assert_eq!(got.is_ok(), accepted, "{got:?}");
        if let Ok(decided) = got {
            self.written(decided);
            self.reference.keys.insert((w, m, e), (owner, content));
        }
    }

    fn drop_key(&mut self, w: u8, m: u8, e: u8) {
        let decided = self
            .broker
            .drop_request_key(&who(w), &model(m), enclave(e), NOW);
        let removed = self.reference.keys.remove(&(w, m, e)).is_some();
        assert_eq!(self.written(decided).revoked, removed);
        self.reference.revocations += u64::from(removed);
    }

    fn release(&mut self, e: u8, m: u8, user: u8) {
        let got = self
            .broker
            .release(&instance(e), &asked(m, user), lease(), NOW);
        let expected = self.reference.release(e, m, user);
        assert_eq!(got.is_ok(), expected.is_some(), "{got:?}");
        let (Ok(decided), Some((version, content, request_key))) = (got, expected) else {
            return;
        };
        self.reference.releases += 1;
        let release: Release = self.written(decided);
        assert_eq!(
            (release.model, release.version),
            (model(m), ModelVersion(version))
        );
        assert_eq!(release.owner, principal(self.reference.owners[&m]));
        assert_eq!(release.digest, Digest::new([content; 32]));
        assert_eq!(release.model_key.bytes(), [content; 32]);
        assert_eq!(release.request_key.bytes(), [0x80 | request_key; 32]);
        assert_eq!(release.lease.ttl_s, u64::from(TTL_S));
        assert_eq!(release.lease.epoch, 1 + self.reference.revocations);
    }

    fn check(&self) {
        let rows =
            self.reference.versions.len() + self.reference.grants.len() + self.reference.keys.len();
        assert_eq!(self.broker.rows(), rows);
        assert_eq!(self.durable.rows.len(), rows);
        assert_eq!(self.broker.head().epoch, 1 + self.reference.revocations);
        let mut chain = Chain::EMPTY;
        for entry in &self.durable.log {
            chain = chain
                .follow(&entry.published)
                .unwrap_or_else(|| panic!("{entry:?}"));
        }
        assert_eq!(chain, self.broker.head().chain);
        let released = |entry: &&Entry| entry.published.event == "released";
        assert_eq!(
            u64::try_from(self.durable.log.iter().filter(released).count()).unwrap(),
            self.reference.releases
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// No release ever without a live grant, the same E_S, and a live request key that names the
    /// right owner; and all other answers as the reference has them, over restarts.
    #[test]
    fn no_release_without_consent(calls in prop::collection::vec(call(), 0..80)) {
        let mut bench = Bench::new();
        for call in &calls {
            bench.call(call);
        }
        bench.check();
    }
}

/// A model that user 2 may use in enclave 1, with a request key.
fn consented() -> Bench {
    let mut bench = Bench::new();
    bench.call(&Call::Register {
        who: 1,
        model: 0,
        version: 1,
        content: 1,
    });
    bench.call(&Call::Grant {
        who: 1,
        model: 0,
        user: 2,
        enclave: 1,
    });
    bench.call(&Call::Key {
        who: 2,
        model: 0,
        enclave: 1,
        owner: 1,
        content: 1,
    });
    bench
}

#[test]
fn each_missing_consent_has_its_own_reason() {
    let refusal = |bench: &mut Bench, e: u8, m: u8, user: u8| {
        bench
            .broker
            .release(&instance(e), &asked(m, user), lease(), NOW)
            .unwrap_err()
    };
    let mut bench = consented();
    assert_eq!(refusal(&mut bench, 1, 1, 2), ReleaseError::UnknownModel);
    assert_eq!(refusal(&mut bench, 1, 0, 1), ReleaseError::NoGrant);
    assert_eq!(
        refusal(&mut bench, 0, 0, 2),
        ReleaseError::GrantForOtherEnclave
    );
    bench.call(&Call::Grant {
        who: 1,
        model: 0,
        user: 2,
        enclave: 0,
    });
    assert_eq!(
        refusal(&mut bench, 0, 0, 2),
        ReleaseError::RequestKeyForOtherEnclave
    );
    bench.call(&Call::Grant {
        who: 1,
        model: 0,
        user: 1,
        enclave: 1,
    });
    assert_eq!(refusal(&mut bench, 1, 0, 1), ReleaseError::NoRequestKey);
    bench.call(&Call::Key {
        who: 1,
        model: 0,
        enclave: 1,
        owner: 2,
        content: 0,
    });
    assert_eq!(refusal(&mut bench, 1, 0, 1), ReleaseError::OtherOwner);
    // A refusal leaves no trace in the state.
    bench.check();
    bench.release(1, 0, 2);
    assert_eq!(bench.reference.releases, 1);
}

#[test]
fn a_release_is_of_the_newest_version() {
    let mut bench = consented();
    bench.call(&Call::Register {
        who: 1,
        model: 0,
        version: 3,
        content: 0,
    });
    let release = bench
        .broker
        .release(&instance(1), &asked(0, 2), lease(), NOW)
        .unwrap();
    assert_eq!(release.answer.version, ModelVersion(3));
}

#[test]
fn registering_says_why_not() {
    let mut broker = empty(Limits::default());
    let mut register = |w, version, body: &RegisterModel| {
        let done = broker.register_model(&who(w), &model(0), ModelVersion(version), body, NOW);
        done.map(|decided| decided.writes.len())
    };
    assert_eq!(
        register(1, 0, &registration(1)),
        Err(RegisterModelError::VersionZero)
    );
    let short = RegisterModel {
        digest: Digest::new([1; 32]),
        key: WireKey::new(&[1; 31]),
    };
    assert!(matches!(
        register(1, 1, &short),
        Err(RegisterModelError::KeyLength(_))
    ));
    assert_eq!(register(1, 2, &registration(1)), Ok(2));
    assert_eq!(register(1, 2, &registration(1)), Ok(0), "repeated");
    assert!(matches!(
        register(1, 2, &registration(0)),
        Err(RegisterModelError::OtherContent {
            version: ModelVersion(2),
            ..
        })
    ));
    assert!(matches!(
        register(1, 1, &registration(1)),
        Err(RegisterModelError::NotNewer {
            newest: ModelVersion(2),
            ..
        })
    ));
    assert!(matches!(
        register(2, 3, &registration(1)),
        Err(RegisterModelError::OtherOwner(_))
    ));
}

#[test]
fn a_stranger_cannot_tell_a_foreign_model_from_none() {
    let bench = consented();
    let foreign = bench
        .broker
        .grants(&who(2), &model(0), &Page::default())
        .unwrap_err();
    let none = bench
        .broker
        .grants(&who(2), &model(1), &Page::default())
        .unwrap_err();
    assert_eq!(
        (foreign, none),
        (UnknownModel(model(0)), UnknownModel(model(1)))
    );
}

#[test]
fn a_repeated_grant_answers_with_its_first_epoch() {
    let mut bench = consented();
    bench.call(&Call::Grant {
        who: 1,
        model: 0,
        user: 0,
        enclave: 0,
    });
    bench.call(&Call::Revoke {
        who: 1,
        model: 0,
        user: 0,
        enclave: 0,
    });
    let again = bench
        .broker
        .grant(
            &who(1),
            &model(0),
            principal(2),
            enclave(1),
            &GrantTerms::NONE,
            NOW,
        )
        .unwrap();
    assert_eq!((again.answer.epoch, again.writes.len()), (1, 0));
    let later = bench
        .broker
        .grant(
            &who(1),
            &model(0),
            principal(0),
            enclave(0),
            &GrantTerms::NONE,
            NOW,
        )
        .unwrap();
    assert_eq!(later.answer.epoch, 2);
}

#[test]
fn bounds_hold_per_principal_and_in_all() {
    let mut broker = empty(Limits {
        rows: 3,
        rows_per_principal: 2,
    });
    let mut register = |w: u8, m: u8| {
        let body = registration(1);
        broker
            .register_model(&who(w), &model(m), ModelVersion(1), &body, NOW)
            .map(|_| ())
    };
    assert_eq!(register(1, 0), Ok(()));
    assert_eq!(register(1, 1), Ok(()));
    let full = RegisterModelError::Limit(LimitReached::Principal(2));
    assert_eq!(register(1, 2), Err(full));
    assert_eq!(register(2, 2), Ok(()));
    let full = RegisterModelError::Limit(LimitReached::Total(3));
    assert_eq!(register(2, 3), Err(full));
    // What is there already is still answered.
    assert_eq!(register(1, 0), Ok(()));
}

#[test]
fn lists_go_on_where_they_stopped_and_show_only_the_callers_own() {
    let mut broker = empty(Limits::default());
    for (w, m, version) in [(1, 0, 1), (1, 0, 2), (1, 2, 1), (2, 1, 1)] {
        let (w, m, v) = (who(w), model(m), ModelVersion(version));
        broker
            .register_model(&w, &m, v, &registration(1), NOW)
            .unwrap();
    }
    for user in 0..5 {
        broker
            .grant(
                &who(1),
                &model(0),
                principal(user),
                enclave(0),
                &GrantTerms::NONE,
                NOW,
            )
            .unwrap();
    }
    let all: Vec<_> = broker
        .list_models(&who(1), &Page::default())
        .models
        .into_iter()
        .map(|record| (record.model, record.version))
        .collect();
    assert_eq!(
        all,
        [
            (model(0), ModelVersion(1)),
            (model(0), ModelVersion(2)),
            (model(2), ModelVersion(1))
        ]
    );
    for (at, cursor) in all.iter().enumerate() {
        let page = Page {
            after: Some(cursor.clone()),
            limit: 1,
        };
        let next = broker.list_models(&who(1), &page).models;
        let next: Vec<_> = next
            .into_iter()
            .map(|record| (record.model, record.version))
            .collect();
        assert_eq!(
            next,
            all[at + 1..].iter().take(1).cloned().collect::<Vec<_>>()
        );
    }
    let page = Page {
        after: Some(ModelVersion(1)),
        limit: 9,
    };
    assert_eq!(
        broker
            .versions(&who(1), &model(0), &page)
            .unwrap()
            .models
            .len(),
        1
    );
    let page = Page {
        after: Some((principal(2), enclave(0))),
        limit: 9,
    };
    let users = broker.grants(&who(1), &model(0), &page).unwrap().grants;
    assert_eq!(
        users.iter().map(|grant| grant.user).collect::<Vec<_>>(),
        [principal(3), principal(4)]
    );
}

#[test]
fn request_keys_are_listed_per_user_without_keys() {
    let mut bench = consented();
    bench.call(&Call::Key {
        who: 1,
        model: 0,
        enclave: 0,
        owner: 1,
        content: 0,
    });
    let list = bench
        .broker
        .list_request_keys(&who(2), &Page::default())
        .request_keys;
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].enclave, list[0].owner), (enclave(1), principal(1)));
    let page = Page {
        after: Some((model(0), enclave(1))),
        limit: 9,
    };
    assert!(
        bench
            .broker
            .list_request_keys(&who(2), &page)
            .request_keys
            .is_empty()
    );
    assert!(
        bench
            .broker
            .list_request_keys(&who(0), &Page::default())
            .request_keys
            .is_empty()
    );
}

#[test]
fn the_log_shows_owner_and_user_what_concerns_them() {
    let mut bench = consented();
    bench.call(&Call::Release {
        enclave: 1,
        model: 0,
        user: 2,
    });
    bench.call(&Call::Drop {
        who: 2,
        model: 0,
        enclave: 1,
    });
    let seen = |n: u8| {
        let mine = |entry: &&Entry| entry.audience().any(|id| id == principal(n));
        let entries = bench.durable.log.iter().filter(mine);
        entries
            .map(|entry| entry.published.event.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(1), ["model_registered", "granted", "released"]);
    assert_eq!(
        seen(2),
        [
            "granted",
            "request_key_registered",
            "released",
            "request_key_dropped"
        ]
    );
    assert!(seen(0).is_empty());
}

#[test]
fn a_changed_log_entry_does_not_follow() {
    let bench = {
        let mut bench = consented();
        bench.call(&Call::Release {
            enclave: 1,
            model: 0,
            user: 2,
        });
        bench
    };
    let entry = &bench.durable.log[0].published;
    let changes: [fn(&mut protocol::keyservice::LogEntry); 7] = [
        |e| e.seq += 1,
        |e| e.at += 1,
        |e| "granted".clone_into(&mut e.event),
        |e| e.model = model(1),
        |e| e.user = Some(principal(9)),
        |e| e.enclave = Some(enclave(9)),
        |e| e.version = None,
    ];
    assert!(Chain::EMPTY.follow(entry).is_some());
    for (n, change) in changes.iter().enumerate() {
        let mut changed = entry.clone();
        change(&mut changed);
        assert!(Chain::EMPTY.follow(&changed).is_none(), "change {n}");
    }
    // Nor does a later entry follow when an earlier one is left out.
    assert!(
        Chain::EMPTY
            .follow(&bench.durable.log[1].published)
            .is_none()
    );
}

#[test]
fn the_hash_of_a_known_entry() {
    // Recomputed outside (docs/protocol.md): SHA-256 of 32 zero bytes and the CBOR of
    // ["sesemi/log/1", 1, 1700000000, "model_registered", "model-0", null, null, 1].
    let bench = consented();
    let first = &bench.durable.log[0].published;
    assert_eq!(first.hash.to_string(), KNOWN_ENTRY_HASH);
}

const KNOWN_ENTRY_HASH: &str = "44663d2288091cbffbe79e3e7673a32971887722b8a672912bdc2dc8d7756c9c";

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let version = |owner| Row::Version {
        model: model(0),
        version: ModelVersion(u32::from(owner)),
        owner: principal(owner),
        digest: Digest::new([0; 32]),
        key: key(0),
    };
    let grant = Row::Grant {
        model: model(1),
        user: principal(0),
        enclave: enclave(0),
        epoch: 1,
        policy: None,
    };
    let restore =
        |rows: Vec<Row>| Broker::restore(Head::EMPTY, rows, TTL_S, Limits::default()).unwrap_err();
    assert!(matches!(
        restore(vec![version(1), version(2)]),
        RestoreError::TwoOwners(_)
    ));
    assert!(matches!(
        restore(vec![version(1), grant]),
        RestoreError::GrantWithoutModel(_)
    ));
}

fn policy(tees: &str, more: &str) -> Option<PolicyText> {
    let text = format!("version = 1\naccepted = [{tees}]\nenclaves = \"any\"\n{more}");
    Some(PolicyText::try_from(text).unwrap())
}

/// A broker with model 0 of owner 1, granted to user 2 in enclave 0 on these terms.
fn on_terms(owners: Option<PolicyText>, users: Option<PolicyText>) -> Broker {
    let mut broker = Broker::restore(Head::EMPTY, Vec::new(), TTL_S, Limits::default()).unwrap();
    let registration = RegisterModel {
        digest: Digest::new([1; 32]),
        key: key(1),
    };
    let version = ModelVersion(1);
    broker
        .register_model(&who(1), &model(0), version, &registration, NOW)
        .unwrap();
    let terms = GrantTerms { policy: owners };
    broker
        .grant(&who(1), &model(0), principal(2), enclave(0), &terms, NOW)
        .unwrap();
    let body = RegisterRequestKey {
        owner: principal(1),
        key: key(2),
        policy: users,
    };
    broker
        .register_request_key(&who(2), &model(0), enclave(0), &body, NOW)
        .unwrap();
    broker
}

fn ask(broker: &mut Broker) -> Result<Decided<Release>, ReleaseError> {
    let request = ReleaseRequest {
        model: model(0),
        user: principal(2),
    };
    broker.release(&instance(0), &request, LeaseId::new([0; 16]), NOW)
}

/// The instance of these tests is on the simulated TEE, with security version 3.
#[test]
fn a_release_satisfies_the_policies_of_owner_and_user() {
    use attestation::CheckName::{Enclave, SecurityVersion, TeeAccepted};
    let fine = || policy("\"simulated\"", "minimum_svn = 3");
    let newer = || policy("\"simulated\"", "minimum_svn = 4");
    let hardware = || policy("\"sgx\", \"tdx\"", "");
    let other = format!(
        "version = 1\naccepted = [\"simulated\"]\nenclaves = {{ these = [\"{}\"] }}",
        enclave(1)
    );
    let other = || Some(PolicyText::try_from(other.clone()).unwrap());
    let cases = [
        (None, None, None),
        (fine(), fine(), None),
        (
            newer(),
            None,
            Some(ReleaseError::OwnerPolicy(SecurityVersion)),
        ),
        (
            fine(),
            newer(),
            Some(ReleaseError::UserPolicy(SecurityVersion)),
        ),
        (
            hardware(),
            fine(),
            Some(ReleaseError::OwnerPolicy(TeeAccepted)),
        ),
        (
            fine(),
            hardware(),
            Some(ReleaseError::UserPolicy(TeeAccepted)),
        ),
        (other(), None, Some(ReleaseError::OwnerPolicy(Enclave))),
    ];
    for (owners, users, refused) in cases {
        let mut broker = on_terms(owners, users);
        assert_eq!(ask(&mut broker).err(), refused);
    }
}

#[test]
fn terms_survive_a_restart_and_do_not_change_unseen() {
    let newer = policy("\"simulated\"", "minimum_svn = 4");
    let mut broker = Broker::restore(Head::EMPTY, Vec::new(), TTL_S, Limits::default()).unwrap();
    let registration = RegisterModel {
        digest: Digest::new([1; 32]),
        key: key(1),
    };
    let mut rows = Vec::new();
    let mut keep = |writes: Vec<Write>| {
        rows.extend(writes.into_iter().filter_map(|write| match write {
            Write::Put(row) => Some(row),
            Write::Remove(_) | Write::Append(_) => None,
        }));
    };
    let version = ModelVersion(1);
    let made = broker.register_model(&who(1), &model(0), version, &registration, NOW);
    keep(made.unwrap().writes);
    let terms = GrantTerms { policy: newer };
    let granted = broker.grant(&who(1), &model(0), principal(2), enclave(0), &terms, NOW);
    keep(granted.unwrap().writes);
    let body = RegisterRequestKey {
        owner: principal(1),
        key: key(2),
        policy: None,
    };
    let registered = broker.register_request_key(&who(2), &model(0), enclave(0), &body, NOW);
    keep(registered.unwrap().writes);
    // The same again is no change; other terms, or none, are refused rather than ignored.
    let mut again =
        |terms: &GrantTerms| broker.grant(&who(1), &model(0), principal(2), enclave(0), terms, NOW);
    assert!(again(&terms).unwrap().writes.is_empty());
    let refused = again(&GrantTerms::NONE).unwrap_err();
    assert_eq!(refused, GrantError::OtherTerms(model(0)));

    let mut restored = Broker::restore(broker.head(), rows, TTL_S, Limits::default()).unwrap();
    let refused = ReleaseError::OwnerPolicy(attestation::CheckName::SecurityVersion);
    assert_eq!(ask(&mut restored).err(), Some(refused));
}

#[test]
fn terms_that_are_no_policy_are_refused_when_they_are_given() {
    let mut broker = on_terms(None, None);
    for bad in ["", "version = 1", "accepted = \"all\"", "\0"] {
        let terms = GrantTerms {
            policy: Some(PolicyText::try_from(bad.to_owned()).unwrap()),
        };
        let refused = broker.grant(&who(1), &model(0), principal(3), enclave(0), &terms, NOW);
        assert!(matches!(refused, Err(GrantError::Terms(_))), "{bad:?}");
    }
    assert!(PolicyText::try_from("x".repeat(protocol::limits::POLICY_MAX + 1)).is_err());
}
