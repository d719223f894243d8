//! Compiled plans of our own engine: what loads also runs, within its memory, and says the same twice.
#![no_main]

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use inference::engine::{Engine, Model};
use inference::engines::conv::ConvEngine;
use inference::{Blob, LoadLimits};
use kernels::Isa;
use libfuzzer_sys::fuzz_target;
use protocol::package::{EngineName, Manifest};
use protocol::{Datatype, Tensor, TensorSpec};
use sesemi_fuzz::plant;

/// One of every kind of step.
const SEED: &[u8] = include_bytes!("../src/plan.json");
const SIZE: usize = 6;

/// The twin that checks every index, so that a wrong one is found and not only survived.
static ENGINE: LazyLock<ConvEngine> =
    LazyLock::new(|| ConvEngine::per_session(NonZeroUsize::MIN).with_isa(Isa::PORTABLE));

fn spec(name: &str, shape: &[i64]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: shape.into(),
    }
}

fn load(plan: &[u8]) -> Option<Arc<dyn Model>> {
    let weights: Vec<u8> = (0..1_u16 << 14)
        .flat_map(|i| (f32::from(i % 13) / 8.0 - 0.75).to_le_bytes())
        .collect();
    let manifest = Manifest {
        engine: EngineName::Conv,
        inputs: vec![spec("x", &[-1, 3, SIZE as i64, SIZE as i64])],
        outputs: vec![spec("y", &[-1, -1])],
        graph_len: plan.len() as u64,
        weights_len: weights.len() as u64,
        weights_name: None,
        example: None,
    };
    let limits = LoadLimits {
        tensor_bytes: 1 << 20,
        work: 1 << 24,
        ..LoadLimits::default()
    };
    ENGINE
        .load(&manifest, plan.to_vec(), Blob::from(weights), &limits)
        .ok()
}

fuzz_target!(
    init: {
        assert!(load(SEED).is_some(), "the seed is not a good plan");
        plant([SEED.to_vec()]);
    },
    |plan: &[u8]| {
        let Some(model) = load(plan) else {
            return;
        };
        let mut session = model.session().expect("memory for a small arena");
        let size = SIZE as u64;
        let x = Tensor::from_f32("x", vec![1, 3, size, size], &[1.0; 3 * SIZE * SIZE]);
        let x = [x.expect("a tensor")];
        // A plan that was accepted runs: nothing is refused late, nothing panics, and nothing of one
        // run is seen in the next.
        let first = session.run(&x).expect("an answer");
        let second = session.run(&x).expect("an answer");
        assert_eq!(first, second, "an answer depends on the run before");
    }
);
