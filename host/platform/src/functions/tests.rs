//! Merging, refusals and durability of functions.

use super::*;
use serde_json::json;

fn open(folder: &Path) -> Functions {
    Functions::open(
        folder,
        LimitRules::default(),
        vec!["img".into(), "other".into()],
    )
    .unwrap()
}

fn put(json: Value) -> ActionPut {
    serde_json::from_value(json).unwrap()
}

fn minimal() -> ActionPut {
    put(json!({"exec": {"kind": "blackbox", "image": "img"}}))
}

fn refusal(functions: &Functions, json: Value) -> String {
    functions
        .put("guest", "a", put(json), true, 1)
        .unwrap_err()
        .to_string()
}

#[test]
fn what_cannot_run_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let functions = open(folder.path());
    let exec = |exec: Value| json!({ "exec": exec });
    assert_eq!(refusal(&functions, json!({})), "exec undefined");
    assert_eq!(
        refusal(&functions, exec(json!({"kind": "blackbox"}))),
        "'image' must be a string defined in 'exec' for 'blackbox' actions"
    );
    assert_eq!(
        refusal(&functions, exec(json!({"kind": "nodejs:20", "code": "x"}))),
        "The specified runtime 'nodejs:20' is not supported by this platform. Valid values are: \
         'blackbox'."
    );
    assert_eq!(
        refusal(
            &functions,
            exec(json!({"kind": "blackbox", "image": "evil"}))
        ),
        "The image 'evil' is not configured on this platform. Valid values are: 'img', 'other'."
    );
    assert!(functions.list("guest").is_empty());
}

#[test]
fn every_limit_has_two_ends() {
    let folder = tempfile::tempdir().unwrap();
    let functions = open(folder.path());
    for (limit, error) in [
        (
            json!({"memory": 127}),
            "memory size 127 MB below allowed threshold of 128 MB",
        ),
        (
            json!({"memory": 4096}),
            "memory size 4096 MB exceeds allowed threshold of 2048 MB",
        ),
        (
            json!({"timeout": 99}),
            "duration 99 milliseconds below allowed threshold of 100 milliseconds",
        ),
        (
            json!({"timeout": 300_001}),
            "duration 300001 milliseconds exceeds allowed threshold of 300000 milliseconds",
        ),
        (
            json!({"logs": 11}),
            "log size 11 MB exceeds allowed threshold of 10 MB",
        ),
        (
            json!({"concurrency": 0}),
            "concurrency 0 below allowed threshold of 1",
        ),
        (
            json!({"concurrency": 65}),
            "concurrency 65 exceeds allowed threshold of 64",
        ),
    ] {
        let body = json!({"exec": {"kind": "blackbox", "image": "img"}, "limits": limit});
        assert_eq!(refusal(&functions, body), error);
    }
    let big = "x".repeat((1 << 20) + 1);
    let body = json!({"exec": {"kind": "blackbox", "image": "img"},
        "parameters": [{"key": "k", "value": big}]});
    assert!(refusal(&functions, body).starts_with("Parameters larger than allowed: "));
}

#[test]
fn creating_twice_needs_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    let functions = open(folder.path());
    functions.put("guest", "a", minimal(), false, 1).unwrap();
    let again = functions
        .put("guest", "a", minimal(), false, 2)
        .unwrap_err();
    assert!(matches!(again, PutError::Exists), "{again}");
    functions.put("other", "a", minimal(), false, 2).unwrap();
    let (new, before) = functions.put("guest", "a", minimal(), true, 1).unwrap();
    assert_ne!(
        new.key,
        before.unwrap().key,
        "a new revision, though the clock stood still"
    );
}

#[test]
fn a_namespace_holds_only_so_many() {
    let folder = tempfile::tempdir().unwrap();
    let rules = LimitRules {
        max_actions: 1,
        ..LimitRules::default()
    };
    let functions = Functions::open(folder.path(), rules, vec!["img".into()]).unwrap();
    functions.put("guest", "a", minimal(), false, 1).unwrap();
    let full = functions
        .put("guest", "b", minimal(), false, 1)
        .unwrap_err();
    assert_eq!(
        full.to_string(),
        "Too many actions in the namespace (allowed: 1)."
    );
    functions.put("guest", "a", minimal(), true, 1).unwrap();
}

#[test]
fn an_update_merges_limits_and_annotations_and_replaces_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let functions = open(folder.path());
    let first = json!({"exec": {"kind": "blackbox", "image": "img", "code": " ", "binary": true},
        "limits": {"memory": 512}, "parameters": [{"key": "p", "value": 1}, {"key": "q", "value": 2}],
        "annotations": [{"key": "x", "value": 1}, {"key": "y", "value": 1}, {"key": "exec", "value": "lie"}]});
    let (one, _) = functions.put("guest", "a", put(first), false, 5).unwrap();
    assert_eq!(
        (one.action.version.as_str(), one.action.updated),
        ("0.0.1", 5)
    );
    assert_eq!(
        (one.action.exec.code.clone(), one.action.exec.binary),
        (None, Some(false))
    );
    assert_eq!(one.action.annotation("exec"), Some("blackbox"));
    assert!(!provides_api_key(&one.action));
    let second = json!({"limits": {"timeout": 1000}, "parameters": [{"key": "p", "value": 3}],
        "annotations": [{"key": "y", "value": 2}, {"key": "provide-api-key", "value": 1}],
        "delAnnotations": ["x"]});
    let (two, _) = functions.put("guest", "a", put(second), true, 9).unwrap();
    let action = &two.action;
    assert_eq!(action.version, "0.0.2");
    assert_eq!((action.limits.memory, action.limits.timeout), (512, 1000));
    assert_eq!(action.parameters, [KeyValue::new("p", 3)]);
    let keys: Vec<_> = action.annotations.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(keys, ["y", "provide-api-key", "exec"]);
    assert!(provides_api_key(action));
}

#[test]
fn functions_survive_the_process_and_a_half_written_file_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let long = "n".repeat(256);
    {
        let functions = open(folder.path());
        functions
            .put("guest", "a b@c", minimal(), false, 1)
            .unwrap();
        functions.put("guest", &long, minimal(), false, 2).unwrap();
        functions.put("guest", "gone", minimal(), false, 3).unwrap();
        functions.delete("guest", "gone").unwrap().unwrap();
        assert!(functions.delete("guest", "gone").unwrap().is_none());
    }
    std::fs::write(folder.path().join("actions/9.tmp"), "{").unwrap();
    let functions = open(folder.path());
    let names: Vec<_> = functions
        .list("guest")
        .iter()
        .map(|f| f.action.name.clone())
        .collect();
    assert_eq!(names, [long, "a b@c".to_owned()]);
    std::fs::write(folder.path().join("actions/7.json"), "{").unwrap();
    let broken = Functions::open(folder.path(), LimitRules::default(), vec![]).unwrap_err();
    assert!(matches!(broken, LoadError::Parse { .. }), "{broken}");
}

#[test]
fn versions_count_in_their_last_number() {
    for (version, next) in [
        ("0.0.1", "0.0.2"),
        ("1.2.9", "1.2.10"),
        ("x", "0.0.1"),
        ("", "0.0.1"),
    ] {
        assert_eq!(next_patch(version), next);
    }
}
