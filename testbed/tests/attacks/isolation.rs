//! What one request could leave behind for the next one in a warm instance.

use std::sync::Mutex;

use attestation::testing::SoftTee;
use protocol::measured::Isolation;
use protocol::oip::InferRequest;
use protocol::tensor::Tensor;
use sdk::infer::PendingAnswer;
use testbed::demo::cases::Case;

use crate::lab::{SEMIRT, e_k, measured_config, semirt_measured};
use crate::world::{World, on_world};

/// A weakened engine: answers into a buffer that it keeps warm, and hands the whole of it out.
#[derive(Default)]
struct WarmBuffer(Mutex<Vec<f32>>);

impl WarmBuffer {
    fn run(&self, answer: &[f32]) -> Vec<f32> {
        let mut warm = self.0.lock().unwrap();
        if warm.len() < answer.len() {
            warm.resize(answer.len(), 0.0);
        }
        warm[..answer.len()].copy_from_slice(answer);
        warm.clone()
    }
}

/// Answers of the hot instance to all rows, and then to one.
async fn hot(world: &World, user: &testbed::demo::parties::Person) -> (Vec<Tensor>, Vec<Tensor>) {
    let many = world
        .ask(&world.user, &world.model, &world.case.inputs)
        .await
        .unwrap();
    let (one, _) = world.row(1);
    let answer = world.ask(user, &world.model, &one).await.unwrap();
    assert_eq!(
        many.telemetry.instance, answer.telemetry.instance,
        "the same instance, or there is nothing to leak"
    );
    (many.outputs, answer.outputs)
}

#[test]
fn attack_23_leftovers_of_another_request() {
    on_world(async |world| {
        let other = world.stranger("next-user");
        let (model, enclave) = (world.model.clone(), world.enclave());
        let mut owners = world.owner.keyservice(&world.cluster).await.unwrap();
        owners
            .owner()
            .grant(&model, &other.principal(), &enclave)
            .await
            .unwrap();
        let mut keyservice = other.keyservice(&world.cluster).await.unwrap();
        let owner = world.owner.principal();
        other
            .register_request_key(&mut keyservice, &model, owner, &enclave)
            .await
            .unwrap();

        let (many, one) = hot(world, &other).await;
        let (_, expected) = world.row(1);
        let (secret, own) = (many[0].to_f32().unwrap(), one[0].to_f32().unwrap());
        // Weakened: the next user gets the end of the answer before.
        let warm = WarmBuffer::default();
        warm.run(&secret);
        let leaked = warm.run(&own);
        assert_eq!(leaked[own.len()..], secret[own.len()..]);
        // Ours: exactly the own rows, and right.
        assert!(Case::is_right(&expected, &one));
        assert_eq!(own.len(), expected[0].to_f32().unwrap().len());

        // Many at once, two users interleaved: everyone gets the own answer.
        let asked = (0..12).map(|i| {
            let world = &*world;
            let who = if i % 2 == 0 { &world.user } else { &other };
            async move {
                let (inputs, expected) = world.row(i % 4);
                let answer = world.ask(who, &world.model, &inputs).await.unwrap();
                assert!(Case::is_right(&expected, &answer.outputs), "{i}");
            }
        });
        futures::future::join_all(asked).await;

        // A refused request leaves nothing for the next one either: not its text, not its numbers.
        let wrong = Tensor::from_f32("x", vec![1, 3], &[1.0, 2.0, 3.0]).unwrap();
        world.ask(&world.user, &model, &[wrong]).await.unwrap_err();
        let (inputs, expected) = world.row(0);
        let answer = world.ask(&other, &model, &inputs).await.unwrap();
        assert!(Case::is_right(&expected, &answer.outputs));
        // One's answer does not open for the other, who has a key to the same instance and model.
        let sealed = world.sealed();
        let answer = world.send(sealed.request()).await.unwrap();
        let key = other.request_key(&model, &enclave).unwrap();
        let payload = InferRequest { inputs }.encode().unwrap();
        let others =
            PendingAnswer::seal(&key, other.principal(), &model, enclave, &payload).unwrap();
        others.open(&answer).unwrap_err();
    });
    // Who wants more than that asks for it by E_S: one request at a time, and nothing kept. Weakened:
    // an E_S of the code alone would be the same for both.
    let id = |isolation| {
        let config = measured_config(semirt_measured(e_k(), isolation));
        SoftTee::enclave_id(SEMIRT, &config)
    };
    assert_ne!(id(Isolation::Shared), id(Isolation::Sequential));
    assert_ne!(id(Isolation::Shared), id(Isolation::PerOwner));
}
