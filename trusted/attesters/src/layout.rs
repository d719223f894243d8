//! Where the report data is in each vendor's evidence. An attester compares it with what it asked
//! for: evidence about something else is not handed on. Everything else in it is the verifier's.

/// Bytes of a quote's header (Intel DCAP quote format v3 to v5).
const QUOTE_HEADER: usize = 48;
/// Of an SGX report body; its last 64 bytes are the report data.
const SGX_BODY: usize = 384;
/// Of a TDX 1.0 report body; report data at 520.
const TD_BODY: usize = 584;
const TD_REPORT_DATA: usize = 520;
const QUOTE_TEE_TDX: u32 = 0x81;

/// An SEV-SNP attestation report (AMD 56860, table 23).
pub(crate) const SNP_REPORT: usize = 1184;
const SNP_REPORT_DATA: usize = 0x50;
const SNP_KEY_SELECTION: usize = 0x48;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(|b| u32::from_le_bytes(*b))
}

/// Where the body of a quote ends, and where its report data starts.
fn quote_body(quote: &[u8], tdx: bool) -> Option<(usize, usize)> {
    let version = u16_at(quote, 0)?;
    let tee = u32_at(quote, 4)?;
    match (version, tdx) {
        (3, false) => {
            let end = QUOTE_HEADER + SGX_BODY;
            Some((end, end - 64))
        }
        (4, false) if tee == 0 => {
            let end = QUOTE_HEADER + SGX_BODY;
            Some((end, end - 64))
        }
        (4, true) if tee == QUOTE_TEE_TDX => {
            Some((QUOTE_HEADER + TD_BODY, QUOTE_HEADER + TD_REPORT_DATA))
        }
        // v5 has body type (2 bytes) and size (4 bytes) in front of the body.
        (5, _) => {
            let size = usize::try_from(u32_at(quote, QUOTE_HEADER + 2)?).ok()?;
            let start = QUOTE_HEADER + 6;
            let end = start.checked_add(size)?;
            match (u16_at(quote, QUOTE_HEADER)?, tdx) {
                (1, false) if size == SGX_BODY => Some((end, end.checked_sub(64)?)),
                (2.., true) if size >= TD_BODY => Some((end, start + TD_REPORT_DATA)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The quote without the zeros that some hosts append, or nothing if it is not a whole quote with
/// this report data: the length of the signature data follows the body.
pub(crate) fn quote_about<'a>(
    quote: &'a [u8],
    tdx: bool,
    report_data: &[u8; 64],
) -> Option<&'a [u8]> {
    let (body_end, data_at) = quote_body(quote, tdx)?;
    let signature = usize::try_from(u32_at(quote, body_end)?).ok()?;
    let end = body_end.checked_add(4)?.checked_add(signature)?;
    let whole = quote.get(..end)?;
    let padded = quote.get(end..)?.iter().all(|byte| *byte == 0);
    let asked = array::<64>(whole, data_at)? == report_data;
    (padded && asked).then_some(whole)
}

/// The report, or nothing if it is not one with this report data.
pub(crate) fn snp_report_about<'a>(report: &'a [u8], report_data: &[u8; 64]) -> Option<&'a [u8]> {
    let asked = array::<64>(report, SNP_REPORT_DATA)? == report_data;
    (report.len() == SNP_REPORT && asked).then_some(report)
}

/// Whether a VLEK, not a VCEK, signed this report.
pub(crate) fn signed_with_vlek(report: &[u8]) -> bool {
    u32_at(report, SNP_KEY_SELECTION).is_some_and(|bits| (bits >> 2) & 0b111 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(report_data: [u8; 64], signature: &[u8]) -> Vec<u8> {
        let mut quote = vec![0; QUOTE_HEADER + TD_BODY];
        quote[0] = 4;
        quote[4] = 0x81;
        quote[QUOTE_HEADER + TD_REPORT_DATA..].copy_from_slice(&report_data);
        quote.extend(u32::try_from(signature.len()).unwrap().to_le_bytes());
        quote.extend(signature);
        quote
    }

    #[test]
    fn padding_goes_and_nothing_else_does() {
        let quote = v4([7; 64], &[1; 100]);
        assert_eq!(quote_about(&quote, true, &[7; 64]), Some(&quote[..]));
        let mut padded = quote.clone();
        padded.resize(8000, 0);
        assert_eq!(quote_about(&padded, true, &[7; 64]), Some(&quote[..]));
        padded[7999] = 1;
        assert_eq!(quote_about(&padded, true, &[7; 64]), None);
        assert_eq!(quote_about(&quote[..quote.len() - 1], true, &[7; 64]), None);
        assert_eq!(quote_about(&quote, false, &[7; 64]), None, "not SGX");
        assert_eq!(
            quote_about(&quote, true, &[8; 64]),
            None,
            "about something else"
        );
    }

    #[test]
    fn the_key_that_signed_is_read_from_its_three_bits() {
        let mut report = vec![0; SNP_REPORT];
        assert!(!signed_with_vlek(&report));
        report[SNP_KEY_SELECTION] = 0b00111;
        assert!(signed_with_vlek(&report));
        report[SNP_KEY_SELECTION] = 0b11100;
        assert!(!signed_with_vlek(&report), "7: no key signed");
        assert!(!signed_with_vlek(&[]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            version in 0_u8..7,
            tdx: bool,
        ) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            quote_about(&bytes, tdx, &[0; 64]);
            snp_report_about(&bytes, &[0; 64]);
        }
    }
}
