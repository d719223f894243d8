//! The production binary as a process: it never runs outside of a TEE.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::process::{Command, Output};

fn semirt(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_semirt"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/semirt.toml");

#[test]
fn without_a_tee_it_says_so_and_exits_with_3() {
    let output = semirt(&["--config", CONFIG, "--port", "0"], &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = stderr(&output);
    assert!(
        text.contains("trusted execution environment") || text.contains("attester"),
        "{text}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn help_names_the_options() {
    let output = semirt(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for option in ["--config", "--port", "PORT", "--keyservice", "--store"] {
        assert!(text.contains(option), "{option} in {text}");
    }
}

#[test]
fn what_is_wrong_with_the_configuration_is_named() {
    let output = semirt(&["--config", "/nonexistent/semirt.toml"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nonexistent/semirt.toml"));
    let output = semirt(&["--config", CONFIG], &[("K_SERVICE", "semirt")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("SESEMI_KEYSERVICE"));
    assert!(
        !semirt(&["--config", CONFIG], &[("PORT", "70000")])
            .status
            .success()
    );
}
