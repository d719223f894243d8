//! Our side of testvectors/check.py: one JSON command in each line of stdin, one answer in each
//! line of stdout. Bytes are hexadecimal; artifacts are files. Only for checks: keys are in the
//! clear.
//!
//! `{"op": "open_request", …}` is answered by `{"ok": {…}}` or `{"refused": "why"}`.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead as _, BufWriter, Write};

use crypto::{
    Binding, DigestWriter, IdentityKey, ModelKey, PlaintextSink, RequestKey, ResponseKey,
    SealingKey, SinkError,
};
use protocol::{EnclaveId, ModelId, ModelVersion, PrincipalId, RequestId};
use serde::Deserialize;
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    SealRequest { message: Message },
    OpenRequest { message: Message },
    SealResponse { message: Message },
    OpenResponse { message: Message },
    SealArtifact { artifact: Artifact },
    OpenArtifact { artifact: Artifact },
    SealRecord { record: Record },
    OpenRecord { record: Record },
    Principal { pem: String },
    NewIdentity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    key: String,
    user: PrincipalId,
    model: ModelId,
    enclave: EnclaveId,
    request_id: RequestId,
    /// The payload to seal or the envelope to open.
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Artifact {
    key: String,
    model: ModelId,
    version: ModelVersion,
    from: String,
    to: String,
    threads: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    key: String,
    id: String,
    epoch: u64,
    content: String,
}

fn main() -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        // A command that is not understood is a defect of the script: stop, so that it is seen.
        let command: Command = serde_json::from_str(&line?)?;
        let answer = match run(command) {
            Ok(value) => json!({ "ok": value }),
            Err(e) => json!({ "refused": e.to_string() }),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn run(command: Command) -> Result<Value, Failure> {
    match command {
        Command::SealRequest { message } => message.seal_request(),
        Command::OpenRequest { message } => message.open_request(),
        Command::SealResponse { message } => message.seal_response(),
        Command::OpenResponse { message } => message.open_response(),
        Command::SealArtifact { artifact } => artifact.seal(),
        Command::OpenArtifact { artifact } => artifact.open(),
        Command::SealRecord { record } => {
            let key = SealingKey::from_slice(&hex::decode(&record.key)?)?;
            let (id, plain) = (hex::decode(&record.id)?, hex::decode(&record.content)?);
            Ok(hex::encode(crypto::seal_record(&key, &id, record.epoch, &plain)?).into())
        }
        Command::OpenRecord { record } => {
            let key = SealingKey::from_slice(&hex::decode(&record.key)?)?;
            let (id, sealed) = (hex::decode(&record.id)?, hex::decode(&record.content)?);
            Ok(hex::encode(&*crypto::open_record(&key, &id, record.epoch, &sealed)?).into())
        }
        Command::Principal { pem } => Ok(IdentityKey::from_pkcs8_pem(&pem)?
            .principal()
            .to_string()
            .into()),
        Command::NewIdentity => {
            let key = IdentityKey::generate()?;
            Ok(json!({ "pem": *key.to_pkcs8_pem(), "principal": key.principal() }))
        }
    }
}

impl Message {
    fn binding(&self) -> Binding<'_> {
        Binding {
            user: &self.user,
            model: &self.model,
            enclave: &self.enclave,
            request_id: &self.request_id,
        }
    }

    fn request_key(&self) -> Result<RequestKey, Failure> {
        Ok(RequestKey::from_slice(&hex::decode(&self.key)?)?)
    }

    fn response_key(&self) -> Result<ResponseKey, Failure> {
        Ok(ResponseKey::from_slice(&hex::decode(&self.key)?)?)
    }

    fn seal_request(&self) -> Result<Value, Failure> {
        let payload = hex::decode(&self.content)?;
        let (envelope, key) =
            crypto::seal_request(&self.request_key()?, &self.binding(), &payload)?;
        Ok(message(&envelope, &key))
    }

    fn open_request(&self) -> Result<Value, Failure> {
        let envelope = hex::decode(&self.content)?;
        let (payload, key) =
            crypto::open_request(&self.request_key()?, &self.binding(), &envelope)?;
        Ok(message(&payload, &key))
    }

    fn seal_response(&self) -> Result<Value, Failure> {
        let payload = hex::decode(&self.content)?;
        let envelope = crypto::seal_response(&self.response_key()?, &self.binding(), &payload)?;
        Ok(json!({ "content": hex::encode(envelope) }))
    }

    fn open_response(&self) -> Result<Value, Failure> {
        let envelope = hex::decode(&self.content)?;
        let payload = crypto::open_response(&self.response_key()?, &self.binding(), &envelope)?;
        Ok(json!({ "content": hex::encode(&*payload) }))
    }
}

fn message(content: &[u8], response_key: &ResponseKey) -> Value {
    let response_key = crypto::vectors::response_key_bytes(response_key);
    json!({ "content": hex::encode(content), "response_key": hex::encode(response_key) })
}

impl Artifact {
    fn seal(&self) -> Result<Value, Failure> {
        let key = ModelKey::from_slice(&hex::decode(&self.key)?)?;
        let mut from = File::open(&self.from)?;
        let mut to = BufWriter::new(File::create(&self.to)?);
        let (threads, model, version) = (self.threads, &self.model, self.version);
        let sealed =
            crypto::artifact::seal_artifact_on(threads, &key, model, version, &mut from, &mut to)?;
        to.flush()?;
        Ok(json!({ "len": sealed.len, "digest": sealed.digest }))
    }

    /// Opens whatever the file holds: its digest is taken from it first.
    fn open(&self) -> Result<Value, Failure> {
        struct ToFile(File);
        impl PlaintextSink for ToFile {
            fn begin(&mut self, plaintext_len: u64) -> Result<(), SinkError> {
                self.0.set_len(plaintext_len).map_err(SinkError::new)
            }
            fn write(&mut self, segment: &[u8]) -> Result<(), SinkError> {
                self.0.write_all(segment).map_err(SinkError::new)
            }
        }
        let key = ModelKey::from_slice(&hex::decode(&self.key)?)?;
        let mut hash = DigestWriter::new();
        let len = io::copy(&mut File::open(&self.from)?, &mut hash)?;
        let digest = hash.finish();
        let mut from = File::open(&self.from)?;
        let mut to = ToFile(File::create(&self.to)?);
        let (threads, model, version) = (self.threads, &self.model, self.version);
        crypto::open_artifact(
            &key, model, version, digest, &mut from, len, threads, &mut to,
        )?;
        Ok(json!({ "len": crypto::plaintext_len(len)? }))
    }
}
