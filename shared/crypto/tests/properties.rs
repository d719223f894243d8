//! Round trips and refusals for inputs that nobody chose.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crypto::{
    ArtifactOpener, Binding, ModelKey, PlaintextSink, RequestKey, SealingKey, SinkError,
    open_record, open_request, open_response, plaintext_len, seal_artifact, seal_record,
    seal_request, seal_response, sha256,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::{EnclaveId, ModelId, ModelVersion, PrincipalId, RequestId};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ids {
    user: PrincipalId,
    model: ModelId,
    enclave: EnclaveId,
    request_id: RequestId,
}

impl Ids {
    fn binding(&self) -> Binding<'_> {
        Binding {
            user: &self.user,
            model: &self.model,
            enclave: &self.enclave,
            request_id: &self.request_id,
        }
    }
}

prop_compose! {
    fn model_id()(first in "[a-z0-9]", rest in "[a-z0-9._-]{0,63}") -> ModelId {
        format!("{first}{rest}").parse().unwrap()
    }
}

prop_compose! {
    fn ids()(
        user in any::<[u8; 32]>(),
        model in model_id(),
        enclave in vec(any::<u8>(), 48),
        request_id in any::<[u8; 16]>(),
    ) -> Ids {
        Ids {
            user: PrincipalId::new(user),
            model,
            enclave: EnclaveId::try_from(enclave.as_slice()).unwrap(),
            request_id: RequestId::new(request_id),
        }
    }
}

#[derive(Default)]
struct Collected(Vec<u8>);

impl PlaintextSink for Collected {
    fn begin(&mut self, plaintext_len: u64) -> Result<(), SinkError> {
        self.0
            .reserve_exact(usize::try_from(plaintext_len).map_err(SinkError::new)?);
        Ok(())
    }

