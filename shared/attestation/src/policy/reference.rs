//! Measurements by value: which code may run, where a policy does not pin E_S itself.

use serde::{Deserialize, Serialize};

use super::hex::Hex;
use crate::evidence::Claims;
use crate::facts::Facts;
use crate::measurements::{Measurements, SgxMeasurements, TdxMeasurements};
use crate::scorecard::{CheckName, Scorecard, Status};

/// An SGX signer and one of its products.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SgxProduct {
    pub mrsigner: Hex<32>,
    pub isv_prod_id: u16,
    pub minimum_isv_svn: u16,
}

/// Reference values per register; one that is absent is unchecked. In TOML: the table
/// `[measurements]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferenceMeasurements {
    pub mrenclave: Option<Vec<Hex<32>>>,
    /// Must hold beside `mrenclave` if both are given.
    pub sgx_products: Option<Vec<SgxProduct>>,
    pub mrtd: Option<Vec<Hex<48>>>,
    pub rtmr0: Option<Vec<Hex<48>>>,
    pub rtmr1: Option<Vec<Hex<48>>>,
    pub rtmr2: Option<Vec<Hex<48>>>,
    pub rtmr3: Option<Vec<Hex<48>>>,
    /// SEV-SNP launch measurement.
    pub snp: Option<Vec<Hex<48>>>,
    /// Nitro PCR0.
    pub pcr0: Option<Vec<Hex<48>>>,
}

type Expected<'a> = Vec<(&'static str, &'a [Hex<48>], Hex<48>)>;

fn both<T: Clone + PartialEq>(own: &Option<Vec<T>>, other: &Option<Vec<T>>) -> Option<Vec<T>> {
    match (own, other) {
        (Some(own), Some(other)) => {
            let both = own.iter().filter(|value| other.contains(value));
            Some(both.cloned().collect())
        }
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    }
}

impl ReferenceMeasurements {
    /// What both accept. Destructured without `..`: a new register does not compile until it is
    /// narrowed, too.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let Self {
            mrenclave,
            sgx_products,
            mrtd,
            rtmr0,
            rtmr1,
            rtmr2,
            rtmr3,
            snp,
            pcr0,
        } = self;
        Self {
            mrenclave: both(mrenclave, &other.mrenclave),
            sgx_products: both(sgx_products, &other.sgx_products),
            mrtd: both(mrtd, &other.mrtd),
            rtmr0: both(rtmr0, &other.rtmr0),
            rtmr1: both(rtmr1, &other.rtmr1),
            rtmr2: both(rtmr2, &other.rtmr2),
            rtmr3: both(rtmr3, &other.rtmr3),
            snp: both(snp, &other.snp),
            pcr0: both(pcr0, &other.pcr0),
        }
    }

    /// Puts the check on the card.
    pub(crate) fn judge(&self, claims: &Claims, card: &mut Scorecard) {
        match claims.measurements() {
            Measurements::Sgx(sgx) => self.judge_sgx(sgx, claims.svn, card),
            Measurements::Tdx(tdx) => self.judge_tdx(tdx, claims, card),
            Measurements::AzTdx(azure) => self.judge_tdx(&azure.hardware, claims, card),
            Measurements::Snp(snp) => {
                judge_registers(self.of_snp(&snp.measurement), &snp.measurement, card);
            }
            Measurements::AzSnp(azure) => {
                let measurement = &azure.hardware.measurement;
                judge_registers(self.of_snp(measurement), measurement, card);
            }
            Measurements::Nitro(nitro) => {
                let [pcr0, ..] = &nitro.pcr;
                let expected = self.pcr0.as_deref();
                let expected = expected.map(|values| ("PCR0", values, Hex(*pcr0)));
                judge_registers(expected.into_iter().collect(), pcr0, card);
            }
            Measurements::Simulated(simulated) => {
                judge_registers(Vec::new(), &simulated.mr, card);
            }
        }
    }

    fn of_snp(&self, measurement: &[u8; 48]) -> Expected<'_> {
        let values = self.snp.as_deref();
        let values = values.map(|values| ("measurement", values, Hex(*measurement)));
        values.into_iter().collect()
    }

    fn judge_sgx(&self, sgx: &SgxMeasurements, svn: u64, card: &mut Scorecard) {
        let got = format!(
            "MRENCLAVE {}, MRSIGNER {}, product {}, SVN {svn}",
            Hex(sgx.mrenclave),
            Hex(sgx.mrsigner),
            sgx.isv_prod_id
        );
        let enclaves = self.mrenclave.as_deref();
        let products = self.sgx_products.as_deref();
        if enclaves.is_none() && products.is_none() {
            card.note(CheckName::Measurement, Status::Unchecked, got);
            return;
        }
        let product = |product: &SgxProduct| {
            product.mrsigner.0 == sgx.mrsigner
                && product.isv_prod_id == sgx.isv_prod_id
                && svn >= product.minimum_isv_svn.into()
        };
        if let Some(enclaves) = enclaves {
            let ok = enclaves.contains(&Hex(sgx.mrenclave));
            let expected = format!("MRENCLAVE in {enclaves:?}");
            card.record(CheckName::Measurement, ok, expected, got.clone());
        }
        if let Some(products) = products {
            let ok = products.iter().any(product);
            let expected = format!("signed as one of {products:?}");
            card.record(CheckName::Measurement, ok, expected, got);
        }
    }

    fn judge_tdx(&self, tdx: &TdxMeasurements, claims: &Claims, card: &mut Scorecard) {
        let [rtmr0, rtmr1, rtmr2] = tdx.rtmr;
        let rtmr3 = match &claims.facts {
            Facts::Dcap(facts) => facts.rtmr3,
            Facts::None | Facts::Snp(_) | Facts::Nitro(_) => None,
        };
        let registers = [
            ("MRTD", &self.mrtd, Some(tdx.mrtd)),
            ("RTMR0", &self.rtmr0, Some(rtmr0)),
            ("RTMR1", &self.rtmr1, Some(rtmr1)),
            ("RTMR2", &self.rtmr2, Some(rtmr2)),
            ("RTMR3", &self.rtmr3, rtmr3),
        ];
        let expected = registers.into_iter().filter_map(|(name, values, got)| {
            let values = values.as_deref()?;
            // A register that is asked for and not there matches nothing.
            match got {
                Some(got) => Some((name, values, Hex(got))),
                None => Some((name, &[][..], Hex([0; 48]))),
            }
        });
        judge_registers(expected.collect(), &tdx.mrtd, card);
    }
}

fn judge_registers(expected: Expected<'_>, main: &[u8; 48], card: &mut Scorecard) {
    if expected.is_empty() {
        card.note(
            CheckName::Measurement,
            Status::Unchecked,
            Hex(*main).to_string(),
        );
    }
    for (name, values, got) in expected {
        let ok = values.contains(&got);
        let wanted = format!("{name} in {values:?}");
        card.record(CheckName::Measurement, ok, wanted, format!("{name} {got}"));
    }
}
