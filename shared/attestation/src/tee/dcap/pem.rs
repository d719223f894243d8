//! Certificates in PEM (RFC 7468), read exactly or leniently.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Most certificates in a chain. Intel's have two or three.
const CERTIFICATES_MAX: usize = 5;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const WIDTH: usize = 64;

/// The certificates of a text in which every character counts, except for line ends and what ends
/// the text (a line end, a zero byte, or neither).
///
/// `None` for a text that has another form, so that an attacker cannot hide bytes in it.
pub(super) fn exact(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = str::from_utf8(text).ok()?;
    let text = text.trim_end_matches(['\0', '\r', '\n']);
    let mut lines = text.lines();
    let mut certificates = Vec::new();
    while let Some(line) = lines.next() {
        if line != BEGIN || certificates.len() == CERTIFICATES_MAX {
            return None;
        }
        let mut body = String::new();
        let mut full = true;
        loop {
            let line = lines.next()?;
            if line == END {
                break;
            }
            // Only the last line may be shorter.
            if !full || line.is_empty() || line.len() > WIDTH {
                return None;
            }
            full = line.len() == WIDTH;
            body.push_str(line);
        }
        certificates.push(STANDARD.decode(body).ok()?);
    }
    Some(certificates)
}

/// The certificates of a text whose form does not matter: nothing is derived from its bytes.
pub(super) fn lenient(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END)?;
        if certificates.len() == CERTIFICATES_MAX {
            return None;
        }
        let body: String = body
            .chars()
            .filter(|character| !character.is_ascii_whitespace())
            .collect();
        certificates.push(STANDARD.decode(body).ok()?);
        rest = after;
    }
    Some(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: &[&[u8]]) -> String {
        of.iter()
            .map(|der| {
                let body = STANDARD.encode(der);
                let lines: Vec<_> = body
                    .as_bytes()
                    .chunks(WIDTH)
                    .map(|line| str::from_utf8(line).unwrap())
                    .collect();
                format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
            })
            .collect()
    }

    #[test]
    fn every_form_that_platforms_write_is_read() {
        let ders: Vec<Vec<u8>> = vec![vec![1; 100], vec![2; 48], vec![3; 49]];
        let of: Vec<_> = ders.iter().map(Vec::as_slice).collect();
        let text = text(&of);
        for text in [
            text.clone(),
            format!("{text}\0"),
            text.trim_end().to_owned(),
            text.replace('\n', "\r\n"),
        ] {
            assert_eq!(exact(text.as_bytes()), Some(ders.clone()), "{text}");
            assert_eq!(lenient(&text), Some(ders.clone()), "{text}");
        }
    }

    #[test]
    fn bytes_cannot_hide_in_an_exact_text() {
        let good = text(&[&[1; 100], &[2; 49]]);
        assert!(exact(good.as_bytes()).is_some());
        for bad in [
            format!("comment\n{good}"),
            format!("{good}comment"),
            format!("{good}\0\0x"),
            good.replace("AQEB", "AQ EB"),
            good.replace("-\nAQ", "-\n\nAQ"),
            good.replacen("END", "EnD", 1),
            good.replacen("CERTIFICATE", "X509 CERTIFICATE", 1),
            // Another spelling of the same last byte.
            good.replace("AQ==", "AR=="),
            good.replace("Ag==", "Ah=="),
            text(&[&[1; 10][..]; CERTIFICATES_MAX + 1]),
        ] {
            assert_ne!(bad, good);
            assert_eq!(exact(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(exact(b"\xff"), None);
    }
}
