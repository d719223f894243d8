//! Folders: what is stored is found, and only for the platform it is of.

use attestation::facts::SnpProduct;
use attestation::testing::dcap::FakeIntel;
use attestation::testing::snp::{FakeAmd, FakeChip};
use attestation::{Evidence, Tee};
use tempfile::TempDir;

use super::*;
use crate::tests::{NOW, quote, wanted};

fn snp(product: SnpProduct, key: SnpSigningKey) -> (Wanted, Endorsements) {
    let chip = FakeChip::new(product, key);
    let evidence = Evidence {
        tee: Tee::Snp,
        body: chip.sign(chip.report().to_bytes()),
    };
    (wanted(&evidence), FakeAmd::new().endorsements(&chip))
}

#[tokio::test]
async fn what_is_stored_is_found() {
    let root = TempDir::new().unwrap();
    let folder = Folder::new(root.path());
    let intel = FakeIntel::new();
    let mut all = vec![(wanted(&quote(&intel)), intel.endorsements(Tee::Tdx, NOW))];
    for product in [SnpProduct::Milan, SnpProduct::Turin] {
        all.push(snp(product, SnpSigningKey::Vcek));
        all.push(snp(product, SnpSigningKey::Vlek));
    }
    for (wanted, endorsements) in &all {
        let error = folder.load(wanted).unwrap_err();
        assert!(matches!(error, ProvideError::NotHere { .. }), "{error}");
        folder.store(wanted, endorsements).unwrap();
    }
    for (wanted, endorsements) in &all {
        assert_eq!(&folder.load(wanted).unwrap(), endorsements);
        assert_eq!(&folder.provide(wanted).await.unwrap(), endorsements);
    }
    let names = ["intel/tdx-", "amd/milan-vcek-c1c1"];
    for (name, (wanted, _)) in names.iter().zip(&all) {
        assert!(wanted.name().starts_with(name), "{}", wanted.name());
    }
    assert!(root.path().join("amd/turin-vlek-chain.pem").is_file());
}

#[test]
fn a_vek_of_the_host_needs_the_issuers_only() {
    let root = TempDir::new().unwrap();
    let folder = Folder::new(root.path());
    let (wanted, endorsements) = snp(SnpProduct::Milan, SnpSigningKey::Vlek);
    folder.store(&wanted, &endorsements).unwrap();
    std::fs::remove_file(folder.path(&wanted, "der")).unwrap();
    assert!(folder.load(&wanted).is_err());
    let given = Wanted {
        host: match &endorsements {
            Endorsements::Snp { vek, .. } => Endorsements::Snp {
                vek: vek.clone(),
                chain: Vec::new(),
            },
            other => other.clone(),
        },
        ..wanted
    };
    assert_eq!(folder.load(&given).unwrap(), endorsements);
}

#[test]
fn files_of_another_platform_or_shape_are_refused() {
    let root = TempDir::new().unwrap();
    let folder = Folder::new(root.path());
    let intel = FakeIntel::new();
    let wanted = wanted(&quote(&intel));
    let sgx = intel.endorsements(Tee::Sgx, NOW);
    assert!(folder.store(&wanted, &sgx).is_err());
    assert!(folder.store(&wanted, &Endorsements::None).is_err());
    let path = folder.path(&wanted, "json");
    let Endorsements::Dcap { collateral } = sgx else {
        panic!("{sgx:?}");
    };
    let too_long = vec![b' '; 2 * BODY_MAX + 1];
    for content in [&collateral[..], b"{}", b"", &too_long] {
        write(&path, content).unwrap();
        assert!(folder.load(&wanted).is_err(), "{} bytes", content.len());
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = folder.load(&wanted).unwrap_err();
    assert!(matches!(error, ProvideError::File { .. }), "{error}");
}
