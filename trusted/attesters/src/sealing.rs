//! Keys for data at rest, where the hardware has one for the measured code.

use std::io;

use attestation::CollectError;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use crypto::secret::SealingKey;
use zeroize::Zeroizing;

use crate::retry::{Blocking, Pause, Setback, persist};
use crate::sev_guest::{DerivedKeyRequest, SevGuest};

const WHAT: &str = "a sealing key";
const SALT: &[u8] = b"sesemi/seal/1";

/// Why there is no sealing key: a limit of the hardware or of how it is reached, not a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoSealingKey {
    #[error(
        "Intel TDX gives a guest no key of its own: state has to be sealed by a key service, or \
         handed over by an attested peer"
    )]
    Tdx,
    #[error(
        "a Nitro enclave has no key of its own: state has to be sealed by a key service that \
         checks attestation documents, or handed over by an attested peer"
    )]
    Nitro,
    #[error("a vTPM of Azure seals for the virtual machine, not for the measured code")]
    AzureVtpm,
    #[error("SEV-SNP derives keys through /dev/sev-guest, which is not there")]
    SnpWithoutDevice,
}

impl From<NoSealingKey> for CollectError {
    fn from(why: NoSealingKey) -> Self {
        Self::Device {
            what: WHAT,
            source: io::Error::new(io::ErrorKind::Unsupported, why),
        }
    }
}

struct Len;

impl KeyType for Len {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA256 (RFC 5869): a hardware key of any length into one of ours; `source` keeps keys of
/// different origin apart.
pub(crate) fn expand(hardware: &[u8], source: &str) -> Result<SealingKey, CollectError> {
    let unexpected = || CollectError::Unexpected { what: WHAT };
    if hardware.len() < 16 || hardware.iter().all(|byte| *byte == 0) {
        return Err(unexpected());
    }
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, SALT)
        .extract(hardware)
        .expand(&[source.as_bytes()], Len)
        .and_then(|okm| okm.fill(key.as_mut()))
        .map_err(|_| unexpected())?;
    SealingKey::from_slice(key.as_ref()).map_err(|_| unexpected())
}

/// SNP_GET_DERIVED_KEY (AMD 56860, MSG_KEY_REQ): from the chip's key, with the launch measurement
/// and the guest policy mixed in, so that neither other code nor a debug guest derives it. Not
/// mixed in: TCB and guest SVN, so that it outlives an update of the firmware.
pub(crate) fn snp(device: &dyn SevGuest) -> Result<SealingKey, CollectError> {
    snp_with(device, &Blocking)
}

fn snp_with(device: &dyn SevGuest, pause: &dyn Pause) -> Result<SealingKey, CollectError> {
    let key = persist(pause, || {
        device
            .derived_key(&DerivedKeyRequest::sealing())
            .map(Zeroizing::new)
            .map_err(|refusal| match refusal.busy() {
                true => Setback::Busy,
                false => Setback::from_io(WHAT, refusal.source),
            })
    })?;
    expand(key.as_ref(), "sev-snp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_origin_differ_and_are_stable() {
        let one = expand(&[1; 16], "a").unwrap();
        assert!(one.ct_eq(&expand(&[1; 16], "a").unwrap()));
        assert!(!one.ct_eq(&expand(&[1; 16], "b").unwrap()));
        assert!(!one.ct_eq(&expand(&[2; 16], "a").unwrap()));
    }

    #[test]
    fn what_is_no_key_gives_none() {
        for not in [&[][..], &[1; 15], &[0; 16], &[0; 32]] {
            assert!(expand(not, "a").is_err(), "{not:?}");
        }
    }

    #[test]
    fn a_limit_of_the_hardware_says_so() {
        let error = CollectError::from(NoSealingKey::Tdx);
        let CollectError::Device { source, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(source.kind(), io::ErrorKind::Unsupported);
        assert!(source.to_string().contains("gives a guest no key"));
    }
}
