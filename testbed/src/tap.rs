//! A recording TCP proxy: the operator's view of a connection that only passes through the host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use service::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes moved at a time.
const CHUNK: usize = 16 * 1024;

/// Listens on a free loopback port, forwards to `target` and writes both directions of every
/// connection to files `NAME-N-{up,down}.bin` in `folder`. Ends with `shutdown`.
pub async fn start(
    name: &'static str,
    target: SocketAddr,
    folder: PathBuf,
    shutdown: &Shutdown,
) -> std::io::Result<SocketAddr> {
    tokio::fs::create_dir_all(&folder).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    let (token, tracker) = (shutdown.token(), shutdown.tracker().clone());
    let serve = {
        let (token, tracker) = (token.clone(), tracker.clone());
        let folder = Arc::new(folder);
        let count = AtomicU64::new(0);
        async move {
            while let Ok((client, _)) = listener.accept().await {
                let n = count.fetch_add(1, Ordering::Relaxed);
                let stem = folder.join(format!("{name}-{n}"));
                let token = token.clone();
                tracker.spawn(async move {
                    let forward = forward(client, target, stem);
                    if let Some(Err(error)) = token.run_until_cancelled(forward).await {
                        tracing::debug!(%error, "tapped connection ended");
                    }
                });
            }
        }
    };
    tracker.spawn(async move { token.run_until_cancelled(serve).await });
    Ok(addr)
}

async fn forward(client: TcpStream, target: SocketAddr, stem: PathBuf) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = copy(client_read, server_write, stem.with_extension("up.bin"));
    let down = copy(server_read, client_write, stem.with_extension("down.bin"));
    tokio::try_join!(up, down).map(|_| ())
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    record: PathBuf,
) -> std::io::Result<()> {
    let mut record = tokio::fs::File::create(record).await?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        // Recorded before it is passed on: nothing crosses that the record does not have.
        record.write_all(&chunk[..n]).await?;
        record.flush().await?;
        to.write_all(&chunk[..n]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions_are_forwarded_and_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let echo = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let target = echo.local_addr().unwrap();
        let shutdown = Shutdown::new();
        shutdown.tracker().spawn(async move {
            let (mut peer, _) = echo.accept().await.unwrap();
            let mut ping = [0; 4];
            peer.read_exact(&mut ping).await.unwrap();
            peer.write_all(b"pong").await.unwrap();
        });
        let addr = start("t", target, folder.path().into(), &shutdown)
            .await
            .unwrap();
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"pong");
        assert_eq!(
            std::fs::read(folder.path().join("t-0.up.bin")).unwrap(),
            b"ping"
        );
        assert_eq!(
            std::fs::read(folder.path().join("t-0.down.bin")).unwrap(),
            b"pong"
        );
        shutdown.cancel();
        assert!(shutdown.wait(std::time::Duration::from_secs(5)).await);
    }
}
