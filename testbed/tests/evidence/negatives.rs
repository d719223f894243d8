//! The 616 negatives: each described in words by `NEGATIVES.json`, built here from the captured
//! evidence. None may be accepted, by any policy that accepts what it was made of.

use attestation::Endorsements;
use serde::Deserialize;
use serde_json::Value;

use crate::case::{Case, evidence, pem, read};
use crate::forge::{self, Layout, cose, to_cose};

/// How many there are.
pub(crate) const NEGATIVES: usize = 616;

/// One entry of `NEGATIVES.json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Negative {
    pub(crate) fixture: String,
    pub(crate) mutation: String,
    pub(crate) class: String,
    /// Says so where the sev crate accepts it.
    #[serde(default)]
    pub(crate) sev_crate: Option<String>,
}

pub(crate) fn load() -> Vec<Negative> {
    let text = read(&evidence().join("NEGATIVES.json"));
    serde_json::from_slice(&text).unwrap()
}

/// What the words ask for.
#[derive(Debug, Clone)]
pub(crate) enum Built {
    /// These, which differ only in which bit is flipped; the first is the lowest.
    Cases(Vec<Case>),
    /// The evidence as it is, but by the default policy.
    DefaultPolicy,
    /// Perfect but for the root, which is given.
    Forged(Box<Case>, Vec<u8>),
}

fn one(case: Case) -> Built {
    Built::Cases(vec![case])
}

/// The number between `before` and the next character that belongs to none.
fn number(text: &str, before: &str) -> Option<usize> {
    let (_, rest) = text.split_once(before)?;
    let (digits, radix) = rest
        .strip_prefix("0x")
        .map_or((rest, 10), |rest| (rest, 16));
    let end = digits
        .find(|c: char| !c.is_digit(radix))
        .unwrap_or(digits.len());
    usize::from_str_radix(&digits[..end], radix).ok()
}

/// The name of a case between `before` and the character that ends it.
fn named(text: &str, before: &str) -> Option<Case> {
    let (_, rest) = text.split_once(before)?;
    let end = rest.find([' ', ')']).unwrap_or(rest.len());
    Some(Case::load(&rest[..end]))
}

impl Negative {
    pub(crate) fn build(&self) -> Built {
        let case = Case::load(&self.fixture);
        match self.class.as_str() {
            "integrity" => self.integrity(case),
            "parse" => one(self.parse(case)),
            "time" => one(self.time(case)),
            "root" if self.mutation == "rogue root CA with Intel subject name" => {
                let forged = forge::intel(&case);
                Built::Forged(Box::new(forged.case), forged.root)
            }
            "root" if self.mutation == "rogue root with AWS subject" => {
                let forged = forge::nitro(&case);
                Built::Forged(Box::new(forged.case), forged.root)
            }
            "collateral" | "revocation" => one(self.collateral(case)),
            "endorsement" => one(self.endorsement(case)),
            "debug" if self.mutation == "default policy (debug not allowed)" => {
                Built::DefaultPolicy
            }
            _ => self.unknown(),
        }
    }

    fn unknown(&self) -> ! {
        panic!("nobody knows how to build {self:?}")
    }

    fn integrity(&self, case: Case) -> Built {
        if self.mutation.starts_with("flip bit in ") {
            let at = number(&self.mutation, "(offset ").unwrap();
            // The words do not say which bit: all of them.
            let flipped = (0..8).map(|bit| {
                let mut case = case.clone();
                case.body[at] ^= 1 << bit;
                case
            });
            return Built::Cases(flipped.collect());
        }
        let mut case = case;
        if let Some(other) = named(&self.mutation, "signature of ") {
            let (protected, payload, _) = cose(&case.body);
            let (_, _, signature) = cose(&other.body);
            case.body = to_cose(protected, payload, signature);
        } else if let Some(other) = named(&self.mutation, "TD body of ") {
            let (to, from) = (Layout::of(&case.body), Layout::of(&other.body));
            let body = &other.body[from.body..from.auth];
            assert_eq!(to.auth - to.body, body.len());
            case.body[to.body..to.auth].copy_from_slice(body);
        } else {
            self.unknown();
        }
        one(case)
    }

