//! The newest endorsements that a relying party saw: older ones are not accepted after them.
//!
//! A judgement of patch levels is valid for about a month, and whoever attests chooses which valid
//! one to send. Once a newer one of the same kind of platform was seen, the older is refused. What
//! the vendor signed also says that its date has come, whatever the host's clock says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cbor::{CborError, Reader, Writer, require_at_most, require_canonical};
use crate::evidence::{Claims, Tee};
use crate::facts::{DcapFacts, Facts};
use crate::scorecard::{CheckName, Scorecard};

const WHAT: &str = "a record of the newest endorsements";
const LABEL: &str = "sesemi/newest-endorsements/1";
/// Kinds of platform that are remembered. Intel's FMSPCs number dozens; each entry needs genuine
/// evidence of such a machine.
const PLATFORMS_MAX: usize = 1024;
/// Longest record, in bytes.
pub const NEWEST_MAX: usize = 48 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    tcb_evaluation: u32,
    /// Seconds since the UNIX epoch.
    issued: u64,
}

/// By kind of TEE and platform (FMSPC).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Newest(BTreeMap<(Tee, [u8; 6]), Seen>);

fn of(claims: &Claims) -> Option<((Tee, [u8; 6]), &DcapFacts)> {
    let tee = match claims.tee() {
        Tee::AzTdx => Tee::Tdx,
        tee => tee,
    };
    match &claims.facts {
        Facts::Dcap(facts) => Some(((tee, facts.fmspc), facts)),
        // AMD's and AWS's certificates carry no judgement that could be replaced by a newer one.
        Facts::Snp(_) | Facts::Nitro(_) | Facts::None => None,
    }
}

impl Newest {
    /// A time that has certainly come: the vendor signed something with this date.
    #[must_use]
    pub fn time_floor(&self) -> Duration {
        let issued = self.0.values().map(|seen| seen.issued);
        Duration::from_secs(issued.max().unwrap_or(0))
    }

    /// Records on the card whether the endorsements behind `claims` are as new as any seen.
    pub(crate) fn judge(&self, claims: &Claims, card: &mut Scorecard) {
        let Some((platform, facts)) = of(claims) else {
            return;
        };
        let got = format!(
            "evaluation {}, issued {}",
            facts.tcb_evaluation,
            facts.issued.as_secs()
        );
        let Some(seen) = self.0.get(&platform) else {
            card.record(CheckName::EndorsementsNotOlder, true, "any: the first", got);
            return;
        };
        let ok =
            facts.tcb_evaluation >= seen.tcb_evaluation && facts.issued.as_secs() >= seen.issued;
        let expected = format!(
            "at least evaluation {}, issued {}",
            seen.tcb_evaluation, seen.issued
        );
        card.record(CheckName::EndorsementsNotOlder, ok, expected, got);
    }

    /// Remembers the endorsements behind claims that were accepted; whether that changed anything.
    pub fn admit(&mut self, claims: &Claims) -> bool {
        let Some((platform, facts)) = of(claims) else {
            return false;
        };
        let new = Seen {
            tcb_evaluation: facts.tcb_evaluation,
            issued: facts.issued.as_secs(),
        };
        let room = self.0.len() < PLATFORMS_MAX;
        match self.0.get_mut(&platform) {
            Some(seen) => {
                let before = *seen;
                seen.tcb_evaluation = seen.tcb_evaluation.max(new.tcb_evaluation);
                seen.issued = seen.issued.max(new.issued);
                *seen != before
            }
            None if room => {
                self.0.insert(platform, new);
                true
            }
            None => false,
        }
    }

