//! `sesemi-dev up --attended`: it says where it listens, and goes with whoever holds its input.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn it_ends_when_its_input_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sesemi-dev"))
        .args([
            "up",
            "--attended",
            "--policy",
            "ect-g",
            "--keep-alive-ms",
            "2000",
            "--state",
        ])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let at = |part: &str| {
        said[part]
            .as_str()
            .unwrap()
            .trim_start_matches("http://")
            .to_owned()
    };
    let parts = ["keyservice", "platform", "fnpacker"].map(at);
    for part in &parts {
        TcpStream::connect(part).unwrap();
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    for part in &parts {
        assert!(TcpStream::connect(part).is_err(), "{part} still listens");
    }
}