    fn parse(&self, mut case: Case) -> Case {
        let length = number(&self.mutation, "truncate to ").or(number(&self.mutation, "length "));
        match (length, self.mutation.as_str()) {
            (Some(length), _) => {
                assert_ne!(length, case.body.len());
                case.body.resize(length, 0);
            }
            (None, "trailing byte") => case.body.push(0),
            (None, "truncated") => {
                case.body.pop();
            }
            _ => self.unknown(),
        }
        case
    }

    fn time(&self, mut case: Case) -> Case {
        let (first, last) = case.window().unwrap();
        case.at = match self.mutation.as_str() {
            "verify 3 days before window" => first - 3 * 86_400,
            "1 s before leaf notBefore" => first - 1,
            "verify 1 s after window" | "1 s after leaf notAfter" => last + 1,
            _ => self.unknown(),
        };
        case
    }

    fn collateral(&self, mut case: Case) -> Case {
        let others = ["collateral of other TEE type (", "collateral of "];
        if let Some(other) = others
            .iter()
            .find_map(|before| named(&self.mutation, before))
        {
            case.endorsements = other.endorsements;
            case.at = other.at;
            return case;
        }
        let mut collateral = case.collateral();
        let text = |key: &str| collateral[key].as_str().unwrap().to_owned();
        let (key, value) = match self.mutation.as_str() {
            "tcb_info statuses upgraded (signature broken)" => ("tcb_info", {
                let upgraded = upgrade(&text("tcb_info"));
                assert_ne!(upgraded, text("tcb_info"));
                upgraded
            }),
            "tcb_info nextUpdate extended" => ("tcb_info", extend(&text("tcb_info"))),
            "qe_identity edited" => ("qe_identity", lower(&text("qe_identity"))),
            "tcb_info signature flipped" => flip_last("tcb_info_signature", &text),
            "qe_identity signature flipped" => flip_last("qe_identity_signature", &text),
            "pck CRL signature flipped" => flip_last("pck_crl", &text),
            "root CRL signature flipped" => flip_last("root_ca_crl", &text),
            "pck CRL replaced by root CRL (missing revocation data)" => {
                ("pck_crl", text("root_ca_crl"))
            }
            "root CRL replaced by pck CRL" => ("root_ca_crl", text("pck_crl")),
            "tcb_info signed-by chain replaced with PCK CA chain" => {
                ("tcb_info_issuer_chain", text("pck_crl_issuer_chain"))
            }
            _ => self.unknown(),
        };
        collateral[key] = Value::from(value);
        case.set_collateral(&collateral);
        case
    }

    fn endorsement(&self, mut case: Case) -> Case {
        let Endorsements::Snp { vek, chain } = &mut case.endorsements else {
            self.unknown()
        };
        if let Some(file) = self.mutation.strip_prefix("VCEK ") {
            *vek = read(&case.folder.join(file));
        } else if let Some(other) = named(&self.mutation, "VEK of another chip (") {
            *vek = read(&other.folder.join("vek.der"));
        } else if let Some(other) = named(&self.mutation, "CA chain of other product line (") {
            let text = String::from_utf8(read(&other.folder.join("ca.pem"))).unwrap();
            *chain = pem(&text);
        } else {
            self.unknown();
        }
        case
    }
}

/// Every patch level up to date.
fn upgrade(tcb_info: &str) -> String {
    let mut parts = tcb_info.split("\"tcbStatus\":\"");
    let mut upgraded = parts.next().unwrap().to_owned();
    for part in parts {
        let (_, rest) = part.split_once('"').unwrap();
        upgraded += "\"tcbStatus\":\"UpToDate\"";
        upgraded += rest;
    }
    upgraded
}

/// The lowest security version is good enough.
fn lower(qe_identity: &str) -> String {
    let (before, rest) = qe_identity.split_once("{\"isvsvn\":").unwrap();
    let (version, after) = rest.split_once('}').unwrap();
    assert_ne!(version, "1");
    format!("{before}{{\"isvsvn\":1}}{after}")
}

/// Valid for ten years more.
fn extend(tcb_info: &str) -> String {
    let (before, rest) = tcb_info.split_once("\"nextUpdate\":\"20").unwrap();
    let decade: u8 = rest[..1].parse().unwrap();
    format!("{before}\"nextUpdate\":\"20{}{}", decade + 1, &rest[1..])
}

/// The lowest bit of the last byte, of hexadecimal text.
fn flip_last(key: &'static str, text: &impl Fn(&str) -> String) -> (&'static str, String) {
    let mut bytes = hex::decode(text(key)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    (key, hex::encode(bytes))
}