    /// Deterministic CBOR, to be kept where nobody else can write.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let writer = Writer::new().array(2).text(LABEL).array(self.0.len());
        let entries = self.0.iter();
        entries
            .fold(writer, |writer, ((tee, fmspc), seen)| {
                writer
                    .array(4)
                    .text(tee.name())
                    .bytes(fmspc)
                    .uint(seen.tcb_evaluation.into())
                    .uint(seen.issued)
            })
            .done()
    }

    /// # Errors
    /// [`CborError`] for everything that [`Self::to_bytes`] does not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CborError> {
        require_at_most(WHAT, bytes.len(), NEWEST_MAX)?;
        let mut reader = Reader::new(WHAT, bytes);
        reader.array(2)?;
        if reader.text()? != LABEL {
            return Err(reader.wrong());
        }
        let entries = reader.any_array()?;
        let mut newest = Self::default();
        for _ in 0..entries {
            reader.array(4)?;
            let tee = Tee::from_name(reader.text()?).ok_or_else(|| reader.wrong())?;
            let fmspc = reader.fixed()?;
            let evaluation = u32::try_from(reader.uint()?).map_err(|_| reader.wrong())?;
            let seen = Seen {
                tcb_evaluation: evaluation,
                issued: reader.uint()?,
            };
            newest.0.insert((tee, fmspc), seen);
        }
        require_canonical(WHAT, bytes, &newest.to_bytes())?;
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Said, TcbStatus};
    use crate::measurements::{Measurements, SgxMeasurements};
    use crate::scorecard::Status;

    fn claims(fmspc: u8, tcb_evaluation: u32, issued: u64) -> Claims {
        let measurements = SgxMeasurements {
            mrenclave: [1; 32],
            mrsigner: [2; 32],
            isv_prod_id: 3,
            attributes: 4,
            xfrm: 5,
            misc_select: 6,
        };
        Claims {
            said: Said {
                measurements: Measurements::Sgx(measurements),
                report_data: Vec::new(),
                nonce: None,
            },
            svn: 0,
            tcb: TcbStatus::UpToDate,
            facts: Facts::Dcap(Box::new(DcapFacts {
                tcb_evaluation,
                issued: Duration::from_secs(issued),
                fmspc: [fmspc; 6],
                ..DcapFacts::default()
            })),
        }
    }

    fn judged(newest: &Newest, claims: &Claims) -> Status {
        let mut card = Scorecard::new(&[]);
        newest.judge(claims, &mut card);
        card.check(CheckName::EndorsementsNotOlder).unwrap().status
    }

    #[test]
    fn older_is_refused_after_newer_and_other_platforms_are_others() {
        let mut newest = Newest::default();
        assert_eq!(judged(&newest, &claims(1, 17, 100)), Status::Pass);
        assert!(newest.admit(&claims(1, 17, 100)));
        assert!(!newest.admit(&claims(1, 17, 100)));
        assert_eq!(newest.time_floor(), Duration::from_secs(100));
        for (evaluation, issued, expected) in [
            (17, 100, Status::Pass),
            (18, 200, Status::Pass),
            (16, 200, Status::Fail),
            (18, 99, Status::Fail),
        ] {
            let got = judged(&newest, &claims(1, evaluation, issued));
            assert_eq!(got, expected, "{evaluation} {issued}");
        }
        assert_eq!(judged(&newest, &claims(2, 1, 1)), Status::Pass);
        // Each number only grows, also when they come apart.
        newest.admit(&claims(1, 18, 90));
        assert_eq!(judged(&newest, &claims(1, 17, 100)), Status::Fail);
        assert_eq!(judged(&newest, &claims(1, 18, 90)), Status::Fail);
    }

    #[test]
    fn what_is_kept_comes_back_and_nothing_else_is_read() {
        let mut newest = Newest::default();
        assert_eq!(Newest::from_bytes(&newest.to_bytes()), Ok(newest.clone()));
        newest.admit(&claims(1, 17, 100));
        newest.admit(&claims(2, 18, 1 << 33));
        let bytes = newest.to_bytes();
        assert_eq!(Newest::from_bytes(&bytes), Ok(newest));
        for cut in 0..bytes.len() {
            assert!(Newest::from_bytes(&bytes[..cut]).is_err());
        }
        assert!(Newest::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_stranger_cannot_fill_the_memory() {
        let mut newest = Newest::default();
        for n in 0..=PLATFORMS_MAX {
            let mut one = claims(0, 1, 1);
            let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
            if let Facts::Dcap(facts) = &mut one.facts {
                facts.fmspc = [0, 0, 0, 0, high, low];
            }
            newest.admit(&one);
        }
        assert_eq!(newest.0.len(), PLATFORMS_MAX);
        assert!(newest.to_bytes().len() <= NEWEST_MAX);
    }
}
