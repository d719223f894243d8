//! Attacks on the gate: relay, replay, reflection, other enclaves, other configurations.

use proptest::prelude::*;
use protocol::measured::{Isolation, KeyserviceMeasured, SemirtMeasured};
use protocol::{EnclaveId, ErrorCode};

use super::*;
use crate::evidence::{Attester, Tee, VerifierSet};
use crate::policy::{Allowed, AppraisalPolicy};
use crate::ratls::{client_config, server_config};
use crate::scorecard::CheckName;
use crate::testing::{SoftEnclave, SoftTee, frames, handshake, pass_gates};
use crypto::identity::IdentityKey;

const KEYSERVICE: SoftEnclave = SoftEnclave::new(0x4b);
const SEMIRT: SoftEnclave = SoftEnclave::new(0x53);
const EPOCH: u64 = 5;

fn keyservice_config() -> MeasuredConfig {
    MeasuredConfig::keyservice(
        &KeyserviceMeasured { lease_ttl_s: 60 },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

fn semirt_config(concurrency: u16) -> MeasuredConfig {
    MeasuredConfig::semirt(
        &SemirtMeasured {
            isolation: Isolation::Shared,
            concurrency,
            key_ttl_s: 60,
            model_memory: 1 << 30,
            engines: Vec::new(),
            keyservice: SoftTee::enclave_id(KEYSERVICE, &keyservice_config()),
        },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

/// One vendor's world: KeyService and SeMIRT, and who relies on them.
struct World {
    tee: SoftTee,
    keyservice: Arc<RatlsIdentity>,
    semirt: Arc<RatlsIdentity>,
    user: ClientIdentity,
    at_client: Arc<RelyingParty>,
    at_server: Arc<RelyingParty>,
}

fn identity(tee: &SoftTee, enclave: SoftEnclave, config: MeasuredConfig) -> Arc<RatlsIdentity> {
    Arc::new(RatlsIdentity::generate(tee.attester(enclave), config).unwrap())
}

fn new_world() -> World {
    let tee = SoftTee::new(1);
    let e_k = SoftTee::enclave_id(KEYSERVICE, &keyservice_config());
    World {
        keyservice: identity(&tee, KEYSERVICE, keyservice_config()),
        semirt: identity(&tee, SEMIRT, semirt_config(4)),
        user: ClientIdentity::principal(&IdentityKey::generate().unwrap()).unwrap(),
        at_client: tee.relying(Allowed::These(vec![e_k])),
        at_server: tee.relying(Allowed::Any),
        tee,
    }
}

impl World {
    fn instance(&self) -> ClientIdentity {
        ClientIdentity::Instance(Arc::clone(&self.semirt))
    }

    /// A finished TLS connection.
    fn connection(&self, who: &ClientIdentity) -> Connection {
        let (client, server) = handshake(
            client_config(who).unwrap(),
            server_config(&self.keyservice).unwrap(),
        )
        .unwrap();
        Connection {
            client,
            server,
            who: who.clone(),
        }
    }

    fn client_gate(&self, connection: &Connection) -> (ClientGate, Vec<u8>) {
        let established = Established::of(&connection.client, connection.who.spki()).unwrap();
        let relying = Arc::clone(&self.at_client);
        let (gate, hello) =
            ClientGate::new(established, connection.who.clone(), relying, Duration::ZERO).unwrap();
        (gate, one(&hello))
    }

    fn server_gate(&self, connection: &Connection) -> ServerGate {
        let established = Established::of(&connection.server, self.keyservice.spki()).unwrap();
        let relying = Arc::clone(&self.at_server);
        let own = Arc::clone(&self.keyservice);
        ServerGate::new(established, own, relying, EPOCH, Duration::ZERO).unwrap()
    }

    fn run(&self, who: &ClientIdentity) -> Result<(AttestedServer, AttestedPeer), GateError> {
        let connection = self.connection(who);
        let (client, _) = self.client_gate(&connection);
        let hello = Frame::Hello {
            kind: kind_of(who),
            nonce: client.nonce,
            endorsements: Endorsements::None,
        }
        .to_wire()
        .unwrap();
        pass_gates(client, &hello, self.server_gate(&connection))
    }

    /// The binder that KeyService's evidence should have in this connection.
    fn server_binder(&self, connection: &Connection, client_nonce: [u8; 32]) -> ChannelBinder {
        let established = Established::of(&connection.server, self.keyservice.spki()).unwrap();
        binder(
            &established,
            Role::Keyservice,
            true,
            client_nonce,
            self.keyservice.config(),
            EPOCH,
        )
    }
}

struct Connection {
    client: rustls::ClientConnection,
    server: rustls::ServerConnection,
    who: ClientIdentity,
}

const fn kind_of(who: &ClientIdentity) -> ClientKind {
    match who {
        ClientIdentity::Principal(_) => ClientKind::Principal,
        ClientIdentity::Instance(_) => ClientKind::Instance,
    }
}

fn one(wire: &[u8]) -> Vec<u8> {
    let mut frames = frames(wire);
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

fn body(frame: &Frame) -> Vec<u8> {
    one(&frame.to_wire().unwrap())
}

fn sent<T: fmt::Debug>(step: Step<T>) -> Vec<u8> {
    match step {
        Step::Send(wire) => one(&wire),
        Step::SendAndDone(wire, _) => frames(&wire).remove(0),
        other => panic!("{other:?}"),
    }
}

fn failed<T: fmt::Debug>(result: Result<T, GateError>) -> CheckName {
    match result {
        Err(GateError::Appraise(error)) => {
            assert_eq!(
                error.scorecard().check(error.failed()).unwrap().status,
                crate::scorecard::Status::Fail
            );
            error.failed()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn users_and_instances_pass_and_are_told_apart() {
    let world = new_world();
    let (server, peer) = world.run(&world.user).unwrap();
    assert_eq!(server.epoch, EPOCH);
    assert_eq!(
        server.appraised.enclave(),
        SoftTee::enclave_id(KEYSERVICE, &keyservice_config())
    );
    assert!(matches!(peer, AttestedPeer::Principal(id) if id == world.user.spki().principal()));

    let (_, peer) = world.run(&world.instance()).unwrap();
    let AttestedPeer::Instance(appraised) = peer else {
        panic!("{peer:?}")
    };
    assert_eq!(
        appraised.enclave(),
        SoftTee::enclave_id(SEMIRT, &semirt_config(4))
    );
    assert_eq!(appraised.config(), &semirt_config(4));
}

#[test]
fn evidence_of_another_connection_is_refused() {
    let world = new_world();
    for who in [world.user.clone(), world.instance()] {
        // A relay holds a connection to the genuine KeyService and forwards the victim's hello.
        let (victim, relays) = (world.connection(&who), world.connection(&who));
        let (mut client, hello) = world.client_gate(&victim);
        let answer = sent(world.server_gate(&relays).on_frame(&hello).unwrap());
        assert_eq!(failed(client.on_frame(&answer)), CheckName::ReportData);
    }
    // And the other way: a genuine instance's answer in the relay's own connection.
    let (genuine, relays) = (
        world.connection(&world.instance()),
        world.connection(&world.instance()),
    );
    let (mut instance, hello) = world.client_gate(&genuine);
    let mut victim = world.server_gate(&relays);
    let challenge = sent(victim.on_frame(&hello).unwrap());
    // The relay needs the instance to accept a challenge: the nonce goes through, the rest is
    // of the genuine connection.
    let Frame::ServerAttest { nonce, .. } = Frame::read(&challenge).unwrap() else {
        panic!()
    };
    let own = Frame::read(&sent(world.server_gate(&genuine).on_frame(&hello).unwrap())).unwrap();
    let Frame::ServerAttest {
        evidence,
        config,
        epoch,
        ..
    } = own
    else {
        panic!()
    };
    let forged = body(&Frame::ServerAttest {
        nonce,
        evidence,
        endorsements: Endorsements::None,
        config,
        epoch,
    });
    let answer = sent(instance.on_frame(&forged).unwrap());
    assert_eq!(failed(victim.on_frame(&answer)), CheckName::ReportData);
}

#[test]
fn evidence_over_another_nonce_is_refused() {
    let world = new_world();
    let connection = world.connection(&world.instance());
    // Recorded before, in the same connection even.
    let (mut before, hello) = world.client_gate(&connection);
    let mut first = world.server_gate(&connection);
    let recorded = sent(first.on_frame(&hello).unwrap());
    let (mut now, hello_now) = world.client_gate(&connection);
    assert_eq!(failed(now.on_frame(&recorded)), CheckName::ReportData);

    let recorded = sent(before.on_frame(&recorded).unwrap());
    let mut second = world.server_gate(&connection);
    second.on_frame(&hello_now).unwrap();
    assert_eq!(failed(second.on_frame(&recorded)), CheckName::ReportData);
}

#[test]
fn evidence_of_the_other_role_is_refused() {
    let world = new_world();
    let connection = world.connection(&world.instance());
    let (mut client, _) = world.client_gate(&connection);
    // Everything is right but the role, as if an instance's answer came back as a challenge.
    let binder = ChannelBinder {
        role: Role::Semirt,
        ..world.server_binder(&connection, client.nonce)
    };
    let attester = world.tee.attester(KEYSERVICE);
    let evidence = attester.collect(&Binder::channel(binder)).unwrap();
    let config = keyservice_config().as_bytes().to_vec();
    let frame = Frame::ServerAttest {
        nonce: [0; 32],
        evidence,
        endorsements: Endorsements::None,
        config,
        epoch: EPOCH,
    };
    assert_eq!(
        failed(client.on_frame(&body(&frame))),
        CheckName::ReportData
    );

    // KeyService's own evidence, sent back to it.
    let (_, hello) = world.client_gate(&connection);
    let mut server = world.server_gate(&connection);
    let challenge = Frame::read(&sent(server.on_frame(&hello).unwrap())).unwrap();
    let Frame::ServerAttest {
        evidence, config, ..
    } = challenge
    else {
        panic!()
    };
    let reflected = body(&Frame::InstanceAttest { evidence, config });
    assert!(matches!(
        server.on_frame(&reflected),
        Err(GateError::ConfigKind { .. })
    ));
}

/// Runs the instance's side by hand: `answer` makes its frame from the correct binder.
fn instance_answers(
    world: &World,
    answer: impl FnOnce(ChannelBinder) -> Frame,
) -> Result<Step<AttestedPeer>, GateError> {
    let connection = world.connection(&world.instance());
    let mut server = world.server_gate(&connection);
    let hello = Frame::Hello {
        kind: ClientKind::Instance,
        nonce: [3; 32],
        endorsements: Endorsements::None,
    };
    let challenge = Frame::read(&sent(server.on_frame(&body(&hello)).unwrap())).unwrap();
    let Frame::ServerAttest { nonce, .. } = challenge else {
        panic!()
    };
    let established = Established::of(&connection.client, connection.who.spki()).unwrap();
    let config = world.semirt.config();
    let binder = binder(&established, Role::Semirt, true, nonce, config, EPOCH);
    server.on_frame(&body(&answer(binder)))
}

fn attest(attester: &dyn Attester, binder: ChannelBinder, config: &MeasuredConfig) -> Frame {
    let evidence = attester.collect(&Binder::channel(binder)).unwrap();
    Frame::InstanceAttest {
        evidence,
        config: config.as_bytes().to_vec(),
    }
}

#[test]
fn a_configuration_that_is_not_the_bound_one_is_refused() {
    let world = new_world();
    let attester = world.tee.attester(SEMIRT);
    let with = |config: &MeasuredConfig| {
        instance_answers(&world, |binder| attest(&*attester, binder, config))
    };
    with(&semirt_config(4)).unwrap();
    assert_eq!(failed(with(&semirt_config(5))), CheckName::ReportData);
    assert!(matches!(
        with(&keyservice_config()),
        Err(GateError::ConfigKind { .. })
    ));

    let trailing = instance_answers(&world, |binder| {
        let evidence = attester.collect(&Binder::channel(binder)).unwrap();
        let config = [semirt_config(4).as_bytes(), &[0]].concat();
        Frame::InstanceAttest { evidence, config }
    });
    assert!(
        matches!(trailing, Err(GateError::Config(_))),
        "{trailing:?}"
    );
}

#[test]
fn every_field_of_the_binder_is_checked_by_the_server() {
    let world = new_world();
    let attester = world.tee.attester(SEMIRT);
    let refused = |alter: fn(&mut ChannelBinder)| {
        failed(instance_answers(&world, |mut binder| {
            alter(&mut binder);
            attest(&*attester, binder, &semirt_config(4))
        }))
    };
    let alterations: [fn(&mut ChannelBinder); 6] = [
        |binder| binder.role = Role::Keyservice,
        |binder| binder.exporter[31] ^= 1,
        |binder| binder.peer_nonce[0] ^= 1,
        |binder| binder.own_spki = binder.peer_spki,
        |binder| binder.peer_spki = binder.own_spki,
        |binder| binder.epoch += 1,
    ];
    for alter in alterations {
        assert_eq!(refused(alter), CheckName::ReportData);
    }
}

#[test]
fn a_lie_about_the_epoch_is_refused() {
    let world = new_world();
    let connection = world.connection(&world.user);
    let (mut client, hello) = world.client_gate(&connection);
    let answer = Frame::read(&sent(
        world.server_gate(&connection).on_frame(&hello).unwrap(),
    ));
    let Frame::ServerAttest {
        nonce,
        evidence,
        endorsements,
        config,
        epoch,
    } = answer.unwrap()
    else {
        panic!()
    };
    let newer = body(&Frame::ServerAttest {
        nonce,
        evidence,
        endorsements,
        config,
        epoch: epoch + 1,
    });
    assert_eq!(failed(client.on_frame(&newer)), CheckName::ReportData);
}

#[test]
fn another_keyservice_than_the_pinned_one_is_refused() {
    let world = new_world();
    let others = [
        identity(&world.tee, SoftEnclave::new(0x4c), keyservice_config()),
        identity(
            &world.tee,
            KEYSERVICE,
            MeasuredConfig::keyservice(
                &KeyserviceMeasured { lease_ttl_s: 61 },
                &AppraisalPolicy::default(),
            )
            .unwrap(),
        ),
    ];
    for keyservice in others {
        let impostor = World {
            keyservice,
            ..new_world()
        };
        assert_eq!(failed(impostor.run(&impostor.user)), CheckName::Enclave);
        assert_eq!(
            failed(impostor.run(&impostor.instance())),
            CheckName::Enclave
        );
    }
}

#[test]
fn debug_enclaves_are_refused_unless_the_policy_names_them() {
    let base = new_world();
    let debug = SoftEnclave {
        debug: true,
        ..KEYSERVICE
    };
    let keyservice = identity(&base.tee, debug, keyservice_config());
    let world = World {
        keyservice,
        ..new_world()
    };
    assert_eq!(failed(world.run(&world.user)), CheckName::NotDebug);

    let debug = SoftEnclave {
        debug: true,
        ..SEMIRT
    };
    let semirt = identity(&base.tee, debug, semirt_config(4));
    let mut world = World {
        semirt,
        ..new_world()
    };
    assert_eq!(failed(world.run(&world.instance())), CheckName::NotDebug);
    let mut relying = RelyingParty::clone(&world.at_server);
    relying.policy.allow_debug = true;
    world.at_server = Arc::new(relying);
    let (_, peer) = world.run(&world.instance()).unwrap();
    let AttestedPeer::Instance(appraised) = peer else {
        panic!()
    };
    let check = appraised.scorecard().check(CheckName::NotDebug).unwrap();
    assert_eq!(
        (check.status, check.got.as_str()),
        (crate::scorecard::Status::Unchecked, "debug")
    );
    // It is another enclave, too: no grant for the production one fits it.
    assert_ne!(
        appraised.enclave(),
        SoftTee::enclave_id(SEMIRT, &semirt_config(4))
    );
}

#[test]
fn evidence_signed_by_another_root_is_refused() {
    let other = SoftTee::new(2);
    let world = World {
        keyservice: identity(&other, KEYSERVICE, keyservice_config()),
        semirt: identity(&other, SEMIRT, semirt_config(4)),
        ..new_world()
    };
    assert_eq!(
        failed(world.run(&world.user)),
        CheckName::CertificateEvidence
    );
    let world = World {
        semirt: identity(&other, SEMIRT, semirt_config(4)),
        ..new_world()
    };
    assert_eq!(
        failed(world.run(&world.instance())),
        CheckName::CertificateEvidence
    );
    // A genuine certificate, and fresh evidence from elsewhere.
    let attester = other.attester(SEMIRT);
    let fresh = instance_answers(&new_world(), |b| attest(&*attester, b, &semirt_config(4)));
    assert_eq!(failed(fresh), CheckName::Signature);
}

#[test]
fn a_genuine_enclave_does_not_attest_for_another_s_certificate() {
    let world = new_world();
    // A stolen TLS key, and a genuine enclave of another build that signs what it is asked.
    let other = world.tee.attester(SoftEnclave::new(0x99));
    let refused = instance_answers(&world, |binder| attest(&*other, binder, &semirt_config(4)));
    assert_eq!(failed(refused), CheckName::SameEnclave);
}

#[test]
fn a_stolen_keyservice_key_and_another_genuine_enclave_are_refused() {
    let mut world = new_world();
    // Even by a client that pins nothing.
    world.at_client = world.tee.relying(Allowed::Any);
    let connection = world.connection(&world.user);
    let (mut client, _) = world.client_gate(&connection);
    let binder = world.server_binder(&connection, client.nonce);
    let other = world.tee.attester(SoftEnclave::new(0x99));
    let frame = Frame::ServerAttest {
        nonce: [0; 32],
        evidence: other.collect(&Binder::channel(binder)).unwrap(),
        endorsements: Endorsements::None,
        config: keyservice_config().as_bytes().to_vec(),
        epoch: EPOCH,
    };
    assert_eq!(
        failed(client.on_frame(&body(&frame))),
        CheckName::SameEnclave
    );
}

#[test]
fn a_policy_without_the_tee_and_a_build_without_its_verifier_refuse() {
    let mut world = new_world();
    let mut relying = RelyingParty::clone(&world.at_client);
    relying.policy.accepted = vec![Tee::Sgx, Tee::Tdx, Tee::Snp, Tee::Nitro];
    world.at_client = Arc::new(relying);
    assert_eq!(failed(world.run(&world.user)), CheckName::CertificateTee);

    world.at_client = Arc::new(RelyingParty {
        verifiers: VerifierSet::default(),
        policy: AppraisalPolicy::strict(vec![Tee::Simulated], Allowed::Any),
    });
    assert_eq!(
        failed(world.run(&world.user)),
        CheckName::CertificateEvidence
    );
}

#[test]
fn the_security_version_can_have_a_minimum() {
    let mut world = new_world();
    let mut relying = RelyingParty::clone(&world.at_server);
    relying.policy.minimum_svn = 2;
    world.at_server = Arc::new(relying);
    assert_eq!(
        failed(world.run(&world.instance())),
        CheckName::SecurityVersion
    );
    let newer = SoftEnclave { svn: 2, ..SEMIRT };
    world.semirt = identity(&world.tee, newer, semirt_config(4));
    world.run(&world.instance()).unwrap();
}

#[test]
fn a_hello_of_another_kind_than_the_certificate_is_refused() {
    let world = new_world();
    for (who, kind) in [
        (world.user.clone(), ClientKind::Instance),
        (world.instance(), ClientKind::Principal),
    ] {
        let connection = world.connection(&who);
        let hello = body(&Frame::Hello {
            kind,
            nonce: [0; 32],
            endorsements: Endorsements::None,
        });
        let refused = world.server_gate(&connection).on_frame(&hello);
        assert!(matches!(refused, Err(GateError::OtherKind)), "{refused:?}");
    }
}

#[test]
fn frames_out_of_order_shut_the_gate_for_good() {
    let world = new_world();
    let connection = world.connection(&world.instance());
    let (mut client, hello) = world.client_gate(&connection);
    let mut server = world.server_gate(&connection);
    let out_of_order = |result: Result<Step<AttestedPeer>, GateError>| {
        assert!(matches!(result, Err(GateError::OutOfOrder)), "{result:?}");
    };
    // An open verdict before any evidence must not open anything.
    let open = body(&Frame::Verdict(Ok(())));
    let result = client.on_frame(&open);
    assert!(matches!(result, Err(GateError::OutOfOrder)), "{result:?}");
    let answer = sent(server.on_frame(&hello).unwrap());
    let result = client.on_frame(&answer);
    assert!(
        matches!(result, Err(GateError::OutOfOrder)),
        "shut for good: {result:?}"
    );

    // The server: hello again, then nothing goes any more.
    out_of_order(server.on_frame(&hello));
    out_of_order(server.on_frame(&hello));
    let mut server = world.server_gate(&connection);
    let (mut client, hello) = world.client_gate(&connection);
    assert!(matches!(server.on_frame(&[0xff]), Err(GateError::Frame(_))));
    out_of_order(server.on_frame(&hello));
    // A second verdict, or attestation twice.
    let mut server = world.server_gate(&connection);
    let challenge = sent(server.on_frame(&hello).unwrap());
    let answer = sent(client.on_frame(&challenge).unwrap());
    server.on_frame(&answer).unwrap();
    out_of_order(server.on_frame(&answer));
}

#[test]
fn the_peer_hears_little_and_the_log_all() {
    let world = new_world();
    let other = SoftTee::new(2);
    let attester = other.attester(SEMIRT);
    let error = instance_answers(&world, |b| attest(&*attester, b, &semirt_config(4))).unwrap_err();
    assert_eq!(error.verdict().code, ErrorCode::NotAttested);
    let frame = one(&error.verdict_frame().unwrap());
    let Frame::Verdict(Err(told)) = Frame::read(&frame).unwrap() else {
        panic!()
    };
    assert!(!told.message.contains("root"), "{told}");
    let card = error.scorecard().unwrap().to_string();
    assert!(card.contains("FAIL"), "{card}");
    assert!(
        card.contains("unchecked       enclave is allowed"),
        "{card}"
    );

    // The client hears the refusal, in either of the states in which it can come.
    let connection = world.connection(&world.instance());
    let (mut client, _) = world.client_gate(&connection);
    let refused = client.on_frame(&frame);
    assert!(
        matches!(&refused, Err(GateError::Refused(error)) if *error == told),
        "{refused:?}"
    );
    assert!(refused.unwrap_err().verdict_frame().is_none());
}

#[test]
fn a_gate_takes_only_its_own_connection() {
    let world = new_world();
    let connection = world.connection(&world.user);
    let established = || Established::of(&connection.server, world.keyservice.spki()).unwrap();
    let relying = || Arc::clone(&world.at_server);
    let another = identity(&world.tee, KEYSERVICE, keyservice_config());
    let refused = ServerGate::new(established(), another, relying(), 0, Duration::ZERO);
    assert!(matches!(refused, Err(GateError::OtherIdentity)));
    let refused = ServerGate::new(
        established(),
        Arc::clone(&world.semirt),
        relying(),
        0,
        Duration::ZERO,
    );
    assert!(matches!(refused, Err(GateError::OtherIdentity)));
    let established = Established::of(&connection.client, connection.who.spki()).unwrap();
    let refused = ClientGate::new(established, world.instance(), relying(), Duration::ZERO);
    assert!(matches!(refused, Err(GateError::OtherIdentity)));
}

#[test]
fn an_enclave_id_is_never_that_of_another_role() {
    // The same executable as KeyService and as SeMIRT is two enclaves.
    let e_k = SoftTee::enclave_id(KEYSERVICE, &keyservice_config());
    let e_s = SoftTee::enclave_id(KEYSERVICE, &semirt_config(4));
    assert_ne!(e_k, e_s);
    assert_ne!(e_k, EnclaveId::new([0; 48]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_frames_never_panic_and_never_pass(
        bytes in prop::collection::vec(any::<u8>(), 0..600)
    ) {
        let world = new_world();
        let connection = world.connection(&world.instance());
        prop_assert!(world.server_gate(&connection).on_frame(&bytes).is_err());
        prop_assert!(world.client_gate(&connection).0.on_frame(&bytes).is_err());
    }

    #[test]
    fn an_altered_frame_never_passes(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let world = new_world();
        let connection = world.connection(&world.instance());
        let (mut client, hello) = world.client_gate(&connection);
        let mut server = world.server_gate(&connection);
        let challenge = sent(server.on_frame(&hello).unwrap());
        let mut altered = challenge;
        let at_byte = at.index(altered.len());
        altered[at_byte] ^= 1 << bit;
        match client.on_frame(&altered) {
            Err(_) => {}
            // Only the server's nonce may be altered unseen by the client: the server sees it.
            Ok(step) => {
                let answer = sent(step);
                prop_assert!(server.on_frame(&answer).is_err());
            }
        }
    }
}
