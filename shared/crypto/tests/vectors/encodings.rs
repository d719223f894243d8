//! One envelope written in every other way that CBOR and COSE allow, or nearly allow.

/// Envelopes that another COSE library may well open, in an encoding that is not the one. Parts in
/// braces: see `make_envelopes::encodings`; everything else is hexadecimal.
pub(crate) const ENCODINGS: &[(&str, &str)] = &[
    ("no tag", "84 {P} {U} {C} 81 {R}"),
    ("tag in two bytes", "d90060 84 {P} {U} {C} 81 {R}"),
    ("tag of COSE_Encrypt0", "d0 84 {P} {U} {C} 81 {R}"),
    ("self-described CBOR", "d9d9f7 d860 84 {P} {U} {C} 81 {R}"),
    ("array length in two bytes", "d860 9804 {P} {U} {C} 81 {R}"),
    ("array without length", "d860 9f {P} {U} {C} 81 {R} ff"),
    ("array of five", "d860 85 {P} {U} {C} 81 {R} f6"),
    (
        "protected header length in two bytes",
        "d860 84 5803a10103 {U} {C} 81 {R}",
    ),
    ("protected header empty", "d860 84 40 {U} {C} 81 {R}"),
    (
        "protected header with A128GCM",
        "d860 84 43a10101 {U} {C} 81 {R}",
    ),
    (
        "protected header not minimal",
        "d860 84 44a1011803 {U} {C} 81 {R}",
    ),
    (
        "protected header without length",
        "d860 84 44bf0103ff {U} {C} 81 {R}",
    ),
    (
        "algorithm in both headers",
        "d860 84 {P} a20103054c{iv} {C} 81 {R}",
    ),
    (
        "iv in the protected header",
        "d860 84 51a20103054c{iv} a0 {C} 81 {R}",
    ),
    (
        "a key id before the iv",
        "d860 84 {P} a2044101054c{iv} {C} 81 {R}",
    ),
    (
        "a key id after the iv",
        "d860 84 {P} a2054c{iv}044101 {C} 81 {R}",
    ),
    ("iv twice", "d860 84 {P} a2054c{iv}054c{iv} {C} 81 {R}"),
    (
        "unprotected header without length",
        "d860 84 {P} bf054c{iv}ff {C} 81 {R}",
    ),
    (
        "iv label not minimal",
        "d860 84 {P} a118054c{iv} {C} 81 {R}",
    ),
    ("no iv", "d860 84 {P} a0 {C} 81 {R}"),
    ("iv of 13 bytes", "d860 84 {P} a1054d{iv}00 {C} 81 {R}"),
    ("iv of 11 bytes", "d860 84 {P} a1054b{iv-} {C} 81 {R}"),
    (
        "iv as text",
        "d860 84 {P} a1056c616161616161616161616161 {C} 81 {R}",
    ),
    ("ciphertext in chunks", "d860 84 {P} {U} 5f{C}ff 81 {R}"),
    (
        "ciphertext length in three bytes",
        "d860 84 {P} {U} 590026{sealed} 81 {R}",
    ),
    (
        "ciphertext length in nine bytes",
        "d860 84 {P} {U} 5b0000000000000026{sealed} 81 {R}",
    ),
    (
        "ciphertext length beyond the end",
        "d860 84 {P} {U} 5bffffffffffffffff{sealed} 81 {R}",
    ),
    ("ciphertext absent", "d860 84 {P} {U} f6 81 {R}"),
    ("ciphertext empty", "d860 84 {P} {U} 40 81 {R}"),
    (
        "ciphertext shorter than a tag",
        "d860 84 {P} {U} 4f000102030405060708090a0b0c0d0e 81 {R}",
    ),
    ("no recipient", "d860 84 {P} {U} {C} 80"),
    ("two recipients", "d860 84 {P} {U} {C} 82 {R} {R}"),
    ("recipients without length", "d860 84 {P} {U} {C} 9f {R} ff"),
    (
        "recipient of four",
        "d860 84 {P} {U} {C} 81 84 {D} {S} 40 80",
    ),
    (
        "recipient without derivation",
        "d860 84 {P} {U} {C} 81 83 40 a10125 40",
    ),
    (
        "recipient with HKDF-SHA-512",
        "d860 84 {P} {U} {C} 81 83 43a1012a {S} 40",
    ),
    (
        "recipient's algorithm unprotected",
        "d860 84 {P} {U} {C} 81 83 40 a20129335820{salt} 40",
    ),
    (
        "recipient with a party identity",
        "d860 84 {P} {U} {C} 81 83 {D} a2335820{salt}344101 40",
    ),
    (
        "recipient with a key id",
        "d860 84 {P} {U} {C} 81 83 {D} a2044101335820{salt} 40",
    ),
    ("no salt", "d860 84 {P} {U} {C} 81 83 {D} a0 40"),
    (
        "salt of 31 bytes",
        "d860 84 {P} {U} {C} 81 83 {D} a133581f{salt-} 40",
    ),
    (
        "salt length in three bytes",
        "d860 84 {P} {U} {C} 81 83 {D} a133590020{salt} 40",
    ),
    (
        "recipient with a ciphertext",
        "d860 84 {P} {U} {C} 81 83 {D} {S} 4100",
    ),
    (
        "recipient with a null ciphertext",
        "d860 84 {P} {U} {C} 81 83 {D} {S} f6",
    ),
    ("nothing at all", ""),
];
