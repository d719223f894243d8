//! What is particular to our own engine.

use super::*;
use crate::testing::{engine_suite, graphs, packed};

#[test]
fn conv_conforms_with_a_shared_team() {
    engine_suite(&ConvEngine::shared()).unwrap();
}

#[test]
fn conv_conforms_with_a_team_per_session() {
    engine_suite(&ConvEngine::per_session(NonZeroUsize::MIN)).unwrap();
}

#[test]
fn conv_conforms_on_every_instruction_set() {
    for isa in Isa::available() {
        engine_suite(&ConvEngine::shared().with_isa(isa)).unwrap();
    }
}

#[test]
fn a_batch_of_none_has_an_answer_of_none() {
    let package = packed(NAME, &graphs::dense()).unwrap();
    let (manifest, limits) = (&package.manifest, LoadLimits::default());
    let model = ConvEngine::shared().load(manifest, package.graph, package.weights.into(), &limits);
    let mut session = model.unwrap().session().unwrap();
    let none = Tensor::from_f32("x", vec![0, 16], &[]).unwrap();
    let got = session.run(&[none]).unwrap();
    assert_eq!(got[0].shape(), [0, 9]);
}

#[test]
fn a_models_structure_is_not_printed() {
    let package = packed(NAME, &graphs::dense()).unwrap();
    let (manifest, limits) = (&package.manifest, LoadLimits::default());
    let model = ConvEngine::shared().load(manifest, package.graph, package.weights.into(), &limits);
    let model = model.unwrap();
    let text = format!("{model:?} {:?}", Arc::clone(&model).session().unwrap());
    assert!(
        !text.contains("Kernel") && !text.contains("probability"),
        "{text}"
    );
}
