//! `sesemi-dev up`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use service::Shutdown;

use crate::cluster::{Cluster, Options, Packing};
use crate::demo::parties::Person;
use crate::progress::Progress;
use crate::state::StateFolder;

/// What a developer system takes.
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// Folder for everything that the system keeps; made if absent, used again if there.
    #[arg(long, value_name = "FOLDER", default_value_os_t = super::default_state())]
    state: PathBuf,
    /// Port of KeyService; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    keyservice_port: u16,
    /// Port of the platform (OpenWhisk's REST API).
    #[arg(long, default_value_t = 0)]
    platform_port: u16,
    /// Port of FnPacker.
    #[arg(long, default_value_t = 0)]
    fnpacker_port: u16,
    /// Functions that FnPacker may pack models onto.
    #[arg(long, default_value_t = 2)]
    endpoints: u32,
    /// Requests that one instance serves at once (part of E_S).
    #[arg(long, default_value_t = 4)]
    concurrency: u16,
    /// Longest lease, in seconds: how late a revocation may take effect (part of E_K and E_S).
    #[arg(long, default_value_t = 300)]
    lease_ttl_s: u32,
    #[command(flatten)]
    packing: Packing,
    /// Record everything that crosses the host in the state folder.
    #[arg(long)]
    record: bool,
    /// For a program that starts this one: print one line of JSON when everything listens, and stop
    /// when standard input ends, which it also does when that program is killed.
    #[arg(long, hide = true)]
    attended: bool,
}

pub(super) fn run(args: &UpArgs) -> anyhow::Result<ExitCode> {
    service::init_logging("warn", false);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let options = Options {
            exe: std::env::current_exe().context("find this executable")?,
            lease_ttl_s: args.lease_ttl_s,
            concurrency: args.concurrency,
            endpoints: args.endpoints,
            packing: args.packing.clone(),
            ports: [args.keyservice_port, args.platform_port, args.fnpacker_port],
            record: args.record,
        };
        let state = StateFolder::create(&args.state)
            .with_context(|| format!("make the state folder {}", args.state.display()))?;
        let shutdown = Shutdown::new();
        let progress = Progress::on_stderr();
        let start = Cluster::start(options, state, |part| {
            progress.step(&format!("starting {part}"))
        });
        let mut cluster = start.await?;
        progress.finish();
        for who in ["user", "owner"] {
            Person::at(cluster.state().root().join(who))?;
        }
        write_profile(&cluster, &["user", "owner"])?;
        if args.attended {
            say_where(&cluster);
        } else {
            show_usage(&cluster);
        }
        let stopped = tokio::select! {
            stopped = until_stopped(&shutdown, &mut cluster) => stopped,
            () = until_stdin_ends(), if args.attended => Ok(()),
        };
        cluster.stop().await;
        stopped?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Waits for Ctrl-C, a SIGTERM, or somebody else's word. A part that ends before is an error.
pub(super) async fn until_stopped(
    shutdown: &Shutdown,
    cluster: &mut Cluster,
) -> anyhow::Result<()> {
    tokio::select! {
        stopped = shutdown.on_signals() => Ok(stopped?),
        broken = cluster.broken() => anyhow::bail!(broken),
    }
}

/// Whoever holds the other end is gone, however that came about.
async fn until_stdin_ends() {
    // A thread of its own: tokio would wait for its blocking read when the runtime stops.
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let read = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        tracing::debug!(?read, "standard input ended");
        drop(ended);
    });
    drop(end.await);
}

#[expect(clippy::print_stdout, reason = "the answer to the program that asked")]
fn say_where(cluster: &Cluster) {
    let said = serde_json::json!({
        "keyservice": cluster.keyservice(),
        "platform": cluster.platform_url(),
        "fnpacker": cluster.fnpacker_url(),
        "enclave": cluster.identities().semirt,
        "state": cluster.state().root(),
    });
    println!("{said}");
}

/// A profile for each person; the first one's is the default.
pub(super) fn write_profile(cluster: &Cluster, people: &[&str]) -> anyhow::Result<()> {
    let state = cluster.state();
    let ids = cluster.identities();
    let principals: Vec<String> = people
        .iter()
        .map(|who| {
            Ok(format!(
                "{who} = \"{}\"",
                Person::at(state.root().join(who))?.principal()
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    for (i, who) in people.iter().enumerate() {
        let text = format!(
            "identity = {:?}\n\n[keyservice]\naddress = \"{}\"\nenclave = \"{}\"\n\
             accepted = [\"simulated\"]\n\n[inference]\nurl = \"{}\"\nenclave = \"semirt\"\n\n\
             [store]\nurl = \"{}\"\n\n[roots]\nsimulated = {:?}\n\n[enclaves]\nsemirt = \"{}\"\n\n\
             [principals]\n{}\n",
            state.root().join(who).join("identity.pem"),
            cluster.keyservice(),
            ids.keyservice,
            cluster.fnpacker_url(),
            cluster.store_url(),
            cluster.root_file(),
            ids.semirt,
            principals.join("\n"),
        );
        std::fs::write(state.root().join(format!("{who}.toml")), &text)?;
        if i == 0 {
            std::fs::write(state.profile(), &text)?;
        }
    }
    Ok(())
}

/// How to use what runs.
#[expect(
    clippy::print_stdout,
    reason = "instructions for the person at the terminal"
)]
pub(super) fn show_usage(cluster: &Cluster) {
    let root = cluster.state().root().display();
    let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("sesemi-dev"));
    println!(
        "\nRunning on this machine, on a simulated TEE; state in {root}\n\
         \x20 KeyService  {}  E_K {}…\n\
         \x20 platform    {}  (OpenWhisk API; key in {root}/platform.auth)\n\
         \x20 FnPacker    {}  E_S {}…\n\n\
         From another terminal, as the user and as the owner:\n\
         \x20 alias sesemi='\"{exe}\" cli --profile \"{root}/user.toml\"'\n\
         \x20 alias sesemi-owner='\"{exe}\" cli --profile \"{root}/owner.toml\"'\n\
         \x20 sesemi verify keyservice\n\
         \x20 sesemi-owner model publish --help\n\
         \x20 sesemi infer --help\n\n\
         The walk-through is docs/cli.md. Ctrl-C stops everything.",
        cluster.keyservice(),
        cluster.identities().keyservice.short(),
        cluster.platform_url(),
        cluster.fnpacker_url(),
        cluster.identities().semirt.short(),
        exe = exe.display(),
    );
}
