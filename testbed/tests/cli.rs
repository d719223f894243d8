//! The command line against a running developer system, as its owner and its user would type it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const EXE: &str = env!("CARGO_BIN_EXE_sesemi-dev");

/// `sesemi-dev up` in a folder of its own; interrupted when dropped.
struct Up {
    child: Child,
    folder: tempfile::TempDir,
}

impl Up {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(EXE)
            .args(["up", "--state"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said: Vec<_> = lines
            .map(Result::unwrap)
            .take_while(|line| !line.contains("Ctrl-C"))
            .collect();
        assert!(
            said.iter().any(|line| line.contains("KeyService")),
            "{said:?}"
        );
        Self { child, folder }
    }

    fn run(&self, who: &str, args: &[&str]) -> Output {
        let profile = self.folder.path().join(format!("{who}.toml"));
        let mut command = Command::new(EXE);
        command
            .args(["cli", "--profile"])
            .arg(profile)
            .args(args)
            .output()
            .unwrap()
    }

    /// Runs with `--json`, expects success, and reads stdout.
    fn json(&self, who: &str, args: &[&str]) -> Value {
        let out = self.run(who, &[args, &["--json"]].concat());
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {stderr}");
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Runs with `--json`, expects this exit code, and gives the error's code.
    fn refused(&self, who: &str, args: &[&str], exit: i32) -> String {
        let out = self.run(who, &[args, &["--json"]].concat());
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(exit), "{args:?}: {stderr}");
        let last = stderr
            .lines()
            .rfind(|line| line.starts_with('{'))
            .unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{stderr}"));
        error["error"]["code"]
            .as_str()
            .or(error["code"].as_str())
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            assert!(
                self.child.wait().unwrap().success(),
                "interrupted, `up` ends well"
            );
        }
    }
}

fn model_file(name: &str, file: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models")
        .join(name)
        .join(file);
    path.display().to_string()
}

#[test]
fn owner_and_user_from_publish_to_revoke() {
    let up = Up::start();
    let [onnx, inputs, expected] =
        ["model.onnx", "inputs.json", "expected.json"].map(|f| model_file("breast-cancer", f));
    let publish = [
        "model",
        "publish",
        &onnx,
        "--model",
        "breast-cancer",
        "--example-input",
        &inputs,
        "--example-output",
        &expected,
    ];
    up.json("owner", &publish);
    let infer = ["infer", "breast-cancer", "--input", &inputs];

    // Nothing granted, nothing registered: refused, and by whose fault the exit code says.
    up.refused("user", &infer, 2);
    up.json(
        "user",
        &["key", "register", "breast-cancer", "--owner", "owner"],
    );
    assert_eq!(up.refused("user", &infer, 3), "not_granted");

    up.json(
        "owner",
        &["grant", "add", "breast-cancer", "--user", "user"],
    );
    let answer = up.json("user", &infer);
    let text = answer.to_string();
    assert!(
        text.contains("\"FP32\"") && text.contains("0.997791"),
        "{text}"
    );
    assert_eq!(
        up.json("owner", &["grant", "ls", "breast-cancer"])["grants"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    // A file that is no input, a model that is none, a KeyService that is another.
    assert_eq!(
        up.refused("user", &["infer", "breast-cancer", "--input", &onnx], 2),
        "invalid_request"
    );
    up.refused(
        "owner",
        &[
            "model",
            "publish",
            &inputs,
            "--model",
            "x",
            "--allow-unchecked",
        ],
        2,
    );
    let verified = up.json("user", &["verify", "keyservice"]);
    assert!(verified.to_string().contains("X25519MLKEM768"));

    let events = up.json("owner", &["audit"]).to_string();
    for event in ["granted", "released"] {
        assert!(events.contains(event), "no '{event}' in {events}");
    }
    up.json("owner", &["grant", "rm", "breast-cancer", "--user", "user"]);
    assert!(
        up.json("owner", &["grant", "ls", "breast-cancer"])["grants"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_pinned_keyservice_that_is_another_is_exit_three() {
    let up = Up::start();
    let profile = up.folder.path().join("user.toml");
    let text = std::fs::read_to_string(&profile).unwrap();
    let pinned = text
        .lines()
        .find(|l| l.starts_with("enclave = \"") && l.len() > 96)
        .unwrap();
    let other = format!("enclave = \"{}\"", "e".repeat(96));
    std::fs::write(&profile, text.replacen(pinned, &other, 1)).unwrap();
    let out = up.run("user", &["verify", "keyservice"]);
    assert_eq!(out.status.code(), Some(3));
    let shown =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(shown.contains("enclave is allowed"), "{shown}");
}
