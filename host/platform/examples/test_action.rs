//! An action server whose behaviour each call chooses: what the platform's tests run for real.
//!
//! It speaks OpenWhisk's action protocol on `PORT`, with threads and blocking sockets only. How it
//! starts is set by arguments, what a run does by `value.do`:
//! `echo` (default), `error`, `status`, `text`, `raw`, `crash`, `hang`, `sleep`, `big`, `chunked`,
//! `close`, `empty`, `array`, `log`, `hog`, `retire`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

const SENTINEL: &str = protocol::action::LOG_SENTINEL;

/// How it starts, from the command line.
#[derive(Debug, Default)]
struct Start {
    /// `--exit`: ends before it listens.
    exit: bool,
    /// `--slow MS`: listens late.
    slow_ms: u64,
    /// `--deaf`: never listens.
    deaf: bool,
    /// `--init-status N` and `--init-body TEXT`: answers `/init` so.
    init_status: u16,
    init_body: String,
    /// `--init-crash`: dies in `/init`.
    init_crash: bool,
    /// `--init-ms MS`: `/init` takes this long.
    init_ms: u64,
    /// `--mute`: writes no sentinel.
    mute: bool,
    /// `--child`: starts a process of its own, whose number `echo` tells.
    child: bool,
    /// `--stranger FILE`: if FILE is absent, lets a process of another group take the port, writes
    /// its number to FILE, and ends.
    stranger: Option<String>,
}

impl Start {
    fn from_args() -> Self {
        let mut start = Self {
            init_status: 200,
            init_body: "{\"ok\":true}".into(),
            ..Self::default()
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|n| n.parse().ok()).unwrap_or(0);
            match arg.as_str() {
                "--exit" => start.exit = true,
                "--slow" => start.slow_ms = number(),
                "--deaf" => start.deaf = true,
                "--init-status" => start.init_status = u16::try_from(number()).unwrap_or(500),
                "--init-body" => start.init_body = args.next().unwrap_or_default(),
                "--init-crash" => start.init_crash = true,
                "--init-ms" => start.init_ms = number(),
                "--mute" => start.mute = true,
                "--child" => start.child = true,
                "--stranger" => start.stranger = args.next(),
                other => say(&mut std::io::stderr(), &format!("unknown argument {other}")),
            }
        }
        start
    }
}

/// What `/init` brought, and counters.
#[derive(Debug, Default)]
struct Action {
    start: Start,
    initialised: Mutex<Option<Value>>,
    runs: AtomicU64,
    running: AtomicU64,
    most: AtomicU64,
    child: Option<u32>,
}

/// One answer. `length` is announced; without one the body is sent in chunks.
struct Answer {
    status: u16,
    body: Vec<u8>,
    chunked: bool,
}

impl Answer {
    fn json(value: &Value) -> Self {
        Self::bytes(200, value.to_string().into_bytes())
    }

    fn bytes(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            body,
            chunked: false,
        }
    }
}

fn main() -> std::io::Result<()> {
    let start = Start::from_args();
    if start.exit {
        return Ok(());
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the action protocol gives the port so"
    )]
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse::<u16>().ok());
    let port = port.unwrap_or(8080);
    if let Some(file) = start
        .stranger
        .as_ref()
        .filter(|file| !Path::new(file).exists())
    {
        let mut stranger = Command::new(std::env::current_exe()?);
        let stranger = stranger.process_group(0).stdout(Stdio::null()).spawn()?;
        std::fs::write(file, stranger.id().to_string())?;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            pause(1);
        }
        return Ok(());
    }
    pause(start.slow_ms);
    if start.deaf {
        wait_for_ever();
    }
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let child = if start.child {
        Some(Command::new("/bin/sleep").arg("600").spawn()?.id())
    } else {
        None
    };
    let action = Action {
        start,
        child,
        ..Action::default()
    };
    std::thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            scope.spawn(|| action.serve(stream));
        }
    });
    Ok(())
}

