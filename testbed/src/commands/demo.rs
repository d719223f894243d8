//! `sesemi-dev demo`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use cli::args::Preprocess;
use protocol::tensor::Tensor;
use service::Shutdown;

use crate::demo::cases::Case;
use crate::demo::report::Report;
use crate::demo::{Demo, Extra, Wishes};
use crate::progress::Progress;
use crate::state::StateFolder;

/// What the demo takes.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Write what happened as JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave everything running afterwards, and say how to use it.
    #[arg(long)]
    keep: bool,
    /// Serve this model of the zoo as well (models/zoo.py makes it).
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// A picture for that model (.png or .jpg), decoded and scaled here, at the client.
    #[arg(long, value_name = "FILE", requires = "model")]
    input: Option<PathBuf>,
}

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    service::init_logging("warn", false);
    let wishes = Wishes {
        extra: extra(args)?,
    };
    let folder = tempfile::Builder::new().prefix("sesemi-demo-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        let demo = shutdown.token().run_until_cancelled_owned(demo(
            args,
            &wishes,
            folder.path(),
            shutdown.clone(),
        ));
        let (signal, demo) = tokio::join!(shutdown.on_signals(), async {
            let result = demo.await;
            shutdown.cancel();
            result
        });
        signal?;
        // Interrupted before the end: what was started is killed, since its owner was dropped.
        demo.unwrap_or(Ok(ExitCode::from(130)))
    });
    remove(folder);
    result
}

/// Removes the folder, also while the last killed process still holds a file in it.
fn remove(folder: tempfile::TempDir) {
    let path = folder.keep();
    for _ in 0..100 {
        if std::fs::remove_dir_all(&path).is_ok() || !path.exists() {
            return;
        }
        std::thread::yield_now();
    }
    tracing::warn!(path = %path.display(), "folder could not be removed");
}

async fn demo(
    args: &DemoArgs,
    wishes: &Wishes,
    folder: &Path,
    shutdown: Shutdown,
) -> anyhow::Result<ExitCode> {
    let state = StateFolder::create(folder)?;
    let progress = Progress::on_stderr();
    let exe = std::env::current_exe().context("find this executable")?;
    let result = crate::demo::run(&exe, state, wishes, &progress).await;
    progress.finish();
    let Demo {
        mut cluster,
        report,
    } = match result {
        Ok(demo) => demo,
        Err(error) => {
            // The folder goes away with this command: show what its logs say last.
            show_logs(&folder.join("logs"));
            return Err(error);
        }
    };
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    show(&report);
    if args.keep {
        super::up::write_profile(&cluster, &["user", "owner"])?;
        super::up::show_usage(&cluster);
        super::up::until_stopped(&shutdown, &mut cluster).await?;
    }
    cluster.stop().await;
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn extra(args: &DemoArgs) -> anyhow::Result<Option<Extra>> {
    let Some(name) = &args.model else {
        return Ok(None);
    };
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo");
    let folder = zoo.join(name);
    if name.contains(['/', '\\']) || !folder.is_dir() {
        bail!(
            "there is no model '{name}' in {}; `models/zoo.py --only {name}` makes it (see models/README.md)",
            zoo.display()
        );
    }
    let case = Case::from_folder(name, &folder)?;
    let input = args.input.as_ref().map(|path| {
        // Named as given, or as a picture that the zoo brought along.
        let path = if path.exists() {
            path.clone()
        } else {
            zoo.join(path)
        };
        picture(&path, &case)
    });
    Ok(Some(Extra {
        input: input.transpose()?,
        case,
    }))
}

/// A picture as the input of `case`, with the preprocessing that models of its kind want.
fn picture(path: &Path, case: &Case) -> anyhow::Result<Vec<Tensor>> {
    let preprocess = match case.name.as_str() {
        "efficientnet-lite0" => Preprocess::EfficientnetLite,
        "mobilenet-v1" | "resnet101-v2" => Preprocess::Tensorflow,
        "densenet121" => Preprocess::Imagenet,
        "digits" => Preprocess::Digits8x8,
        other => bail!("'{other}' does not take a picture"),
    };
    let name = case
        .inputs
        .first()
        .context("the model has no input")?
        .name();
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let tensor = cli::input::picture::read(name, &bytes, preprocess)
        .with_context(|| format!("use the picture {}", path.display()))?;
    Ok(vec![tensor])
}

#[expect(clippy::print_stdout, reason = "the demo's tables are for stdout")]
fn show(report: &Report) {
    println!(
        "\nOne SeMIRT instance, several encrypted models; times in ms\n{}",
        report.requests_table()
    );
    println!("\nWhat is refused\n{}", report.refusals_table());
    let view = &report.operator_view;
    println!(
        "\nWhat the operator saw: {} files, {} bytes. One request:",
        view.files, view.bytes
    );
    if let Some(sample) = &view.sample {
        println!("{sample:#}");
    }
    println!(
        "Searched for {} pieces of inputs, answers and weights (raw, base64, hexadecimal, decimal): {} found.",
        view.needles, report.leaks_found
    );
    for leak in &view.leaks {
        println!("  LEAK: {leak}");
    }
    println!(
        "The same search finds an unsealed request as {}.",
        view.controls.join(", ")
    );
    println!(
        "\n{} in {:.1} s, on a simulated TEE: every step but the vendor's signature is real.",
        if report.ok {
            "All as it should be"
        } else {
            "NOT as it should be"
        },
        report.seconds
    );
}

/// The last lines of every log, when something went wrong.
#[expect(clippy::print_stderr, reason = "diagnosis of a failed demo")]
fn show_logs(folder: &Path) {
    let Ok(logs) = std::fs::read_dir(folder) else {
        return;
    };
    for log in logs.filter_map(Result::ok) {
        let text = std::fs::read_to_string(log.path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        eprintln!("--- {}", log.path().display());
        for line in &lines[lines.len().saturating_sub(15)..] {
            eprintln!("{line}");
        }
    }
}
