//! `sesemi identity …`.

use std::path::Path;

use crypto::IdentityKey;
use sdk::keyring::KeyringError;
use sdk::state_file::create_private_dir;
use serde_json::json;

use super::Context;
use crate::args::IdentityCommand;
use crate::failure::Failure;
use crate::report::{Report, fields};

pub(super) fn run(context: &Context<'_>, command: IdentityCommand) -> Result<Report, Failure> {
    match command {
        IdentityCommand::New { out } => {
            let path = match out {
                Some(path) => path,
                None => context.profile.identity()?,
            };
            if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                create_private_dir(folder)?;
            }
            let identity = IdentityKey::generate().map_err(KeyringError::from)?;
            identity.write_file(&path).map_err(KeyringError::from)?;
            Ok(report(&identity, &path))
        }
        IdentityCommand::Show => {
            let (identity, home) = context.identity()?;
            Ok(report(&identity, home.identity()))
        }
    }
}

fn report(identity: &IdentityKey, path: &Path) -> Report {
    let principal = identity.principal();
    let path = path.display().to_string();
    Report::ok(
        fields([
            ("principal", principal.to_string()),
            ("key file", path.clone()),
        ]),
        json!({ "principal": principal, "path": path }),
    )
}
