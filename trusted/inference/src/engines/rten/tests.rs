//! What is particular to rten.

use protocol::Datatype;

use super::*;
use crate::testing::{engine_suite, graphs, packed};

fn load(onnx: &[u8]) -> Result<Arc<dyn Model>, LoadError> {
    let package = packed(NAME, onnx).unwrap();
    RtenEngine::shared().load(
        &package.manifest,
        package.graph,
        package.weights.into(),
        &LoadLimits::default(),
    )
}

#[test]
fn rten_conforms_with_a_shared_pool() {
    engine_suite(&RtenEngine::shared()).unwrap();
}

#[test]
fn rten_conforms_with_a_pool_per_session() {
    engine_suite(&RtenEngine::per_session(NonZeroUsize::MIN)).unwrap();
}

#[test]
fn a_panic_while_running_is_an_error_of_that_request_only() {
    let model = load(&graphs::quotient()).unwrap();
    let mut session = model.session().unwrap();
    let mut divide = |n: i64, d: i64| {
        let scalar = |name, v: i64| {
            Tensor::new(name, Datatype::Int64, vec![1], v.to_le_bytes().into()).unwrap()
        };
        session.run(&[scalar("n", n), scalar("d", d)])
    };
    // rten's i32 division overflows here and panics in a thread of its pool.
    let overflow = divide(i64::from(i32::MIN), -1);
    assert!(matches!(overflow, Err(RunError::Panicked)), "{overflow:?}");
    assert_eq!(divide(42, 6).unwrap()[0].data(), 7_i64.to_le_bytes());
}

#[test]
fn what_an_error_displays_holds_no_value_but_the_user_learns_it() {
    let model = load(&graphs::gather()).unwrap();
    let index = Tensor::new("i", Datatype::Int64, vec![1], 777_i64.to_le_bytes().into()).unwrap();
    let x = Tensor::from_f32("x", vec![1], &[1.0]).unwrap();
    let error = model.session().unwrap().run(&[x, index]).unwrap_err();
    assert!(error.to_string().contains("Gather"), "{error}");
    assert!(!error.to_string().contains("777"), "{error}");
    assert!(!format!("{error:?}").contains("777"), "{error:?}");
    assert!(error.for_user().contains("777"), "{}", error.for_user());
}

#[test]
fn a_panic_while_loading_is_an_error() {
    // rten 0.27's shape inference indexes past the end for this Expand.
    let panicked = load(&graphs::expand_to_lower_rank());
    assert!(
        matches!(panicked, Err(LoadError::Panicked { .. })),
        "{panicked:?}"
    );
}

#[test]
fn half_floats_at_the_interface_are_refused_by_name() {
    let error = load(&graphs::of_type(Datatype::Fp16)).unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "tensor 'x' is FP16, which engine Rten does not take");
}

#[test]
fn doubles_beyond_a_float_are_refused() {
    let model = load(&graphs::of_type(Datatype::Fp64)).unwrap();
    let run = |v: f64| {
        let x = Tensor::new("x", Datatype::Fp64, vec![1], v.to_le_bytes().into()).unwrap();
        Arc::clone(&model).session().unwrap().run(&[x])
    };
    assert_eq!(run(0.5).unwrap()[0].data(), 0.5_f64.to_le_bytes());
    assert_eq!(
        run(f64::INFINITY).unwrap()[0].data(),
        f64::INFINITY.to_le_bytes()
    );
    let error = run(1e300).unwrap_err();
    assert!(
        matches!(&error, RunError::Range { name, index: 0, .. } if name == "x"),
        "{error:?}"
    );
}

#[test]
fn no_variable_of_the_engine_is_accepted() {
    let names = |names: &[&str]| engine_variable(names.iter().map(OsString::from));
    for name in [
        "RTEN_TIMING",
        "RTEN_INFER_SHAPES_DEBUG",
        "RTEN_OPTIMIZER_DEBUG",
        "RTEN_",
    ] {
        assert_eq!(names(&["PATH", name]).as_deref(), Some(name));
    }
    assert_eq!(
        names(&["PATH", "PORT", "XRTEN_TIMING", "rten_timing"]),
        None
    );
}
