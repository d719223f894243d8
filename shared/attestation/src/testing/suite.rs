//! The conformance suite of attesters and verifiers.

use std::sync::Arc;
use std::time::Duration;

use crypto::identity::IdentityKey;
use protocol::EnclaveId;
use protocol::measured::{Isolation, KeyserviceMeasured, SemirtMeasured};

use super::{handshake, pass_gates};
use crate::appraisal::{Appraised, RelyingParty, appraise};
use crate::binder::{Binder, ChannelBinder, Role, SpkiHash};
use crate::evidence::{
    Attester, Claims, CollectError, EVIDENCE_MAX, Endorsements, Evidence, Subject, Tee, Verifier,
    VerifierSet,
};
use crate::gate::{AttestedPeer, ClientGate, ServerGate};
use crate::identity::enclave_id;
use crate::measured::MeasuredConfig;
use crate::policy::{Allowed, AppraisalPolicy};
use crate::ratls::{ClientIdentity, Established, RatlsIdentity, client_config, server_config};
use crate::scorecard::{CheckName, Failed, Scorecard, Status};

/// An attester and the verifier that is to accept its evidence.
#[derive(Debug, Clone)]
pub struct Pair {
    pub attester: Arc<dyn Attester>,
    pub verifier: Arc<dyn Verifier>,
    /// Of this machine.
    pub endorsements: Endorsements,
    /// When the evidence is verified, since the UNIX epoch.
    pub now: Duration,
}

/// Checks everything that this crate relies on, on this machine; panics at what does not hold.
/// For TEEs that are slow to sign it takes a while: it asks for about a dozen pieces of evidence,
/// and verifies one for every byte of it.
pub fn attester_suite(pair: &Pair) {
    pair.states_what_it_was_asked();
    pair.no_altered_byte_changes_what_it_says();
    pair.other_lengths_and_labels_are_refused();
    pair.is_bound_to_every_field_of_the_channel();
    pair.the_policy_decides();
    pair.the_sealing_key_is_stable();
    pair.passes_the_gate_in_both_roles();
}