impl Action {
    /// Serves requests on one connection until the peer closes it.
    fn serve(&self, stream: TcpStream) {
        let Ok(mut writer) = stream.try_clone() else {
            return;
        };
        let mut reader = BufReader::new(stream);
        while let Some((path, body)) = read_request(&mut reader) {
            let value = serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null);
            let answer = match path.as_str() {
                "/init" => Some(self.init(value)),
                "/run" => self.run(&value),
                _ => Some(Answer::bytes(404, b"{\"error\":\"no such path\"}".to_vec())),
            };
            let Some(answer) = answer else {
                return;
            };
            if write_answer(&mut writer, &answer).is_err() {
                return;
            }
        }
    }

    fn init(&self, body: Value) -> Answer {
        pause(self.start.init_ms);
        if self.start.init_crash {
            die();
        }
        let mut initialised = self
            .initialised
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if initialised.is_some() {
            let error = "Cannot initialize the action more than once.";
            return Answer::bytes(403, json!({"error": error}).to_string().into_bytes());
        }
        say(&mut std::io::stdout(), "initialised");
        *initialised = Some(body);
        Answer::bytes(
            self.start.init_status,
            self.start.init_body.clone().into_bytes(),
        )
    }

    fn run(&self, body: &Value) -> Option<Answer> {
        let initialised = self
            .initialised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(initialised) = initialised else {
            return Some(Answer::bytes(
                403,
                b"{\"error\":\"System not initialized.\"}".to_vec(),
            ));
        };
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let seq = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let empty = Map::new();
        let value = body
            .get("value")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        let answer = self.behave(value, body, &initialised, seq);
        self.running.fetch_sub(1, Ordering::SeqCst);
        if !self.start.mute {
            say(&mut std::io::stdout(), SENTINEL);
            say(&mut std::io::stderr(), SENTINEL);
        }
        answer
    }

    fn behave(
        &self,
        value: &Map<String, Value>,
        body: &Value,
        initialised: &Value,
        seq: u64,
    ) -> Option<Answer> {
        let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let size = usize::try_from(number("size")).unwrap_or(0);
        let behaviour = value.get("do").and_then(Value::as_str).unwrap_or("echo");
        match behaviour {
            "error" => return Some(Answer::json(&json!({"error": text("text"), "more": 1}))),
            "status" => {
                let status = u16::try_from(number("status")).unwrap_or(500);
                return Some(Answer::bytes(status, text("text").as_bytes().to_vec()));
            }
            "text" => return Some(Answer::bytes(200, text("text").as_bytes().to_vec())),
            "array" => return Some(Answer::json(&json!([1, "two"]))),
            "empty" => return Some(Answer::bytes(204, Vec::new())),
            "big" => return Some(Answer::json(&json!({"big": "x".repeat(size)}))),
            "chunked" => {
                let body = b"{\"chunked\":true}".to_vec();
                return Some(Answer {
                    status: 200,
                    body,
                    chunked: true,
                });
            }
            "close" => return None,
            // An instance that has served before shuts down; a fresh one serves.
            "retire" if seq > 1 => return Some(Answer::bytes(503, b"{}".to_vec())),
            "crash" => die(),
            "hang" => wait_for_ever(),
            "sleep" => pause(number("ms")),
            "hog" => {
                let held = vec![1_u8; size];
                pause(number("ms"));
                drop(held);
            }
            "log" => {
                say(&mut std::io::stdout(), text("text"));
                say(&mut std::io::stderr(), "and on stderr");
            }
            _ => {}
        }
        Some(Answer::json(&json!({
            "value": value,
            "request": body.as_object().map(|body| {
                body.iter().filter(|(k, _)| *k != "value").collect::<BTreeMap<_, _>>()
            }),
            "init": initialised.get("value"),
            "env": std::env::vars().collect::<BTreeMap<_, _>>(),
            "pid": std::process::id(),
            "child": self.child,
            "seq": seq,
            "most": self.most.load(Ordering::SeqCst),
        })))
    }
}

/// Path and body of the next request.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn write_answer(writer: &mut TcpStream, answer: &Answer) -> std::io::Result<()> {
    let Answer {
        status,
        body,
        chunked,
    } = answer;
    let length = body.len();
    let mut out = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n").into_bytes();
    if *chunked {
        write!(out, "transfer-encoding: chunked\r\n\r\n{length:x}\r\n")?;
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n0\r\n\r\n");
    } else if *status == 204 {
        out.extend_from_slice(b"\r\n");
    } else {
        write!(out, "content-length: {length}\r\n\r\n")?;
        out.extend_from_slice(body);
    }
    writer.write_all(&out)
}

fn say(stream: &mut dyn Write, line: &str) {
    // Nobody may read it any more.
    if stream
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| stream.flush())
        .is_err()
    {
        die();
    }
}

fn die() -> ! {
    std::process::abort()
}

fn pause(ms: u64) {
    if ms > 0 {
        let never = Mutex::new(());
        let guard = never.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Duration::from_millis(ms);
        drop(Condvar::new().wait_timeout_while(guard, until, |()| true));
    }
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}
