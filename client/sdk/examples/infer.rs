//! Asks a model, as a user whose request key is registered.
//!
//! Start a system and register a key as docs/cli.md shows, then:
//!
//! ```text
//! cargo run -p sesemi-sdk --example infer -- \
//!     FNPACKER_URL .state/user/identity.pem MODEL ENCLAVE models/digits/inputs.json
//! ```
//!
//! FNPACKER_URL and ENCLAVE (E_S) stand in .state/user.toml.
#![expect(clippy::print_stdout, reason = "an example shows its answer")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use crypto::IdentityKey;
use protocol::oip::InferRequest;
use protocol::{EnclaveId, ModelId};
use sdk::{Explain as _, Gateway, InferClient, RequestKeyring, RetryPolicy};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [url, identity, model, enclave, inputs] = arguments.as_slice() else {
        return Err("usage: infer FNPACKER_URL IDENTITY MODEL ENCLAVE INPUTS.json".into());
    };

    // Who asks. The request keys lie beside the identity, where `sesemi key register` put them.
    let identity_file = PathBuf::from(identity);
    let identity = IdentityKey::read_file(&identity_file)?;
    let keyring = RequestKeyring::new(identity_file.with_extension("keys"));

    // What is asked, of which model, inside which enclave: all three are sealed into the request.
    let model: ModelId = model.parse()?;
    let enclave: EnclaveId = enclave.parse()?;
    let request = InferRequest::from_json(&std::fs::read(inputs)?)?;

    let retry = RetryPolicy::with_deadline(Duration::from_secs(30));
    let client = InferClient::new(Gateway::new(url)?, identity.principal(), keyring, retry);
    match client.infer(&model, &enclave, &request.inputs).await {
        Ok(answer) => {
            for output in &answer.outputs {
                println!("{output:?}");
                if let Some(values) = output.to_f32() {
                    println!("{values:?}");
                }
            }
            println!("{:?}, {:?} in all", answer.telemetry.path, answer.elapsed);
            Ok(())
        }
        Err(error) => {
            println!("{} ({:?}): {}", error.code(), error.fault(), error.advice());
            Err(error.into())
        }
    }
}