    fn write(&mut self, segment: &[u8]) -> Result<(), SinkError> {
        self.0.extend_from_slice(segment);
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_request_and_its_answer_round_trip(
        key in any::<[u8; 32]>(),
        ids in ids(),
        question in vec(any::<u8>(), 0..5000),
        answer in vec(any::<u8>(), 0..5000),
    ) {
        let key = RequestKey::from_slice(&key).unwrap();
        let (request, users_key) = seal_request(&key, &ids.binding(), &question).unwrap();
        let (opened, runtimes_key) = open_request(&key, &ids.binding(), &request).unwrap();
        prop_assert_eq!(&*opened, question.as_slice());
        let response = seal_response(&runtimes_key, &ids.binding(), &answer).unwrap();
        let opened = open_response(&users_key, &ids.binding(), &response).unwrap();
        prop_assert_eq!(&*opened, answer.as_slice());
    }

    #[test]
    fn an_envelope_opens_only_where_it_belongs(
        key in any::<[u8; 32]>(),
        here in ids(),
        there in ids(),
        which in 1u8..16,
        payload in vec(any::<u8>(), 0..200),
    ) {
        // Any mixture of the ids of two places that is not the one it was sealed for.
        let mixed = Ids {
            user: if which & 1 > 0 { there.user } else { here.user },
            model: if which & 2 > 0 { there.model } else { here.model.clone() },
            enclave: if which & 4 > 0 { there.enclave } else { here.enclave },
            request_id: if which & 8 > 0 { there.request_id } else { here.request_id },
        };
        prop_assume!(mixed != here);
        let key = RequestKey::from_slice(&key).unwrap();
        let (request, response_key) = seal_request(&key, &here.binding(), &payload).unwrap();
        prop_assert!(open_request(&key, &mixed.binding(), &request).is_err());
        let response = seal_response(&response_key, &here.binding(), &payload).unwrap();
        prop_assert!(open_response(&response_key, &mixed.binding(), &response).is_err());
    }

    #[test]
    fn no_change_to_an_envelope_is_accepted(
        ids in ids(),
        payload in vec(any::<u8>(), 0..500),
        at in any::<Index>(),
        mask in 1u8..,
        cut in any::<Index>(),
        more in vec(any::<u8>(), 1..40),
    ) {
        let key = RequestKey::generate().unwrap();
        let (envelope, _) = seal_request(&key, &ids.binding(), &payload).unwrap();
        let mut changed = envelope.clone();
        changed[at.index(envelope.len())] ^= mask;
        prop_assert!(open_request(&key, &ids.binding(), &changed).is_err());
        let cut = &envelope[..cut.index(envelope.len())];
        prop_assert!(open_request(&key, &ids.binding(), cut).is_err());
        let longer = [envelope.as_slice(), &more].concat();
        prop_assert!(open_request(&key, &ids.binding(), &longer).is_err());
    }

    #[test]
    fn bytes_that_nobody_sealed_do_not_open(bytes in vec(any::<u8>(), 0..2000)) {
        prop_assert!(!crypto::fuzzing::envelope(&bytes));
        prop_assert!(!crypto::fuzzing::artifact(&bytes));
        prop_assert!(!crypto::fuzzing::record(&bytes));
        prop_assert!(!crypto::fuzzing::identity(&bytes));
    }

    #[test]
    fn a_record_round_trips_and_opens_nowhere_else(
        id in vec(any::<u8>(), 0..100),
        epoch in any::<u64>(),
        plain in vec(any::<u8>(), 0..2000),
        other_id in vec(any::<u8>(), 0..100),
        other_epoch in any::<u64>(),
        at in any::<Index>(),
        mask in 1u8..,
    ) {
        let key = SealingKey::generate().unwrap();
        let record = seal_record(&key, &id, epoch, &plain).unwrap();
        prop_assert_eq!(&**open_record(&key, &id, epoch, &record).unwrap(), plain.as_slice());
        if other_id != id {
            prop_assert!(open_record(&key, &other_id, epoch, &record).is_err());
        }
        if other_epoch != epoch {
            prop_assert!(open_record(&key, &id, other_epoch, &record).is_err());
        }
        let mut changed = record.clone();
        changed[at.index(record.len())] ^= mask;
        prop_assert!(open_record(&key, &id, epoch, &changed).is_err());
    }

    #[test]
    fn length_of_artifact_and_plaintext_determine_each_other(len in 0u64..(5 << 30)) {
        if let Ok(plain) = plaintext_len(len) {
            prop_assert!(plain < len);
            // No other length nearby has the same plaintext.
            for other in len + 1..len + 40 {
                prop_assert_ne!(plaintext_len(other).ok(), Some(plain));
            }
        }
    }
}

proptest! {
    // Artifacts are large: fewer cases, most of them around the segments' boundaries.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_artifact_round_trips_in_any_pieces_and_refuses_any_change(
        segments in 0usize..3,
        around in -60i64..60,
        model in model_id(),
        version in any::<u32>(),
        threads in 1usize..5,
        pieces in vec(1usize..700_000, 1..20),
        at in any::<Index>(),
        mask in 1u8..,
    ) {
        let len = (i64::try_from(segments << 20).unwrap() + around).max(0);
        let plain: Vec<u8> = (0..len).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
        let key = ModelKey::generate().unwrap();
        let version = ModelVersion(version);
        let mut artifact = Vec::new();
        let sealed =
            seal_artifact(&key, &model, version, &mut &*plain, &mut artifact).unwrap();
        prop_assert_eq!(sealed.digest, sha256(&artifact));
        prop_assert_eq!(sealed.len, artifact.len() as u64);

        let open = |bytes: &[u8]| {
            let mut sink = Collected::default();
            let digest = sha256(bytes);
            let mut opener =
                ArtifactOpener::new(&key, &model, version, digest, sealed.len, threads)?;
            let (mut rest, mut sizes) = (bytes, pieces.iter().cycle());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                opener.push(piece, &mut sink)?;
                rest = later;
            }
            opener.finish(&mut sink).map(|()| sink.0)
        };
        prop_assert!(open(&artifact).unwrap() == plain);
        let at = at.index(artifact.len());
        artifact[at] ^= mask;
        prop_assert!(open(&artifact).is_err());
    }
}
