//! Fresh identifiers: activations, requests, keys. Their randomness is the kernel's.

use rustix::rand::{GetRandomFlags, getrandom};

/// The kernel has no randomness to give.
#[derive(Debug, thiserror::Error)]
#[error("read random bytes from the kernel")]
pub struct RandomError(#[from] std::io::Error);

/// A version 4 UUID.
fn uuid() -> Result<[u8; 16], RandomError> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Ok(bytes)
}

/// A new activation's id: a version 4 UUID without dashes.
pub(crate) fn activation_id() -> Result<String, RandomError> {
    Ok(hex(&uuid()?))
}

/// A request's id, where the caller brought none: 32 letters and digits.
pub(crate) fn request_id() -> Result<String, RandomError> {
    letters_and_digits(32)
}

/// A namespace's key: `uuid:secret`, the secret 64 letters and digits.
pub(crate) fn auth_key() -> Result<String, RandomError> {
    let id = hex(&uuid()?);
    let dashed = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    Ok(format!("{dashed}:{}", letters_and_digits(64)?))
}

/// Whether `text` has the form of an activation id. The error is OpenWhisk's.
pub(crate) fn check_activation_id(text: &str) -> Result<(), String> {
    let length = text.chars().count();
    if length != protocol::openwhisk::ACTIVATION_ID_LEN {
        return Err(format!("Activation id length is {length} but must be 32."));
    }
    let digit = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f');
    if text.chars().all(digit) {
        Ok(())
    } else {
        Err("The activation id is not valid.".into())
    }
}

fn letters_and_digits(count: usize) -> Result<String, RandomError> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        fill(&mut bytes)?;
        // Rejecting the top keeps every letter equally likely.
        let letters = bytes
            .iter()
            .filter(|b| **b < 248)
            .map(|b| ALPHABET[usize::from(*b) % 62]);
        text.extend(letters.take(count - text.len()).map(char::from));
    }
    Ok(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn fill(bytes: &mut [u8]) -> Result<(), RandomError> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(RandomError(error.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_32_hexadecimal_digits_are_an_activation_id() {
        for (bad, error) in [
            ("", "Activation id length is 0 but must be 32."),
            ("0123", "Activation id length is 4 but must be 32."),
            (
                "0123456789ABCDEF0123456789ABCDEF",
                "The activation id is not valid.",
            ),
            (
                "0123456789abcdeg0123456789abcdef",
                "The activation id is not valid.",
            ),
        ] {
            assert_eq!(check_activation_id(bad).unwrap_err(), error);
        }
        check_activation_id(&activation_id().unwrap()).unwrap();
    }

    #[test]
    fn fresh_ids_have_their_form_and_differ() {
        let (a, b) = (activation_id().unwrap(), activation_id().unwrap());
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[12..13]), (32, "4"));
        let key = auth_key().unwrap();
        let (uuid, secret) = key.split_once(':').unwrap();
        assert_eq!((uuid.len(), secret.len()), (36, 64));
        assert_eq!(request_id().unwrap().len(), 32);
    }
}
