//! The platform as a program: its flags, its refusals, and that nothing outlives it.

#![cfg(test)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

fn platform(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sesemi-platform"))
        .args(args)
        .output()
        .unwrap()
}

/// Cargo puts examples beside the tests' folder.
fn test_action() -> String {
    let me = std::env::current_exe().unwrap();
    let path = me
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/test_action");
    path.to_str().unwrap().to_owned()
}

fn config(folder: &Path) -> String {
    let file = folder.join("platform.toml");
    let text = format!(
        "listen = '127.0.0.1:0'\nstate_dir = '{0}/state'\nmemory = '1GiB'\n\
         [namespaces]\nguest = '{0}/guest.auth'\n[images.test]\ncommand = ['{1}']\n",
        folder.display(),
        test_action()
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// One blocking call; the body of the answer.
fn call(address: &str, key: &str, method: &str, path: &str, body: &Value) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let (key, body) = (STANDARD.encode(key), body.to_string());
    let head = format!(
        "{method} /api/v1/namespaces/_/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Basic {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn state(pid: &Value) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .map(|(_, rest)| rest[..1].to_owned())
        .unwrap_or_default()
}

#[test]
fn a_configuration_that_cannot_work_is_named_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "listen = 1\n").unwrap();
    for (path, error) in [
        ("/no/such/file", "read configuration file"),
        (file.to_str().unwrap(), "not valid"),
    ] {
        let output = platform(&["--config", path]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(error), "{said}");
    }
    let usage = platform(&[]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = platform(&["--config", &config(folder.path()), "--listen", &address]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains(&format!("listen on {address}: Address already in use")),
        "{said}"
    );
}

#[test]
fn help_says_what_it_takes() {
    let output = platform(&["--help"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    for flag in [
        "--config <FILE>",
        "--listen <HOST:PORT>",
        "--log <FILTER>",
        "--log-json",
    ] {
        assert!(said.contains(flag), "{flag} is not in\n{said}");
    }
}

#[test]
fn sandboxes_die_with_a_platform_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sesemi-platform"))
        .args(["--config", &config(folder.path())])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap();
    let key = std::fs::read_to_string(folder.path().join("guest.auth")).unwrap();
    let call = |method, path, body| call(address, key.trim(), method, path, &body);
    call(
        "PUT",
        "actions/a",
        json!({"exec": {"kind": "blackbox", "image": "test"}}),
    );
    let result = call("POST", "actions/a?blocking=true&result=true", json!({}));
    let sandbox = &result["pid"];
    assert_ne!(state(sandbox), "", "{result}");
    // SIGKILL: nothing of the platform runs any more, only the kernel can tell the child.
    child.kill().unwrap();
    child.wait().unwrap();
    let dead = (0..3000).any(|_| {
        std::thread::park_timeout(Duration::from_millis(10));
        matches!(state(sandbox).as_str(), "" | "Z" | "X")
    });
    assert!(dead, "the sandbox {sandbox} lives on");
}
