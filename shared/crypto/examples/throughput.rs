//! How fast artifacts are sealed and opened, beside the raw AES-256-GCM, SHA-256 and memcpy of the
//! same run: `cargo run --release -p sesemi-crypto --example throughput [MiB]`.
//!
//! Best of five, in GB/s (10^9 bytes of plaintext). The bound on one thread is hashing and
//! encrypting one after the other; on two it is the slower of both, which is hashing.

use std::error::Error;
use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use crypto::artifact::seal_artifact_on;
use crypto::{ModelKey, PlaintextSink, SinkError, open_artifact, sha256};
use protocol::ModelVersion;

const ROUNDS: usize = 5;
const SEGMENT: usize = 1 << 20;

struct Memory(Vec<u8>);

impl PlaintextSink for Memory {
    fn begin(&mut self, _: u64) -> Result<(), SinkError> {
        self.0.clear();
        Ok(())
    }

    fn write(&mut self, segment: &[u8]) -> Result<(), SinkError> {
        self.0.extend_from_slice(segment);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mib = std::env::args()
        .nth(1)
        .map_or(Ok(256), |arg| arg.parse::<usize>())?;
    let len = mib << 20;
    let plain: Vec<u8> = (0..=255).cycle().take(len).collect();
    let (key, model, version) = (ModelKey::generate()?, "bench".parse()?, ModelVersion(1));
    let mut out = io::stdout().lock();
    let mut report = |what: &str, time: Duration| {
        writeln!(
            out,
            "{what:<28} {:6.2} GB/s",
            len as f64 / time.as_secs_f64() / 1e9
        )
    };

    let mut copy = vec![0; len];
    report("memcpy", best(|| copy.copy_from_slice(black_box(&plain))))?;
    report(
        "SHA-256",
        best(|| assert_ne!(sha256(&plain).as_bytes(), &[0; 32])),
    )?;
    let raw = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32])?);
    let seal_raw = |segment: &mut [u8]| {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        raw.seal_in_place_separate_tag(nonce, Aad::empty(), segment)
    };
    let time = best(|| {
        copy.chunks_mut(SEGMENT)
            .for_each(|s| drop(black_box(seal_raw(s))))
    });
    report("AES-256-GCM, 1 thread", time)?;
    let time = best(|| {
        std::thread::scope(|scope| {
            for half in copy.chunks_mut(len.div_ceil(2).max(1)) {
                let seal_raw = &seal_raw;
                scope.spawn(move || {
                    half.chunks_mut(SEGMENT)
                        .for_each(|s| drop(black_box(seal_raw(s))));
                });
            }
        });
    });
    report("AES-256-GCM, 2 threads", time)?;

    let mut artifact = Vec::with_capacity(len + len / 1000 + 1000);
    let mut sink = Memory(copy);
    for threads in [1, 2] {
        let mut sealed = None;
        let time = best(|| {
            artifact.clear();
            let (src, out) = (&mut plain.as_slice(), &mut artifact);
            sealed = seal_artifact_on(threads, &key, &model, version, src, out).ok();
        });
        let sealed = sealed.ok_or("could not seal")?;
        report(&format!("seal artifact, {threads} thread(s)"), time)?;
        let mut opened = Ok(());
        let time = best(|| {
            let (src, digest, sink) = (&mut artifact.as_slice(), sealed.digest, &mut sink);
            opened = open_artifact(
                &key, &model, version, digest, src, sealed.len, threads, sink,
            );
        });
        opened?;
        report(&format!("open artifact, {threads} thread(s)"), time)?;
        assert!(sink.0 == plain, "what was opened is not what was sealed");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a measurement is of real time")]
fn best(mut work: impl FnMut()) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}
