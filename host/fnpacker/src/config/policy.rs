//! The packing policies by their names.

use serde::Deserialize;

use crate::packing::{AllInOne, ChBl, EctG, EctP, OneToOne, Policy, Published, Search, WhenBusy};

/// A packing policy, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    Published,
    PublishedStrict,
    Affinity,
    OneToOne,
    AllInOne,
    ChBl,
    EctG,
    #[default]
    EctP,
}

impl PolicyName {
    /// Every policy.
    pub const ALL: [Self; 8] = [
        Self::Published,
        Self::PublishedStrict,
        Self::Affinity,
        Self::OneToOne,
        Self::AllInOne,
        Self::ChBl,
        Self::EctG,
        Self::EctP,
    ];

    /// Its name in configuration files; the policy itself goes by the same.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::PublishedStrict => "published-strict",
            Self::Affinity => "affinity",
            Self::OneToOne => "one-to-one",
            Self::AllInOne => "all-in-one",
            Self::ChBl => "ch-bl",
            Self::EctG => "ect-g",
            Self::EctP => "ect-p",
        }
    }

    /// A fresh policy of this name, for instances whose memory for a second is worth `rent`
    /// seconds of waiting (see [`super::PoolConfig::rent`]); most policies know no price.
    #[must_use]
    pub fn policy(self, rent: f64) -> Box<dyn Policy> {
        match self {
            Self::Published => Box::new(Published::new(Search::FirstFit, WhenBusy::Wait)),
            Self::PublishedStrict => Box::new(Published::new(Search::FirstFit, WhenBusy::Refuse)),
            Self::Affinity => Box::new(Published::new(Search::Affinity, WhenBusy::Wait)),
            Self::OneToOne => Box::new(OneToOne::default()),
            Self::AllInOne => Box::new(AllInOne),
            Self::ChBl => Box::new(ChBl::default()),
            Self::EctG => Box::new(EctG::default()),
            Self::EctP => Box::new(EctP::new(rent)),
        }
    }
}