fn semirt_config(keyservice: EnclaveId) -> MeasuredConfig {
    MeasuredConfig::semirt(
        &SemirtMeasured {
            isolation: Isolation::Shared,
            concurrency: 4,
            key_ttl_s: 60,
            model_memory: 1 << 30,
            engines: Vec::new(),
            keyservice,
        },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

fn keyservice_config(lease_ttl_s: u32) -> MeasuredConfig {
    MeasuredConfig::keyservice(
        &KeyserviceMeasured { lease_ttl_s },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

fn channel_binder() -> ChannelBinder {
    ChannelBinder {
        role: Role::Keyservice,
        exporter: [0xa1; 32],
        peer_nonce: [0xb2; 32],
        own_spki: SpkiHash::of(b"own"),
        peer_spki: SpkiHash::of(b"peer"),
        config: keyservice_config(60).hash(),
        epoch: 7,
    }
}

impl Pair {
    fn collect(&self, binder: &Binder) -> Evidence {
        self.attester.collect(binder).unwrap()
    }

    fn try_verify(&self, evidence: &Evidence) -> Result<Claims, Failed> {
        let subject = Subject {
            evidence,
            endorsements: &self.endorsements,
            now: self.now,
        };
        self.verifier.verify(&subject, &mut Scorecard::new(&[]))
    }

    fn verify(&self, evidence: &Evidence) -> Claims {
        let claims = self.try_verify(evidence).unwrap();
        assert_eq!(self.verifier.read(evidence).unwrap(), claims.said);
        claims
    }

    fn relying(&self, accepted: Vec<Tee>, enclaves: Allowed) -> RelyingParty {
        let claims = self.verify(&self.collect(&Binder::certificate(b"key")));
        let mut policy = AppraisalPolicy::strict(accepted, enclaves);
        // Whether this machine's enclave is a production one is not what is tested here.
        policy.allow_debug = claims.measurements().debug();
        policy.accepted_tcb = vec![claims.tcb];
        RelyingParty {
            verifiers: VerifierSet::new(vec![Arc::clone(&self.verifier)]),
            policy,
        }
    }

    fn states_what_it_was_asked(&self) {
        let tee = self.attester.tee();
        let evidence = self.collect(&Binder::certificate(b"key"));
        let endorsements = self.attester.endorsements(&evidence).unwrap();
        assert_eq!(endorsements, self.endorsements);
        assert_eq!(self.verifier.tee(), tee);
        let binders = [
            Binder::certificate(b"key"),
            Binder::channel(channel_binder()),
        ];
        let claims = binders.map(|binder| {
            let evidence = self.collect(&binder);
            assert_eq!(evidence.tee, tee);
            assert!(
                (1..=EVIDENCE_MAX).contains(&evidence.body.len()),
                "{evidence:?}"
            );
            let claims = self.verify(&evidence);
            assert_eq!(claims.tee(), tee);
            assert_eq!(claims.said.bound(), binder.report_data());
            claims
        });
        assert_eq!(
            claims[0].measurements(),
            claims[1].measurements(),
            "measurements are stable"
        );
        assert!(!claims[0].measurements().fields().is_empty());
    }

    /// Real evidence has bytes that nobody signs (padding, a chain's root): they may change, but
    /// not what is read from it.
    fn no_altered_byte_changes_what_it_says(&self) {
        let evidence = self.collect(&Binder::channel(channel_binder()));
        let claims = self.verify(&evidence);
        let mut refused = 0;
        for at in 0..evidence.body.len() {
            let mut altered = evidence.clone();
            altered.body[at] ^= 1 << (at % 8);
            match self.try_verify(&altered) {
                Ok(read) => assert_eq!(read, claims, "byte {at} altered"),
                Err(_) => refused += 1,
            }
        }
        assert!(
            refused >= 64,
            "at least report data and signature are protected"
        );
    }

    fn other_lengths_and_labels_are_refused(&self) {
        let evidence = self.collect(&Binder::certificate(b"key"));
        let len = evidence.body.len();
        for cut in [0, 1, len / 2, len - 1] {
            let mut short = evidence.clone();
            short.body.truncate(cut);
            assert!(self.try_verify(&short).is_err(), "cut at {cut} of {len}");
        }
        let mut long = evidence.clone();
        // Zeros may be padding of the interface that it came through.
        long.body.push(1);
        assert!(self.try_verify(&long).is_err(), "a trailing byte");
        for tee in Tee::ALL.into_iter().filter(|tee| *tee != evidence.tee) {
            let renamed = Evidence {
                tee,
                body: evidence.body.clone(),
            };
            assert!(self.try_verify(&renamed).is_err(), "renamed to {tee}");
        }
    }

    fn is_bound_to_every_field_of_the_channel(&self) {
        let base = channel_binder();
        let relying = self.relying(vec![self.attester.tee()], Allowed::Any);
        let evidence = self.collect(&Binder::channel(base.clone()));
        let config = keyservice_config(60);
        let appraise = |binder: &ChannelBinder, config: &MeasuredConfig| {
            appraise(
                &relying,
                &evidence,
                &self.endorsements,
                binder,
                config,
                self.now,
            )
        };
        appraise(&base, &config).unwrap();

        let other_config = keyservice_config(61);
        let semirt = semirt_config(EnclaveId::new([1; 48]));
        let altered = |alter: &dyn Fn(&mut ChannelBinder)| {
            let mut binder = base.clone();
            alter(&mut binder);
            binder
        };
        let others = [
            (altered(&|b| b.exporter = [0; 32]), &config),
            (altered(&|b| b.peer_nonce = [0; 32]), &config),
            (altered(&|b| b.own_spki = b.peer_spki), &config),
            (altered(&|b| b.peer_spki = b.own_spki), &config),
            (altered(&|b| b.epoch = 8), &config),
            (altered(&|b| b.config = other_config.hash()), &other_config),
            (
                altered(&|b| (b.role, b.config) = (Role::Semirt, semirt.hash())),
                &semirt,
            ),
        ];
        for (binder, config) in others {
            let error = appraise(&binder, config).unwrap_err();
            assert_eq!(error.failed(), CheckName::ReportData, "{binder:?}");
        }
        // A configuration that is not the bound one is refused before the evidence is looked at.
        let error = appraise(&base, &other_config).unwrap_err();
        assert_eq!(error.failed(), CheckName::MeasuredConfig);
        // Evidence for a certificate is none for a channel.
        let for_key = self.collect(&Binder::certificate(b"own"));
        let error = crate::appraisal::appraise(
            &relying,
            &for_key,
            &self.endorsements,
            &base,
            &config,
            self.now,
        )
        .unwrap_err();
        assert_eq!(error.failed(), CheckName::ReportData);
    }

    fn the_policy_decides(&self) {
        let tee = self.attester.tee();
        let binder = channel_binder();
        let config = keyservice_config(60);
        let evidence = self.collect(&Binder::channel(binder.clone()));
        let measurements = self.verify(&evidence).said.measurements;
        let id = enclave_id(&measurements, &config.hash());
        let try_with = |relying: &RelyingParty| -> Result<Appraised, CheckName> {
            appraise(
                relying,
                &evidence,
                &self.endorsements,
                &binder,
                &config,
                self.now,
            )
            .map_err(|e| e.failed())
        };

        let accepted = try_with(&self.relying(vec![tee], Allowed::These(vec![id]))).unwrap();
        assert_eq!((accepted.enclave(), accepted.tee()), (id, tee));
        assert_eq!(accepted.measurements(), &measurements);
        for name in CheckName::CHANNEL {
            assert!(accepted.scorecard().check(*name).is_some(), "{name}");
        }

        let refused = |relying: &RelyingParty| try_with(relying).unwrap_err();
        assert_eq!(
            refused(&self.relying(vec![], Allowed::Any)),
            CheckName::TeeAccepted
        );
        let others = Tee::ALL.into_iter().filter(|other| *other != tee).collect();
        assert_eq!(
            refused(&self.relying(others, Allowed::Any)),
            CheckName::TeeAccepted
        );
        let nobody = Allowed::These(Vec::new());
        assert_eq!(
            refused(&self.relying(vec![tee], nobody)),
            CheckName::Enclave
        );
        let other = Allowed::These(vec![EnclaveId::new([0; 48])]);
        assert_eq!(refused(&self.relying(vec![tee], other)), CheckName::Enclave);
        let mut no_verifier = self.relying(vec![tee], Allowed::Any);
        no_verifier.verifiers = VerifierSet::default();
        assert_eq!(refused(&no_verifier), CheckName::EvidenceGenuine);
        let mut newer = self.relying(vec![tee], Allowed::Any);
        newer.policy.minimum_svn = u64::MAX;
        assert_eq!(refused(&newer), CheckName::SecurityVersion);
    }

    fn the_sealing_key_is_stable(&self) {
        match [self.attester.sealing_key(), self.attester.sealing_key()] {
            [Ok(first), Ok(second)] => assert!(
                first.ct_eq(&second),
                "the same enclave must find its records again"
            ),
            // Some hardware has none, and the attester has to say so.
            [Err(CollectError::Device { source, .. }), Err(_)] => {
                assert_eq!(source.kind(), std::io::ErrorKind::Unsupported, "{source}");
            }
            keys => panic!("{keys:?}"),
        }
    }

    fn passes_the_gate_in_both_roles(&self) {
        let tee = self.attester.tee();
        let generate =
            |config| Arc::new(RatlsIdentity::generate(Arc::clone(&self.attester), config).unwrap());
        let config = keyservice_config(60);
        let measurements = self
            .verify(&self.collect(&Binder::certificate(b"key")))
            .said
            .measurements;
        let e_k = enclave_id(&measurements, &config.hash());
        let keyservice = generate(config);
        let semirt = generate(semirt_config(e_k));
        let pinned = Arc::new(self.relying(vec![tee], Allowed::These(vec![e_k])));
        let any = Arc::new(self.relying(vec![tee], Allowed::Any));

        let identity = IdentityKey::generate().unwrap();
        let clients = [
            ClientIdentity::principal(&identity).unwrap(),
            ClientIdentity::Instance(semirt),
        ];
        for who in clients {
            let (client, server) = handshake(
                client_config(&who).unwrap(),
                server_config(&keyservice).unwrap(),
            )
            .unwrap();
            let at_client = Established::of(&client, who.spki()).unwrap();
            let at_server = Established::of(&server, keyservice.spki()).unwrap();
            let (gate, hello) =
                ClientGate::new(at_client, who.clone(), Arc::clone(&pinned), self.now).unwrap();
            let server = ServerGate::new(
                at_server,
                Arc::clone(&keyservice),
                Arc::clone(&any),
                3,
                self.now,
            )
            .unwrap();
            let (server, peer) = pass_gates(gate, &hello, server).unwrap();
            assert_eq!((server.appraised.enclave(), server.epoch), (e_k, 3));
            let all_made =
                server
                    .appraised
                    .scorecard()
                    .checks()
                    .iter()
                    .all(|check| match check.status {
                        Status::Pass => !check.expected.is_empty() && !check.got.is_empty(),
                        Status::Fail => false,
                        Status::NotApplicable | Status::Unchecked => check.expected.is_empty(),
                    });
            assert!(all_made, "{}", server.appraised.scorecard());
            match (&who, peer) {
                (ClientIdentity::Principal(_), AttestedPeer::Principal(principal)) => {
                    assert_eq!(principal, identity.principal());
                }
                (ClientIdentity::Instance(semirt), AttestedPeer::Instance(appraised)) => {
                    let e_s = enclave_id(&measurements, &semirt.config().hash());
                    assert_eq!(appraised.enclave(), e_s);
                }
                (who, peer) => panic!("{who:?} is taken for {peer:?}"),
            }
        }
    }
}
