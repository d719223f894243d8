//! Identity keys: one published key, and everything that is not a key.

use super::*;

/// RFC 8410 section 10.3, the first private key there, and its public key of section 10.1.
const PUBLISHED: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";
const PUBLISHED_SPKI: &str = "302a300506032b6570032100\
    19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";

#[test]
fn the_key_published_in_rfc_8410() {
    let key = IdentityKey::from_pkcs8_pem(PUBLISHED).unwrap();
    assert_eq!(hex::encode(key.spki_der()), PUBLISHED_SPKI);
    assert_eq!(key.to_pkcs8_pem().as_str(), PUBLISHED);
    let spki = hex::decode(PUBLISHED_SPKI).unwrap();
    assert_eq!(key.principal().as_bytes(), sha256(&spki).as_bytes());
    assert_eq!(
        format!("{key:?}"),
        format!("IdentityKey({})", key.principal())
    );
}

#[test]
fn a_generated_key_round_trips_through_pem_der_and_file() {
    let key = IdentityKey::generate().unwrap();
    let again = IdentityKey::from_pkcs8_pem(&key.to_pkcs8_pem()).unwrap();
    assert_eq!(again.principal(), key.principal());
    let again = IdentityKey::from_pkcs8_der(key.pkcs8_der()).unwrap();
    assert_eq!(again.principal(), key.principal());
    assert_ne!(
        IdentityKey::generate().unwrap().principal(),
        key.principal()
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.pem");
    key.write_file(&path).unwrap();
    assert_eq!(
        IdentityKey::read_file(&path).unwrap().principal(),
        key.principal()
    );
    assert!(matches!(
        key.write_file(&path),
        Err(KeyFileError::Exists { .. })
    ));
}

#[test]
fn the_longer_form_with_the_public_key_is_taken_too() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let v2 = pair.to_pkcs8().unwrap();
    let key = IdentityKey::from_pkcs8_der(v2.as_ref()).unwrap();
    assert_eq!(key.spki_der()[12..], *pair.public_key().as_ref());
    let again = IdentityKey::from_pkcs8_pem(&key.to_pkcs8_pem()).unwrap();
    assert_eq!(again.principal(), key.principal());
    // A public key inside that does not belong to the private one.
    let mut wrong = v2.as_ref().to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(
        IdentityKey::from_pkcs8_der(&wrong).unwrap_err(),
        IdentityError::Pkcs8
    );
}

#[test]
fn what_is_not_an_ed25519_key_in_pem_is_refused() {
    // P-256, as OpenSSL writes it.
    let p256 = "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n\
        OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n\
        1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n\
        -----END PRIVATE KEY-----\n";
    assert_eq!(
        IdentityKey::from_pkcs8_pem(p256).unwrap_err(),
        IdentityError::Pkcs8
    );
    let long = format!("{PEM_BEGIN}\n{}\n{PEM_END}", "QUFB".repeat(5000));
    for bad in [
        "",
        PEM_BEGIN,
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        &PUBLISHED.replace("PRIVATE", "PUBLIC"),
        &PUBLISHED.replace("MC4C", "MC4!"),
        &PUBLISHED[..PUBLISHED.len() - 5],
        &format!("{PUBLISHED}{PUBLISHED}"),
        &PUBLISHED.replace("VhC", ""),
        &long,
    ] {
        IdentityKey::from_pkcs8_pem(bad).expect_err(bad);
    }
}
