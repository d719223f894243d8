//! The certificate table that the host of an SEV-SNP guest may hand in (AMD 56421, GHCB, "SNP
//! extended guest request"): entries of GUID, offset and length, ended by one of zeros. Hostile.

use attestation::Endorsements;

use crate::layout::signed_with_vlek;

/// Largest table: Linux gives up to 32 pages of 4 KiB.
pub(crate) const TABLE_MAX: usize = 128 * 1024;
/// Largest certificate taken from it; real ones have under 2 KiB.
const CERTIFICATE_MAX: usize = 8 * 1024;
const ENTRY: usize = 24;
/// Entries read; five GUIDs are defined.
const ENTRIES: usize = 16;

/// GUIDs in the byte order of RFC 4122, which the table uses.
pub(crate) mod guid {
    pub(crate) const VCEK: [u8; 16] = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
    pub(crate) const VLEK: [u8; 16] = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes();
    /// ASK, or ASVK where a VLEK signs.
    pub(crate) const ASK: [u8; 16] = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes();
    pub(crate) const ARK: [u8; 16] = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes();
}

/// The certificates for `report`, if the table holds one of the key that signed it. The chain is
/// ASK or ASVK, then ARK, or empty unless both are there. Nothing of this is verified.
#[must_use]
pub(crate) fn beside(report: &[u8], table: &[u8]) -> Endorsements {
    let wanted = if signed_with_vlek(report) {
        guid::VLEK
    } else {
        guid::VCEK
    };
    let Some(vek) = certificate(table, &wanted) else {
        return Endorsements::None;
    };
    let chain = [guid::ASK, guid::ARK].map(|which| certificate(table, &which));
    let chain = match chain {
        [Some(ask), Some(ark)] => vec![ask, ark],
        _ => Vec::new(),
    };
    Endorsements::Snp { vek, chain }
}

/// The one certificate with this GUID; nothing if there are two, or it is not inside the table.
fn certificate(table: &[u8], wanted: &[u8; 16]) -> Option<Vec<u8>> {
    let mut found = None;
    for entry in table.chunks_exact(ENTRY).take(ENTRIES) {
        let (guid, place) = entry.split_first_chunk::<16>()?;
        let (offset, length) = place.split_first_chunk::<4>()?;
        if *guid == [0; 16] {
            return found;
        }
        if guid != wanted {
            continue;
        }
        let offset = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
        let length = usize::try_from(u32::from_le_bytes(*length.first_chunk()?)).ok()?;
        let end = offset.checked_add(length)?;
        let certificate = table.get(offset..end)?;
        if found.is_some() || !(1..=CERTIFICATE_MAX).contains(&length) {
            return None;
        }
        found = Some(certificate.to_vec());
    }
    // The zero entry is missing.
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::SNP_REPORT;

    fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let word = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
        let mut offset = ENTRY * (entries.len() + 1);
        let mut table = Vec::new();
        for (guid, certificate) in entries {
            table.extend(guid);
            table.extend(word(offset));
            table.extend(word(certificate.len()));
            offset += certificate.len();
        }
        table.extend([0; ENTRY]);
        for (_, certificate) in entries {
            table.extend(*certificate);
        }
        table
    }

    fn report(vlek: bool) -> Vec<u8> {
        let mut report = vec![0; SNP_REPORT];
        report[0x48] = if vlek { 4 } else { 0 };
        report
    }

    #[test]
    fn the_key_is_the_one_that_the_report_names() {
        let both = table(&[
            (guid::VCEK, b"vcek"),
            (guid::VLEK, b"vlek"),
            (guid::ASK, b"ask"),
            (guid::ARK, b"ark"),
        ]);
        let of = |vek: &[u8], chain: &[&[u8]]| Endorsements::Snp {
            vek: vek.into(),
            chain: chain.iter().map(|c| c.to_vec()).collect(),
        };
        let chain: [&[u8]; 2] = [b"ask", b"ark"];
        assert_eq!(beside(&report(false), &both), of(b"vcek", &chain));
        assert_eq!(beside(&report(true), &both), of(b"vlek", &chain));
        let only_vcek = table(&[(guid::VCEK, b"vcek")]);
        assert_eq!(
            beside(&report(true), &only_vcek),
            Endorsements::None,
            "a VCEK is no VLEK"
        );
        assert_eq!(beside(&report(false), &only_vcek), of(b"vcek", &[]));
    }

    #[test]
    fn a_lying_table_gives_nothing() {
        let ask = |table: &[u8]| match beside(&report(false), table) {
            Endorsements::None => None,
            some => Some(some),
        };
        assert_eq!(ask(&[]), None);
        assert_eq!(ask(&[0; ENTRY]), None);
        let good = table(&[(guid::VCEK, b"vcek")]);
        assert!(ask(&good).is_some());

        let mut no_end = good.clone();
        no_end[ENTRY..2 * ENTRY].fill(1);
        assert_eq!(ask(&no_end), None, "no zero entry");
        let twice = table(&[(guid::VCEK, b"one"), (guid::VCEK, b"two")]);
        assert_eq!(ask(&twice), None, "which one?");
        let empty = table(&[(guid::VCEK, b"")]);
        assert_eq!(ask(&empty), None);
        let huge = table(&[(guid::VCEK, &[1; CERTIFICATE_MAX + 1])]);
        assert_eq!(ask(&huge), None);
        for (at, what) in [
            (16, "offset outside"),
            (19, "offset near 4 GiB"),
            (23, "length"),
        ] {
            let mut bad = good.clone();
            bad[at] = 0xff;
            assert_eq!(ask(&bad), None, "{what}");
        }
        assert_eq!(ask(&good[..good.len() - 1]), None, "cut short");
    }

    #[test]
    fn guids_are_those_of_the_specification() {
        assert_eq!(hex::encode(guid::ARK), "c0b406a4a803495297433fb6014cd0ae");
        assert_eq!(hex::encode(guid::VCEK), "63da758de6644564adc5f4b93be8accd");
        assert_eq!(hex::encode(guid::ASK), "4ab7b379bbac4fe4a02f05aef327c782");
        assert_eq!(hex::encode(guid::VLEK), "a8074bc2a25a483eaae639c045a0b8a1");
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic(table in prop::collection::vec(any::<u8>(), 0..400), at in 0_usize..8) {
            let mut table = table;
            if let Some(place) = table.get_mut(at * ENTRY..at * ENTRY + 16) {
                place.copy_from_slice(&guid::VCEK);
            }
            drop(beside(&report(false), &table));
        }
    }
}
