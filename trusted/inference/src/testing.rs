//! The conformance suite that every engine must pass, and small models to test with.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use protocol::package::{EngineName, Manifest};
use protocol::{Datatype, Tensor, TensorSpec};

use crate::engine::{Engine, LoadError, LoadLimits, Model, RunError};
use crate::pack::{Check, Package, lay_out};

pub mod graphs;

/// What an engine did that it must not do.
#[derive(Debug)]
pub struct SuiteFailure {
    /// Name of the check.
    pub check: &'static str,
    pub reason: String,
}

impl fmt::Display for SuiteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.reason)
    }
}

impl std::error::Error for SuiteFailure {}

type Outcome = Result<(), String>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Runs every check; the first that fails is the answer.
pub fn engine_suite(engine: &dyn Engine) -> Result<(), SuiteFailure> {
    type Conformance = fn(&dyn Engine) -> Outcome;
    let for_all: [(&'static str, Conformance); 6] = [
        ("answers are right", right_answers),
        ("sessions side by side agree", side_by_side),
        (
            "wrong inputs are refused and leave the session well",
            wrong_inputs,
        ),
        ("weights that do not fit are refused", wrong_weights),
        ("limits hold", limits),
        ("damaged models are errors", damage),
    ];
    let of_graphs: [(&'static str, Conformance); 5] = [
        ("a model may have no weights", no_constants),
        (
            "64-bit integers and booleans are exact or refused",
            wide_inputs,
        ),
        (
            "operators are told apart from values of the same name",
            same_names,
        ),
        ("an operator that does not exist is named", unknown_operator),
        ("limits of graphs hold", graph_limits),
    ];
    // A compiled plan has no operators, names or nested graphs; what it can hold is covered or
    // refused when it is made.
    let more = match engine.name() {
        EngineName::Rten => &of_graphs[..],
        EngineName::Conv => &[],
    };
    for (check, run) in for_all.iter().chain(more) {
        catch_unwind(AssertUnwindSafe(|| run(engine)))
            .unwrap_or_else(|_| Err("a panic came out of the engine".into()))
            .map_err(|reason| SuiteFailure { check, reason })?;
    }
    Ok(())
}

/// Lays an ONNX file out for `engine` without loading it.
pub fn packed(engine: EngineName, onnx: &[u8]) -> Result<Package, String> {
    lay_out(onnx, &BTreeMap::new(), engine, Check::AllowUnchecked).map_err(|e| format!("{e:?}"))
}

fn load(engine: &dyn Engine, package: &Package) -> Result<Arc<dyn Model>, LoadError> {
    let (graph, weights) = (package.graph.clone(), package.weights.clone());
    engine.load(
        &package.manifest,
        graph,
        weights.into(),
        &LoadLimits::default(),
    )
}

fn loaded(engine: &dyn Engine, onnx: &[u8]) -> Result<Arc<dyn Model>, String> {
    load(engine, &packed(engine.name(), onnx)?).map_err(|e| format!("{e:?}"))
}

fn run_once(model: &Arc<dyn Model>, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
    let mut session = Arc::clone(model)
        .session()
        .map_err(|e| RunError::Operator {
            operator: "session".into(),
            detail: crate::engine::ForUser(e.to_string()),
        })?;
    session.run(inputs)
}

fn tensor(name: &str, datatype: Datatype, shape: &[u64], data: Vec<u8>) -> Result<Tensor, String> {
    Tensor::new(name, datatype, shape.into(), data).map_err(|e| e.to_string())
}

fn right_answers(engine: &dyn Engine) -> Outcome {
    let package = packed(engine.name(), &graphs::dense())?;
    let model = load(engine, &package).map_err(|e| format!("{e:?}"))?;
    let held = package.weights.len() as u64;
    ensure(held > 0, || "no constant was moved out of the graph".into())?;
    ensure(model.memory() >= held, || {
        "memory() is less than the weights".into()
    })?;
    ensure(model.inputs() == package.manifest.inputs, || {
        "inputs() are others".into()
    })?;
    ensure(model.outputs() == package.manifest.outputs, || {
        "outputs() are others".into()
    })?;
    for rows in [1, 5] {
        let (input, expected) = graphs::dense_example(rows)?;
        let got = run_once(&model, &[input]).map_err(|e| e.for_user())?;
        let [got] = got.as_slice() else {
            return Err("not one output".into());
        };
        crate::pack::compare(&expected, got, 1e-5).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn no_constants(engine: &dyn Engine) -> Outcome {
    let none = loaded(engine, &graphs::no_constants())?;
    let x = Tensor::from_f32("x", vec![2], &[-1.0, 2.0]).map_err(|e| e.to_string())?;
    let got = run_once(&none, &[x]).map_err(|e| e.for_user())?;
    ensure(got[0].to_f32() == Some(vec![0.0, 2.0]), || {
        "a model without weights is wrong".into()
    })
}

fn side_by_side(engine: &dyn Engine) -> Outcome {
    let model = loaded(engine, &graphs::dense())?;
    let (input, _) = graphs::dense_example(7)?;
    let first = run_once(&model, std::slice::from_ref(&input)).map_err(|e| e.for_user())?;
    let same = || -> Outcome {
        let mut session = Arc::clone(&model).session().map_err(|e| e.to_string())?;
        for _ in 0..20 {
            let got = session
                .run(std::slice::from_ref(&input))
                .map_err(|e| e.for_user())?;
            ensure(got == first, || "the same input gave another answer".into())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(same)).collect();
        threads
            .into_iter()
            .try_for_each(|t| t.join().unwrap_or_else(|_| Err("panic".into())))
    })
}

fn wrong_inputs(engine: &dyn Engine) -> Outcome {
    let model = loaded(engine, &graphs::dense())?;
    let mut session = model.session().map_err(|e| e.to_string())?;
    let (input, expected) = graphs::dense_example(1)?;
    let wrong = [
        vec![],
        vec![input.clone(), input.clone()],
        vec![tensor("other", Datatype::Fp32, &[1, 16], vec![0; 64])?],
        vec![tensor("x", Datatype::Int32, &[1, 16], vec![0; 64])?],
        vec![tensor("x", Datatype::Fp32, &[16, 1], vec![0; 64])?],
        vec![tensor("x", Datatype::Fp32, &[16], vec![0; 64])?],
    ];
    for inputs in wrong {
        let refused = session.run(&inputs);
        ensure(matches!(refused, Err(RunError::Input(_))), || {
            format!("{inputs:?} was not refused as an input: {refused:?}")
        })?;
    }
    let got = session.run(&[input]).map_err(|e| e.for_user())?;
    crate::pack::compare(&expected, &got[0], 1e-5).map_err(|e| e.to_string())
}

fn wide_inputs(engine: &dyn Engine) -> Outcome {
    let model = loaded(engine, &graphs::wide())?;
    let run = |n: i64, flag: u8| {
        let n = tensor("n", Datatype::Int64, &[1], n.to_le_bytes().into())?;
        let flag = tensor("flag", Datatype::Bool, &[1], vec![flag])?;
        Ok::<_, String>(run_once(&model, &[n, flag]))
    };
    for (n, flag) in [
        (7, 1),
        (-3, 0),
        (i64::from(i32::MAX), 1),
        (i64::from(i32::MIN), 0),
    ] {
        let got = run(n, flag)?.map_err(|e| e.for_user())?;
        let right = got[0].data() == n.to_le_bytes() && got[1].data() == [1 - flag];
        ensure(right, || {
            format!("n = {n}, flag = {flag} gave {:?}", got[0].data())
        })?;
    }
    for n in [1 << 31, i64::MIN, (1 << 32) + 5] {
        match run(n, 0)? {
            Ok(got) if got[0].data() == n.to_le_bytes() => {}
            Err(RunError::Range { name, index: 0, .. }) if name == "n" => {}
            other => return Err(format!("n = {n} is neither exact nor refused: {other:?}")),
        }
    }
    let refused = run(1, 2)?;
    ensure(refused.is_err_and(|e| e.is_callers_fault()), || {
        "2 passed as a boolean".into()
    })
}

fn same_names(engine: &dyn Engine) -> Outcome {
    let model = loaded(engine, &graphs::same_names())?;
    let x = Tensor::from_f32("x", vec![2], &[-1.0, 2.0]).map_err(|e| e.to_string())?;
    let got = run_once(&model, &[x]).map_err(|e| e.for_user())?;
    ensure(got[0].to_f32() == Some(vec![0.0, 4.0]), || {
        format!("got {:?}", got[0].to_f32())
    })
}

fn unknown_operator(engine: &dyn Engine) -> Outcome {
    let package = packed(engine.name(), &graphs::unknown_operator())?;
    let Err(error) = load(engine, &package) else {
        return Err("it was loaded".into());
    };
    let mut text = error.to_string();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    ensure(text.contains("NoSuchOperator"), || {
        format!("the error does not name it: {text}")
    })
}

fn wrong_weights(engine: &dyn Engine) -> Outcome {
    let package = packed(engine.name(), &graphs::dense())?;
    let refuse = |manifest: &Manifest, weights: Vec<u8>, why: &str| {
        let loaded = engine.load(
            manifest,
            package.graph.clone(),
            weights.into(),
            &LoadLimits::default(),
        );
        ensure(loaded.is_err(), || format!("{why} was loaded"))
    };
    let whole = &package.weights;
    refuse(
        &package.manifest,
        whole[..whole.len() - 1].into(),
        "a short blob",
    )?;
    refuse(
        &package.manifest,
        [whole.as_slice(), &[0]].concat(),
        "a long blob",
    )?;
    let mut manifest = package.manifest.clone();
    manifest.weights_len -= 1;
    refuse(
        &manifest,
        whole[..whole.len() - 1].into(),
        "a blob that ends inside a tensor",
    )?;
    manifest = package.manifest.clone();
    manifest.weights_name = Some("other.data".into());
    refuse(&manifest, whole.clone(), "a blob of another name")?;
    if package.manifest.weights_name.is_some() {
        manifest.weights_name = None;
        refuse(&manifest, whole.clone(), "a blob without a name")?;
    }
    manifest = package.manifest.clone();
    manifest.outputs[0].shape = vec![-1, 8];
    refuse(&manifest, whole.clone(), "a manifest with another output")?;
    manifest = package.manifest.clone();
    manifest.inputs.push(TensorSpec {
        name: "z".into(),
        ..manifest.inputs[0].clone()
    });
    refuse(&manifest, whole.clone(), "a manifest with another input")
}

fn limits(engine: &dyn Engine) -> Outcome {
    let package = packed(engine.name(), &graphs::dense())?;
    let most = LoadLimits::default();
    let cases = [
        (
            "graph_bytes",
            LoadLimits {
                graph_bytes: package.graph.len() - 1,
                ..most
            },
        ),
        (
            "weight_bytes",
            LoadLimits {
                weight_bytes: package.weights.len() - 1,
                ..most
            },
        ),
        ("nodes", LoadLimits { nodes: 0, ..most }),
        (
            "tensor_bytes",
            LoadLimits {
                tensor_bytes: 100,
                ..most
            },
        ),
    ];
    for (name, limits) in cases {
        let (graph, weights) = (package.graph.clone(), package.weights.clone());
        let refused = engine.load(&package.manifest, graph, weights.into(), &limits);
        ensure(refused.is_err(), || format!("{name} does not hold"))?;
    }
    Ok(())
}

fn graph_limits(engine: &dyn Engine) -> Outcome {
    let package = packed(engine.name(), &graphs::dense())?;
    let most = LoadLimits::default();
    let cases = [
        ("nodes", LoadLimits { nodes: 1, ..most }),
        ("chain", LoadLimits { chain: 1, ..most }),
        ("depth", LoadLimits { depth: 0, ..most }),
        ("fields", LoadLimits { fields: 10, ..most }),
        (
            "tensor_bytes",
            LoadLimits {
                tensor_bytes: 100,
                ..most
            },
        ),
    ];
    for (name, limits) in cases {
        let (graph, weights) = (package.graph.clone(), package.weights.clone());
        let refused = engine.load(&package.manifest, graph, weights.into(), &limits);
        ensure(matches!(refused, Err(LoadError::Graph(_))), || {
            format!("{name} does not hold")
        })?;
    }
    let huge = packed(engine.name(), &graphs::huge_from_nothing());
    ensure(huge.is_err(), || {
        "a tensor of 4 TB out of a constant was taken".into()
    })?;
    let deep = packed(engine.name(), &graphs::chain_of(most.chain + 1));
    ensure(deep.is_err(), || {
        "a chain that is too long was taken".into()
    })?;
    // The longest chain allowed must not overflow the stack of an ordinary thread.
    let longest = packed(engine.name(), &graphs::chain_of(most.chain))?;
    let run = || -> Outcome {
        let model = load(engine, &longest).map_err(|e| format!("{e:?}"))?;
        let x = Tensor::from_f32("x", vec![1], &[1.0]).map_err(|e| e.to_string())?;
        run_once(&model, &[x]).map(drop).map_err(|e| e.for_user())
    };
    std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(2 << 20);
        let thread = small.spawn_scoped(scope, run).map_err(|e| e.to_string())?;
        thread.join().unwrap_or_else(|_| Err("panic".into()))
    })
}

/// Every truncation, and every byte changed in a few ways: loaded or refused, never a panic.
fn damage(engine: &dyn Engine) -> Outcome {
    let whole = packed(engine.name(), &graphs::dense())?;
    let attempt = |graph: Vec<u8>| {
        let mut manifest = whole.manifest.clone();
        manifest.graph_len = graph.len() as u64;
        engine.load(
            &manifest,
            graph,
            whole.weights.clone().into(),
            &LoadLimits::default(),
        )
    };
    for len in 0..whole.graph.len() {
        ensure(attempt(whole.graph[..len].into()).is_err(), || {
            format!("cut at {len} was loaded")
        })?;
    }
    let (input, _) = graphs::dense_example(1)?;
    for index in 0..whole.graph.len() {
        for change in [0x01, 0x08, 0x80, 0xff] {
            let mut graph = whole.graph.clone();
            graph[index] ^= change;
            if let Ok(model) = attempt(graph) {
                // What it answers is the owner's business; that it returns is ours.
                drop(run_once(&model, std::slice::from_ref(&input)));
            }
        }
    }
    Ok(())
}
